// Requests from a JSONL file: one JSON object a line. Pure.
import { z } from "zod";
import { BadInput } from "../check.ts";
import { show } from "../formats/check-fields.ts";
import { oneLine } from "../formats/quote.ts";
import {
  type ArrivalOptions,
  arrivalTimes,
  drawOutputLength,
  type Lengths,
  lengthsText,
  surely,
  type WorkloadRequest,
} from "./workload.ts";

/** A line of the file: a prompt as text or as ids, and what may stand beside it. */
export interface DatasetLine {
  /** From 1, for messages. */
  readonly number: number;
  readonly prompt: string | readonly number[];
  /** `max_tokens` or `output_len`. */
  readonly outputLen?: number;
  readonly priority?: number;
  readonly salt?: string;
}

export interface DatasetWorkloadOptions extends ArrivalOptions {
  /** The first so many lines. Default: all. */
  readonly numPrompts?: number;
  /** Of lines that do not say it; a log-normal one is clipped to the context. */
  readonly outputLen: Lengths;
  readonly vocabSize: number;
  readonly contextLength: number;
  /** Ids of a prompt given as text. */
  readonly encode: (text: string) => readonly number[];
}

const tokens = z.int("an integer from 1").min(1, "an integer from 1").optional();
const LINE = z.strictObject(
  {
    prompt: z.string("a text").optional(),
    prompt_ids: z
      .array(z.int("an integer of at least 0").min(0, "an integer of at least 0"), "a list of token ids")
      .min(1, "at least one token id")
      .optional(),
    max_tokens: tokens,
    output_len: tokens,
    priority: z.int("an integer").optional(),
    salt: z.string("a text").optional(),
  },
  "an object",
);
const FIELDS = Object.keys(LINE.shape).join(", ");

/** The lines of a file named `file`; empty ones count but are no requests. Throws BadInput with the first line that is wrong. */
export function parseDataset(text: string, file: string): DatasetLine[] {
  const lines = text
    .replace(/^\ufeff/, "")
    .split("\n")
    .flatMap((line, i) => (line.trim() === "" ? [] : [parseLine(line, i + 1, file)]));
  if (lines.length === 0)
    throw new BadInput(`${file}: no requests; wanted a line such as {"prompt": "text", "max_tokens": 50}`);
  return lines;
}

function parseLine(line: string, number: number, file: string): DatasetLine {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw wrong(file, number, `got ${oneLine(line, 60)}; wanted a JSON object`);
  }
  const parsed = LINE.safeParse(value);
  if (!parsed.success) throw wrong(file, number, complaint(parsed.error.issues[0]!, value));
  const { prompt, prompt_ids, max_tokens, output_len, priority, salt } = parsed.data;
  if ((prompt === undefined) === (prompt_ids === undefined))
    throw wrong(
      file,
      number,
      `has ${prompt === undefined ? "no prompt" : "two prompts"}; wanted prompt or prompt_ids`,
    );
  if (max_tokens !== undefined && output_len !== undefined)
    throw wrong(file, number, "has max_tokens and output_len, which mean the same; wanted one of them");
  return { number, prompt: prompt ?? prompt_ids!, outputLen: max_tokens ?? output_len, priority, salt };
}

function complaint(issue: z.core.$ZodIssue, value: unknown): string {
  if (issue.code === "unrecognized_keys") return `has ${show(issue.keys[0])}; wanted only ${FIELDS}`;
  let given = value;
  for (const key of issue.path) given = (given as Record<PropertyKey, unknown> | undefined)?.[key];
  const field = issue.path.map(String).join(".");
  return `${field ? `${field} is` : "is"} ${show(given)}; wanted ${issue.message}`;
}

function wrong(file: string, line: number, what: string): BadInput {
  return new BadInput(`${file}, line ${line}: ${what}`);
}

/** The requests of the file. Throws BadInput with the first line whose prompt and answer do not fit the model. */
export function datasetWorkload(
  lines: readonly DatasetLine[],
  file: string,
  options: DatasetWorkloadOptions,
): WorkloadRequest[] {
  const { numPrompts = lines.length, outputLen, seed, contextLength } = options;
  if (numPrompts > lines.length)
    throw new BadInput(`--num-prompts is ${numPrompts}; ${file} has only ${lines.length} requests`);
  return arrivalTimes(numPrompts, options).map((arrival, i) => {
    const line = lines[i]!;
    const prompt = idsOf(line, file, options);
    const asked = line.outputLen ?? surely(outputLen);
    const room = contextLength - prompt.length;
    if (asked > room)
      throw wrong(
        file,
        line.number,
        `the prompt has ${prompt.length} tokens and the answer ${line.outputLen ?? `--output-len ${lengthsText(outputLen)}`}; ` +
          `together at most ${contextLength}, the model's context or --max-seq-len`,
      );
    return {
      prompt,
      outputLen: line.outputLen ?? drawOutputLength(outputLen, seed, i, room),
      arrival,
      ...(line.priority !== undefined && { priority: line.priority }),
      ...(line.salt !== undefined && { salt: line.salt }),
    };
  });
}

function idsOf(
  line: DatasetLine,
  file: string,
  { encode, vocabSize }: DatasetWorkloadOptions,
): readonly number[] {
  const ids = typeof line.prompt === "string" ? encode(line.prompt) : line.prompt;
  if (ids.length === 0) throw wrong(file, line.number, "prompt is empty; wanted at least one token");
  const bad = ids.find((id) => id >= vocabSize);
  if (bad !== undefined)
    throw wrong(file, line.number, `prompt_ids has ${bad}; wanted ids from 0 to ${vocabSize - 1}`);
  return ids;
}
