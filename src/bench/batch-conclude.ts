/** Sentences that `bench kv` says only of a batch, in English and Chinese: what the modes keep for many sequences at once. */
import type { CacheMode } from "../kv/cache.ts";
import type { BatchSummary } from "./batch-results.ts";
import { type Lang, labels } from "./labels.ts";
import type { ModeSummary } from "./results.ts";
import { formatBytes, formatCount, formatPercent } from "./units.ts";

interface KvFigures {
  mode: string;
  reserved: string;
  most: string;
  used: string;
  percent: string;
}

interface BatchText {
  workload(sequences: string, lengths: string): string;
  alike: string;
  rates(modes: { mode: string; rate: string }[]): string;
  kv(figures: KvFigures): string;
  saved(bytes: string, percent: string): string;
  nothingSaved(more: string): string;
  fit(sequences: string, strips: string, memory: string, each: string): string;
  noSharing: string;
}

/** What the sequences were asked for. */
export interface Workload {
  /** New tokens of each. */
  readonly lengths: readonly number[];
  /** The temperature is 0. */
  readonly greedy: boolean;
}

type Batched = ModeSummary & { batch: BatchSummary };

/** What is said instead of a single sequence's KV memory and of how its steps grow; nothing for a batch of 1. */
export function concludeBatch(
  summary: readonly ModeSummary[],
  { lengths, greedy }: Workload,
  lang: Lang,
): string[] {
  const batched = summary.filter((s): s is Batched => s.batch !== undefined);
  if (batched.length === 0) return [];
  const text = lang === "zh" ? ZH : EN;
  const { modes } = labels(lang);
  const rates = batched.map((s) => ({ mode: modes[s.mode], rate: s.tokensPerSecond.toFixed(1) }));
  const lines = [
    text.workload(formatCount(lengths.length), [...new Set(lengths)].join(", ")),
    ...(greedy ? [text.alike] : []),
    text.rates(rates),
  ];
  return [...lines, ...kvMemory(batched, lang, text)];
}

function kvMemory(summary: readonly Batched[], lang: Lang, text: BatchText): string[] {
  const { modes } = labels(lang);
  const of = (mode: CacheMode) => summary.find((s) => s.mode === mode);
  const [contiguous, paged] = [of("contiguous"), of("paged")];
  const lines = [contiguous, paged].flatMap((s) =>
    s === undefined ? [] : [text.kv(kvFigures(modes[s.mode], s.batch))],
  );
  if (contiguous && paged) {
    const before = contiguous.batch.kvMeanReservedBytes;
    const saved = before - paged.batch.kvMeanReservedBytes;
    lines.push(
      saved > 0
        ? text.saved(formatBytes(saved), formatPercent((100 * saved) / before))
        : text.nothingSaved(formatBytes(-saved)),
      text.fit(
        formatCount(paged.batch.sequencesInContiguousBytes!),
        formatCount(contiguous.batch.sequencesInContiguousBytes!),
        formatBytes(contiguous.kvAllocatedBytes),
        formatBytes(paged.batch.kvReservedBytesPerSequence),
      ),
    );
  }
  if (paged) lines.push(text.noSharing);
  return lines;
}

function kvFigures(mode: string, batch: BatchSummary): KvFigures {
  return {
    mode,
    reserved: formatBytes(batch.kvMeanReservedBytes),
    most: formatBytes(batch.kvPeakReservedBytes),
    used: formatBytes(batch.kvMeanUsedBytes),
    percent: formatPercent(batch.meanWastePercent),
  };
}

const EN: BatchText = {
  workload: (sequences, lengths) =>
    `${sequences} sequences at once, of the same prompt, with at most ${lengths} new tokens, sequence 0 with the most; ` +
    "one that ends leaves the batch.",
  alike: "With temperature 0 the sequences say the same, each as far as it goes.",
  rates: (modes) =>
    `Tokens per second of all sequences: ${modes.map((m) => `${m.mode} ${m.rate}`).join(", ")}.`,
  kv: (f) =>
    `${f.mode.charAt(0).toUpperCase()}${f.mode.slice(1)} reserved ${f.reserved} for keys and values on average over the steps ` +
    `(${f.most} at most) and used ${f.used} of it; ${f.percent} was reserved for nothing.`,
  saved: (bytes, percent) =>
    `Paging reserves ${bytes} (${percent}) less than the contiguous cache for the same tokens.`,
  nothingSaved: (more) =>
    `Paging saves no KV memory here: it reserves ${more} more than the contiguous cache.`,
  fit: (sequences, strips, memory, each) =>
    `The memory of the contiguous cache (${memory}) holds ${strips} strips; with pages ${sequences} sequences of this mix would fit, ` +
    `at ${each} for one on average: derived, not run. quire bench capacity runs it.`,
  noSharing:
    "Each sequence has its own pages for the prompt here; what sharing them saves is measured by quire bench capacity.",
};

const ZH: BatchText = {
  workload: (sequences, lengths) =>
    `${sequences} 个序列同时运行，提示词相同，新 token 数上限各为 ${lengths}，序列 0 最多；结束的序列即离开该批。`,
  alike: "温度为 0：各序列内容相同，只是长短不一。",
  rates: (modes) => `所有序列合计每秒 token 数：${modes.map((m) => `${m.mode} ${m.rate}`).join("，")}。`,
  kv: (f) =>
    `${f.mode}为键值平均预留 ${f.reserved}（最多 ${f.most}），实际使用 ${f.used}；${f.percent} 白白预留。`,
  saved: (bytes, percent) => `对同样的 token，分页比连续缓存少预留 ${bytes}（${percent}）。`,
  nothingSaved: (more) => `此处分页并未节省 KV 内存：比连续缓存多预留 ${more}。`,
  fit: (sequences, strips, memory, each) =>
    `连续缓存所占内存（${memory}）可容纳 ${strips} 个序列；若用分页，同样的内存可容纳 ${sequences} 个这样的序列，` +
    `每个平均 ${each}：此为推算，并未运行；quire bench capacity 会实际运行。`,
  noSharing: "此处每个序列各有一份提示词的页；共享可节省多少，由 quire bench capacity 测量。",
};
