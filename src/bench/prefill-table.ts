import { PURPOSES } from "../gpu/memory.ts";
import { caseName, type PeerRow, type PrefillResults, type PrefillRow } from "./prefill-results.ts";
import { plainTable } from "./table.ts";
import { formatBytes, formatCount, formatFactor } from "./units.ts";

/** What stands for a figure that does not exist. */
const NOTHING = "–";

/** The whole answer as plain text: what was run, one line a case, what the figures mean, what failed. */
export function prefillText(results: PrefillResults): string {
  const { model, options, adapter, runtime, rows, failures } = results;
  const [head = [], ...lines] = prefillCells(results);
  const peers = peerCells(results);
  return [
    `${adapter.description}, ${runtime.name} ${runtime.version}, profile ${adapter.profile}`,
    `${model.name}: weights ${model.dtype}, KV ${options.kv} ${model.kvDtype}; random prompts, logits of the last token of each; up to ${formatCount(options.prefill_chunk)} rows at once`,
    "",
    ...plainTable(head, lines),
    ...(peers.length > 1 ? ["", ...plainTable(peers[0]!, peers.slice(1))] : []),
    "",
    ...rows.map(memoryLine),
    ...rows.map(checkLine),
    ...prefillNotes(results),
    ...(adapter.software ? ["Software adapter: figures of a CPU, no benchmark of any GPU."] : []),
    ...failures.map(({ prefill, message }) => `FAILED: ${caseName(prefill)}: ${message}`),
    ...(results.incomplete === undefined
      ? []
      : [`Incomplete: ${results.incomplete}; the figures are of the other cases.`]),
  ].join("\n");
}

/** The head and a line for each case. */
export function prefillCells({ rows }: Pick<PrefillResults, "rows">): string[][] {
  return [
    ["case", "ms", "mean", "p90", "first", "host", "tokens/s", "µs/token", "GFLOP", "TFLOP/s", "peak memory"],
    ...rows.map((r) => [
      caseName(r.prefill),
      ...[r.ms, r.ms_mean, r.ms_p90, r.ms_first, r.ms_host].map(figure),
      formatCount(Math.round(r.tokens_per_s)),
      ...[r.us_per_token, r.gflop, r.tflops_per_s].map(figure),
      formatBytes(r.peak_bytes),
    ]),
  ];
}

/** The head and a line for each row of the peer that has a case here; the head alone where there is none. */
export function peerCells({ rows, model }: Pick<PrefillResults, "rows" | "model">): string[][] {
  return [
    ["case", "peer", "its ms", "its tokens/s", `ours (${model.dtype}) by its`],
    ...rows.flatMap((r) =>
      r.peers.map((p) => [
        caseName(r.prefill),
        peerName(p),
        figure(p.ms),
        formatCount(Math.round(p.tokens_per_s)),
        formatFactor(p.ratio),
      ]),
    ),
  ];
}

export function peerName({ peer, dtype }: Pick<PeerRow, "peer" | "dtype">): string {
  return `${peer} ${dtype}`;
}

/** What the figures mean. */
export function prefillNotes({ options, rows, first_token_ratio: ratio }: PrefillResults): string[] {
  const warmup =
    options.num_iters_warmup === 0
      ? "without a warm-up"
      : `after at least ${options.num_iters_warmup} unmeasured`;
  return [
    `ms: median of ${options.num_iters} iterations ${warmup}, until the GPU is done; first: the very first; host: recording the step, a part of ms.`,
    "GFLOP: 2 · tokens · parameters of the blocks' matrices + 4 · C · L · pairs of positions + 2 · S · C · V for the head's rows;",
    "biases, norms, GELU, softmax and the masked half of attention do not count.",
    ...(rows.length > 0
      ? [`Time of 1x512 by that of 512 tokens in 8x1024: ${ratio === null ? NOTHING : formatFactor(ratio)}`]
      : []),
  ];
}

/** What a case's peak was made up of. */
export function memoryLine({ prefill, peak_by_purpose: parts }: PrefillRow): string {
  const used = PURPOSES.filter((p) => (parts[p] ?? 0) > 0).map((p) => `${p} ${formatBytes(parts[p]!)}`);
  return `memory of ${caseName(prefill)}: ${used.join(", ")}`;
}

/** What was checked before a case was timed. */
export function checkLine({ prefill, check }: PrefillRow): string {
  return (
    `check of ${caseName(prefill)}: against ${check.against}: NMSE ${check.nmse === 0 ? "0" : check.nmse.toExponential(1)}, ` +
    `likeliest token equal in ${check.argmax_equal} of ${check.sequences}`
  );
}

/** Four significant digits or so, never in powers of ten. */
function figure(value: number): string {
  const decimals = value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : value >= 1 ? 3 : 4;
  return value.toFixed(decimals);
}
