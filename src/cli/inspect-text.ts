import { formatBytes, formatCount } from "../bench/units.ts";
import { shapeText } from "../check.ts";
import { oneLine } from "../formats/quote.ts";
import { TENSOR_KINDS } from "../model/expected-tensors.ts";
import type { InspectedTensor, Inspection } from "./inspect-model.ts";
import { planText } from "./inspect-plan-text.ts";
import { table } from "./text-table.ts";

/** Of a list of names or problems, as many are printed; --json has them all. */
const MAX_LISTED = 8;
/** Characters of a name out of a file that are printed. */
const MAX_NAME = 80;

/** What Dawn on NVIDIA's GPUs offers as maxStorageBufferBindingSize, the most that we have seen. */
const LARGEST_BINDING = 2 ** 31 - 4;

/**
 * The inspection for people, in sections that a terminal of 110 columns holds. With a memory plan it is that plan, the model and its
 * problems.
 */
export function inspectionText(inspection: Inspection, { everyTensor = false } = {}): string {
  const { path, memoryPlan } = inspection;
  if (memoryPlan !== null)
    return sectionsText([
      [path, model(inspection)],
      ["Memory plan", planText(memoryPlan)],
      ["Problems", problems(inspection)],
    ]);
  return sectionsText([
    [path, model(inspection)],
    ["Files", files(inspection)],
    ["Tensors", everyTensor ? tensorTable(inspection.tensors) : kindTable(inspection.tensors)],
    ["Tokenizer", tokenizer(inspection)],
    ["KV cache", kv(inspection)],
    ["Largest step", prefill(inspection)],
    ["What fits", whatFits(inspection)],
    ["Problems", problems(inspection)],
  ]);
}

/** Sections without lines are left out. */
function sectionsText(sections: readonly (readonly [title: string, lines: readonly string[]])[]): string {
  return sections
    .filter(([, lines]) => lines.length > 0)
    .map(([title, lines]) => `${[title, ...lines.map((line) => `  ${line}`.trimEnd())].join("\n")}\n`)
    .join("\n");
}

function model({ config: c, parameters }: Inspection): string[] {
  const scales = [
    c.scaleAttentionWeights ? `divided by √${c.headSize}` : "not divided by the root of the head size",
    ...(c.scaleByInverseLayer ? ["and by the number of the layer"] : []),
  ];
  const end =
    c.eosTokenIds.length > 0 ? `end of text is id ${c.eosTokenIds.join(", ")}` : "no end-of-text id";
  const gelu = c.activation === "gelu-tanh" ? "tanh" : "erf";
  return [
    `GPT-2 with ${formatCount(parameters)} parameters`,
    `${c.layers} layers of ${c.heads} heads with ${c.headSize} channels each: ${formatCount(c.channels)} channels, ${formatCount(c.innerChannels)} inside the MLP`,
    `context of ${formatCount(c.contextLength)} tokens; vocabulary of ${formatCount(c.vocabSize)}; ${end}`,
    `GELU in its ${gelu} form; layer norm epsilon ${c.layerNormEpsilon.toExponential()}; attention scores ${scales.join(" ")}`,
    c.tiedHead ? "output head tied to the token embedding" : "output head of its own (lm_head.weight)",
  ];
}

function files({ checkpoint, weights }: Inspection): string[] {
  const included = weights.dtype === "int8" ? "row padding and scales included" : "row padding included";
  const onGpu = `${formatBytes(weights.gpuBytes)} on the GPU with --dtype ${weights.dtype}, ${included}`;
  if (checkpoint === null) return ["no weights that can be opened", onGpu];
  const { format, tensors, storedBytes, ignored, extra } = checkpoint;
  const listed = checkpoint.files.map(({ name, bytes }) => [name, formatBytes(bytes)]);
  return [
    `format ${format}`,
    ...table(listed, "lr"),
    `${formatCount(tensors)} tensors; those of the model take ${formatBytes(storedBytes)} here,`,
    onGpu,
    ...(ignored.length > 0 ? [`not needed: ${names(ignored)}`] : []),
    ...(extra.length > 0 ? [`no GPT-2 has them, ignored: ${names(extra)}`] : []),
  ];
}

/** One line for each tensor, by the name without a prefix. */
function tensorTable(tensors: readonly InspectedTensor[]): string[] {
  const head = ["name", "stored", "shape", "bytes", "GPU", "bytes"];
  const rows = tensors.map((t) => [
    t.name,
    t.storedDtype ?? "missing",
    shapeText(t.storedShape ?? t.shape),
    t.storedBytes === null ? "-" : formatCount(t.storedBytes),
    t.gpuDtype,
    formatCount(t.gpuBytes),
  ]);
  return table([head, ...rows], "lllrlr");
}

/** One line for each part of the model, and one for all. */
function kindTable(tensors: readonly InspectedTensor[]): string[] {
  const head = ["part", "tensors", "parameters", "stored as", "stored", "GPU"];
  const rows = TENSOR_KINDS.map((kind) => tensors.filter((t) => t.kind === kind))
    .filter((part) => part.length > 0)
    .map((part) => summary(part[0]!.kind, part));
  return table([head, ...rows, summary("all", tensors)], "lrrlrr");
}

function summary(name: string, tensors: readonly InspectedTensor[]): string[] {
  const sum = (value: (t: InspectedTensor) => number) => tensors.reduce((total, t) => total + value(t), 0);
  const dtypes = new Set(tensors.map((t) => t.storedDtype ?? "missing"));
  return [
    name,
    formatCount(tensors.length),
    formatCount(sum((t) => t.shape.reduce((a, b) => a * b, 1))),
    [...dtypes].join(", "),
    formatBytes(sum((t) => t.storedBytes ?? 0)),
    formatBytes(sum((t) => t.gpuBytes)),
  ];
}

function tokenizer({ tokenizer: found, tokenizerProblem, config }: Inspection): string[] {
  if (found === null) return [`none: ${tokenizerProblem}`];
  const { kind, vocabSize, bosTokenId, eosTokenId } = found;
  const id = (value: number | null) => (value === null ? "none" : String(value));
  const lines = [
    `${kind}; vocabulary of ${formatCount(vocabSize)}; begin of text: ${id(bosTokenId)}, end of text: ${id(eosTokenId)}`,
  ];
  if (vocabSize > config.vocabSize)
    lines.push(`warning: it has tokens that the model has no row for (${config.vocabSize} rows)`);
  return lines;
}

function kv({ config: c, kv }: Inspection): string[] {
  const bytes = kv.dtype === "f32" ? 4 : 2;
  const lines = [
    "bytes a token = 2 (key and value) · layers · heads · head size · bytes of an element",
    `= 2 · ${c.layers} · ${c.heads} · ${c.headSize} · ${bytes} = ${formatCount(kv.bytesPerToken)} B with --kv-dtype ${kv.dtype}`,
  ];
  if (kv.slotBytes !== kv.bytesPerToken)
    lines.push(
      `${formatCount(kv.slotBytes)} B in memory, where heads are padded to a multiple of 4 channels`,
    );
  return [
    ...lines,
    `a full context of ${formatCount(c.contextLength)} tokens: ${formatBytes(kv.fullContextBytes)}`,
  ];
}

function prefill({ prefill: p }: Inspection): string[] {
  const pieces = p.length > p.chunk ? `, in pieces of ${formatCount(p.chunk)} rows` : "";
  return [
    `about ${formatBytes(p.total)} to compute a prompt of ${formatCount(p.length)} tokens with a cache${pieces}:`,
    `activations ${formatBytes(p.activations)} (--memory-plan has every buffer), integer arrays ${formatBytes(p.tables)}, read-back ${formatBytes(p.staging)}`,
  ];
}

function whatFits({ fit, weights, kv, prefill, config }: Inspection): string[] {
  if (fit === null) return [];
  const { memory, length, pageSize, contiguous, paged } = fit;
  if (contiguous < 0) {
    const less = {
      f32: "; --dtype f16 takes half of it, int8 about a quarter",
      f16: "; --dtype int8 takes about half of it",
      int8: "",
    }[weights.dtype];
    return [
      `nothing in ${formatBytes(memory)}: the weights alone take ${formatBytes(weights.gpuBytes)}${less}`,
    ];
  }
  const pages = Math.ceil(length / pageSize);
  const rows = [
    ["KV cache", "sequences", "each holds"],
    [
      "contiguous",
      formatCount(contiguous),
      `a strip of ${formatCount(config.contextLength)} slots, ${formatBytes(kv.fullContextBytes)}`,
    ],
    [
      "paged",
      formatCount(paged),
      `${pages} pages of ${pageSize} slots, ${formatBytes(pages * pageSize * kv.slotBytes)}`,
    ],
  ];
  return [
    `sequences of ${formatCount(length)} tokens in ${formatBytes(memory)}, after ${formatBytes(weights.gpuBytes)} of weights`,
    `and the larger of two steps: a prompt of ${formatCount(prefill.length)} tokens, or one token of each sequence`,
    ...table(rows, "lrl"),
    ...(fit.layerBufferBytes > LARGEST_BINDING
      ? [
          `note: the keys of a layer would be one buffer of ${formatBytes(fit.layerBufferBytes)}, and GPUs bind 2 GiB at most`,
        ]
      : []),
  ];
}

function problems({ problems }: Inspection): string[] {
  const shown = problems.slice(0, MAX_LISTED).map(({ message }) => message);
  const rest = problems.length - shown.length;
  return rest > 0 ? [...shown, `and ${rest} more (--json has them all)`] : shown;
}

function names(list: readonly string[]): string {
  const shown = list
    .slice(0, MAX_LISTED)
    .map((name) => oneLine(name, MAX_NAME))
    .join(", ");
  return list.length > MAX_LISTED ? `${shown} and ${list.length - MAX_LISTED} more` : shown;
}
