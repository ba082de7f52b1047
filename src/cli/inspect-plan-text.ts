import { formatBytes, formatCount } from "../bench/units.ts";
import { shapeText } from "../check.ts";
import type { InspectedPlan } from "./inspect-plan.ts";
import { table } from "./text-table.ts";

/** Characters of a launch in the picture, a space included. */
const CELL = 8;

/** A value of the part that is shown, with the columns of the picture in which it lives. */
interface Shown {
  readonly name: string;
  readonly buffer: number;
  readonly from: number;
  readonly lastRead: number;
  readonly to: number;
}

/**
 * A plan for people: its values, its buffers, and a picture of who is where when. Of the layers, which are alike, the last is shown; what
 * came before is one column.
 */
export function planText(plan: InspectedPlan): string[] {
  const { launches, values } = plan;
  const layers = new Set(launches.map(({ stage }) => stage).filter((stage) => stage.startsWith("layer ")))
    .size;
  const first = launches.findIndex(({ stage }) => stage === `layer ${layers - 1}`);
  const column = (launch: number) => Math.max(0, launch - first + 1);
  const before = layers > 1 ? "before" : "embed";
  const columns = [before, ...launches.slice(first).map(({ name }) => name)];
  // What the layer before left is this layer's x.
  const living = values
    .filter(({ to }) => to >= first)
    .map((value) => ({ ...value, name: value.from < first ? "x" : value.name }));
  const shown = living.map(({ name, buffer, from, lastRead, to }) => ({
    name,
    buffer,
    from: column(from),
    lastRead: column(lastRead),
    to: column(to),
  }));
  const rows = living.map((value, i) => [
    value.name,
    shapeText(value.shape),
    value.dtype,
    formatBytes(value.bytes),
    String(value.buffer),
    columns[shown[i]!.from]!,
    columns[shown[i]!.lastRead]!,
    columns[shown[i]!.to]!,
  ]);
  const head = ["value", "shape", "dtype", "bytes", "buffer", "made by", "last read by", "lives until"];
  return [
    ...summary(plan),
    "",
    ...layerLines(layers),
    ...table([head, ...rows], "lllrrlll"),
    "",
    ...table([["buffer", "bytes", "shared by"], ...bufferRows(plan, shown)], "rrl"),
    "",
    "who is in which buffer, launch by launch (dashed: kept, though no launch reads it any more):",
    ...picture(plan.buffers.length, columns, shown),
  ];
}

function summary(plan: InspectedPlan): string[] {
  const { tokens, rows, sequences, tensorCores, totalBytes, ledgerBytes, unsharedBytes, liveBytes } = plan;
  const pieces =
    tokens > rows
      ? [
          `of ${formatCount(tokens)} new tokens in pieces of up to ${formatCount(rows)} rows (--prefill-chunk), the last piece:`,
        ]
      : [];
  const logits =
    sequences === 1
      ? "logits for the last"
      : `logits for the last of each of ${formatCount(sequences)} sequences`;
  return [
    ...pieces,
    `a step of ${formatCount(rows)} rows, ${logits}${tensorCores ? ", by tensor cores" : ""}`,
    `activations: ${formatBytes(totalBytes)} in ${plan.buffers.length} buffers, ${formatBytes(ledgerBytes)} in the ledger's size classes`,
    `without sharing ${formatBytes(unsharedBytes)}, were it one layer; at most ${formatBytes(liveBytes)} live at once`,
  ];
}

function layerLines(layers: number): string[] {
  if (layers === 1) return [];
  return [
    `the last of ${layers} layers; those before it are alike and use the same buffers, and x is what they leave`,
  ];
}

function bufferRows({ buffers }: InspectedPlan, shown: readonly Shown[]): string[][] {
  return buffers.map(({ bytes }, b) => {
    const names = shown.filter(({ buffer }) => buffer === b).map(({ name }) => name);
    return [String(b), formatBytes(bytes), names.join(", ") || "the layers before"];
  });
}

/**
 * Rows are buffers, columns launches. A value's name begins where it is made; its line ends where its memory is given back, and is
 * dashed from its last reader on.
 */
function picture(buffers: number, columns: readonly string[], shown: readonly Shown[]): string[] {
  const lines = Array.from({ length: buffers }, (_, b) => {
    const cells = columns.map(() => "·".padEnd(CELL));
    for (const { from, lastRead, to, name } of shown.filter(({ buffer }) => buffer === b)) {
      const end = (column: number) => (column - from + 1) * CELL - 1;
      cells[from] = `${`${name} `.padEnd(end(lastRead), "━").padEnd(end(to), "┄").slice(0, end(to))} `;
      cells.fill("", from + 1, to + 1);
    }
    return `${String(b).padStart(2)}  ${cells.join("")}`.trimEnd();
  });
  return [`    ${columns.map((name) => name.padEnd(CELL)).join("")}`.trimEnd(), ...lines];
}
