/** Sentences about the figures of the capacity experiment. Each is computed, and none claims more than the figures show. */
import { layoutName, MOST_MAPPED_SLOTS } from "./capacity-cases.ts";
import {
  CAPACITY_SCHEMA,
  type CapacityMix,
  type CapacityResults,
  type CapacityRow,
  type FiguredRow,
  type MeasuredCapacityResults,
  rowsOf,
} from "./capacity-results.ts";
import { formatCount, formatFactor, formatPercent, formatSeconds } from "./units.ts";

/** Below this factor two layouts are said to hold as many. */
const NOTABLE = 1.05;

/** What was measured together with what follows from it: the content of results.json. */
export function completeCapacity(measured: MeasuredCapacityResults): CapacityResults {
  const { incomplete, ...rest } = measured;
  return {
    schema: CAPACITY_SCHEMA,
    ...rest,
    conclusion: concludeCapacity(measured),
    ...(incomplete === undefined ? {} : { incomplete }),
  };
}

/** The conclusion, mix by mix, caveats last. */
export function concludeCapacity(results: MeasuredCapacityResults): string[] {
  const mixes = results.mixes.flatMap((info) => {
    const { mix } = info;
    const rows = rowsOf(results, mix);
    const name = mix === "lognormal" ? "Log-normal mix" : "Shared-prefix mix";
    return [
      ...againstStrips(rows, results, name),
      ...againstOracle(rows, name),
      ...bySize(rows, name),
      ...sharing(rows, info, name),
      ...throughput(rows, name),
    ];
  });
  return [...mixes, ...caveats(results)];
}

/** The usual page size where it is there: 16, else the first. */
function usual(rows: readonly FiguredRow[], prefixCache: boolean): FiguredRow | undefined {
  const pages = rows.filter((r) => r.layout === "pages" && r.prefixCache === prefixCache);
  return pages.find((r) => r.pageSize === 16) ?? pages[0];
}

function of(rows: readonly FiguredRow[], layout: CapacityRow["layout"]): FiguredRow | undefined {
  return rows.find((r) => r.layout === layout);
}

const sequences = (row: FiguredRow) => row.simulated.meanSequences.toFixed(1);
const waste = (row: FiguredRow) => formatPercent(row.simulated.wastePercent);
const ratio = (a: FiguredRow, b: FiguredRow) => a.simulated.meanSequences / b.simulated.meanSequences;

function againstStrips(
  rows: readonly FiguredRow[],
  { options }: MeasuredCapacityResults,
  name: string,
): string[] {
  const strips = of(rows, "strips-max");
  const pages = usual(rows, false);
  if (!strips || !pages) return [];
  return [
    `${name}: pages of ${pages.pageSize} held ${formatFactor(ratio(pages, strips))} the sequences of strips of ` +
      `${formatCount(options.maxSeqLen)} (${sequences(pages)} against ${sequences(strips)} at once); of what they reserved ` +
      `${waste(pages)} was waste, against ${waste(strips)}.`,
  ];
}

function againstOracle(rows: readonly FiguredRow[], name: string): string[] {
  const oracle = of(rows, "strips-exact");
  const pages = usual(rows, false);
  if (!oracle || !pages) return [];
  const factor = ratio(pages, oracle);
  const lead =
    factor > NOTABLE
      ? `pages of ${pages.pageSize} held ${formatFactor(factor)} the sequences of strips of the exact length`
      : factor < 1 / NOTABLE
        ? `strips of the exact length held ${formatFactor(1 / factor)} the sequences of pages of ${pages.pageSize}`
        : `strips of the exact length held as many sequences as pages of ${pages.pageSize}`;
  return [
    `${name}: ${lead} (${sequences(pages)} against ${sequences(oracle)}). Strips of the exact length need an oracle; ` +
      `${waste(oracle)} of what they reserve is for tokens still to come.`,
  ];
}

function bySize(rows: readonly FiguredRow[], name: string): string[] {
  const pages = rows.filter((r) => r.layout === "pages" && !r.prefixCache);
  if (pages.length < 2) return [];
  const list = pages.map((r) => `${r.pageSize}: ${sequences(r)} at once, ${waste(r)} waste`).join("; ");
  return [`${name}, by page size: ${list}.`];
}

function sharing(rows: readonly FiguredRow[], mix: CapacityMix, name: string): string[] {
  const shared = usual(rows, true);
  const plain = rows.find((r) => r.layout === "pages" && !r.prefixCache && r.pageSize === shared?.pageSize);
  if (!shared || !plain) return [];
  const { prefixHits, prefixQueries, computedTokens } = shared.simulated;
  if (prefixHits === 0)
    return [`${name}: no prompt begins as another one does, so sharing prefixes changes nothing.`];
  const { prefixTokens, requests } = mix;
  // All but the first could find it.
  const could = prefixTokens * (requests - 1);
  const found =
    could > 0
      ? `${formatPercent((100 * prefixHits) / could)} of the prefix tokens that a request before had computed were found`
      : `${formatPercent((100 * prefixHits) / prefixQueries)} of the prompt tokens were found`;
  return [
    `${name}: with shared prefixes pages of ${shared.pageSize} held ${formatFactor(ratio(shared, plain))} as many sequences ` +
      `(${sequences(shared)} against ${sequences(plain)}); ${found}, and ` +
      `${formatCount(computedTokens)} tokens computed instead of ${formatCount(plain.simulated.computedTokens)}.`,
  ];
}

function throughput(rows: readonly FiguredRow[], name: string): string[] {
  const strips = of(rows, "strips-max");
  const pages = usual(rows, false);
  const shared = usual(rows, true);
  if (!strips?.measured || !pages?.measured) return [];
  const rate = (row: FiguredRow) => row.measured!.outputTokensPerSecond;
  const text = (row: FiguredRow) =>
    `${layoutName(row)} ${formatCount(Math.round(rate(row)))} tokens/s (${formatFactor(rate(row) / rate(strips))}), ` +
    `all done after ${formatSeconds(row.measured!.seconds)}`;
  const others = [pages, ...(shared?.measured ? [shared] : [])];
  return [
    `${name}, on the engine: strips of maximum length ${formatCount(Math.round(rate(strips)))} tokens/s, all done after ` +
      `${formatSeconds(strips.measured.seconds)}; ${others.map(text).join("; ")}.`,
  ];
}

function caveats(results: MeasuredCapacityResults): string[] {
  const { rows, options, adapter, incomplete } = results;
  const figured = rows.filter((r): r is FiguredRow => r.simulated !== null);
  const named = (some: readonly CapacityRow[]) =>
    some.map((r) => `${r.mix === "lognormal" ? "log-normal" : r.mix}: ${layoutName(r)}`).join(", ");
  const easy = figured.filter((r) => r.simulated.crowdedSteps === 0);
  const full = figured.filter((r) => r.simulated.peakSequences >= options.maxSequences);
  const refused = rows.filter((r) => r.refused !== undefined);
  const lines: string[] = [];
  if (refused.length > 0)
    lines.push(`Cannot hold the longest request in this budget: ${named(refused)} (${refused[0]!.refused}).`);
  if (easy.length > 0)
    lines.push(
      `Nobody waited for memory, so these rows show less than the layout can hold: ${named(easy)}; --kv-tokens lower or ` +
        "--num-prompts higher would crowd them.",
    );
  if (full.length > 0)
    lines.push(
      `At the most sequences that a step may have (${options.maxSequences}), so these held less than they could: ${named(full)}.`,
    );
  const onEngine = figured.filter((r) => r.measured !== null);
  const differing = onEngine.filter((r) => r.measured!.steps !== r.simulated.steps);
  if (options.async && differing.length > 0)
    lines.push(
      "On the engine a step is submitted before the tokens of the one before are known, so its runs have some steps more than the simulation.",
    );
  if (!options.async && onEngine.length > 0)
    lines.push(
      differing.length === 0
        ? "The rows on the engine took the steps of their simulations, one for one."
        : `The engine did NOT take the steps of its simulation: ${named(differing)}.`,
    );
  if (options.kvTokens > MOST_MAPPED_SLOTS)
    lines.push(
      `No page map: ${formatCount(options.kvTokens)} slots are too many to be seen; at most ${formatCount(MOST_MAPPED_SLOTS)}.`,
    );
  if (adapter?.software)
    lines.push(
      "The adapter is software on the CPU: figures of memory are exact, times are no benchmark of a GPU.",
    );
  if (incomplete !== undefined) lines.push(`The experiment is incomplete: ${incomplete}`);
  return lines;
}
