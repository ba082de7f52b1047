import type { Gpt2 } from "../../src/model/gpt2.ts";
import type { RaggedPiece, RaggedSample } from "../../src/model/ragged-batch.ts";
import { type RaggedOptions, RaggedStep } from "../../src/model/ragged-step.ts";
import type { SampleSettings } from "../../src/ops/sample.ts";

// A host for RaggedStep without a scheduler: sequences whose slots are known beforehand.

export const GREEDY: SampleSettings = { temperature: 0, seed: 0 };
export const PAGE = 8;
/** Pages of a sequence of 64 tokens. */
const PAGES = 8;

/** Room for `sequences` sequences of 64 tokens. */
export function openStep(
  model: Gpt2,
  sequences: number,
  options: Partial<RaggedOptions> = {},
): Promise<RaggedStep> {
  const pageSize = options.layout === "strips" ? 1 : PAGE;
  return RaggedStep.open(model, {
    layout: "pages",
    pageSize,
    slots: options.layout === "strips" ? 64 * sequences : (1 + PAGES * sequences) * PAGE,
    kvDtype: "f32",
    maxSequences: sequences,
    maxBatchedTokens: 64,
    maxSeqLen: 64,
    ...options,
  });
}

export interface Member {
  readonly tokens: number[];
  readonly prompt: number;
  readonly id: number;
  readonly settings: SampleSettings;
  readonly slotRow: readonly number[];
  readonly seen?: number;
  computed: number;
}

/** The pages of sequence s, in order; or the first slot of its strip. */
export const pagesOf = (s: number): number[] => Array.from({ length: PAGES }, (_, i) => 1 + s * PAGES + i);
export const stripOf = (s: number): number[] => [64 * s];

export function member(
  prompt: readonly number[],
  slotRow: readonly number[],
  more: Partial<Member> = {},
): Member {
  const start = { tokens: [...prompt], prompt: prompt.length, id: 0, settings: GREEDY, computed: 0 };
  return { ...start, slotRow, ...more };
}

/** What a member has to compute, at most `chunk` tokens of it. */
export function pieceOf(
  { tokens, computed, slotRow }: Member,
  chunk = Number.POSITIVE_INFINITY,
): RaggedPiece {
  const end = Math.min(tokens.length, computed + chunk);
  return { tokens: tokens.slice(computed, end), position: computed, slotRow };
}

/** Steps until every member has `count` new tokens; prompts longer than `chunk` come in pieces. */
export async function drive(
  step: RaggedStep,
  members: readonly Member[],
  count: number,
  chunk = Number.POSITIVE_INFINITY,
): Promise<number[][]> {
  for (;;) {
    const running = members.filter((m) => m.tokens.length < m.prompt + count);
    if (running.length === 0) return members.map((m) => m.tokens.slice(m.prompt));
    const pieces = running.map((m) => pieceOf(m, chunk));
    const samples: RaggedSample[] = [];
    const sampled: Member[] = [];
    running.forEach((m, piece) => {
      m.computed += pieces[piece]!.tokens.length;
      if (m.computed < m.tokens.length) return;
      sampled.push(m);
      samples.push(sampleOf(m, piece));
    });
    const { tokens } = await step.launch({ pieces, samples }).result;
    sampled.forEach((m, i) => {
      m.tokens.push(tokens[i]!);
    });
  }
}

export function sampleOf(m: Member, piece: number): RaggedSample {
  const { settings, id, seen, tokens, prompt } = m;
  return {
    piece,
    settings,
    sequenceId: id,
    generated: tokens.length - prompt,
    ...(seen === undefined ? {} : { seen }),
  };
}
