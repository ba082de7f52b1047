/** The words that tables, charts and report have only of a batch, in English and Chinese; see labels.ts for all others. */

import { type Lang, labels, type RowName } from "./labels.ts";
import type { ModeSummary } from "./results.ts";

/** Rows of the summary table that only a batch has. */
type BatchRowName =
  | "kvReservedPeak"
  | "kvReservedMean"
  | "kvUsedMean"
  | "kvWastedMean"
  | "kvPerSequence"
  | "sequencesThatFit";

interface BatchLabels {
  rows: Record<BatchRowName, string> & Partial<Record<RowName, string>>;
  chart: Record<"used" | "wasted" | "fit" | "memory" | "running" | "rate", string>;
  charts: Record<"kv" | "rate", { title: string; caption: string }>;
  /** Added to the caption of the KV bytes over the steps. */
  stairs: string;
  report: Record<
    "sequences" | "sequence" | "wanted" | "generated" | "ended" | "text" | "caption" | "running" | "rate",
    string
  >;
  same(modes: number, runs: number, tokens: number, sequences: number): string;
  sequence(id: number): string;
}

export function batchLabels(lang: Lang): BatchLabels {
  return lang === "zh" ? ZH : EN;
}

/** The names of the table's rows, where a token's time is a step's in a batch. */
export function rowLabels(summary: readonly ModeSummary[], lang: Lang): Record<RowName, string> {
  const { rows } = labels(lang);
  return isBatch(summary) ? { ...rows, ...batchLabels(lang).rows } : rows;
}

export function isBatch(summary: readonly ModeSummary[]): boolean {
  return summary.some((s) => s.batch !== undefined);
}

const EN: BatchLabels = {
  rows: {
    average: "time per step, average",
    p50: "time per step, p50",
    p95: "time per step, p95",
    firstToken: "time to first tokens",
    tokensPerSecond: "tokens per second, all",
    kvReservedPeak: "KV reserved, most",
    kvReservedMean: "KV reserved, mean",
    kvUsedMean: "KV used, mean",
    kvWastedMean: "KV wasted, mean",
    kvPerSequence: "KV of a sequence, mean",
    sequencesThatFit: "would fit (derived)",
  },
  chart: {
    used: "used",
    wasted: "reserved and not used",
    fit: "sequences that would fit in the memory of the contiguous strips (derived)",
    memory: "KV reserved, mean over the steps",
    running: "sequences that run",
    rate: "tokens per second, all sequences",
  },
  charts: {
    kv: {
      title: "What the batch keeps for its sequences",
      caption:
        "Above: KV memory that was reserved, mean over the steps, and what of it was used. Below: whole sequences of this mix that would " +
        "fit in the memory of the contiguous strips, by what one reserves on average; derived, not run.",
    },
    rate: {
      title: "Raw: tokens per second of every step, all sequences",
      caption:
        "The first repeat of each mode. The lengths differ, so later steps have fewer sequences and give fewer tokens.",
    },
  },
  stairs: "All sequences together: a step down is a sequence that ended and gave its place back.",
  report: {
    sequences: "Sequences",
    sequence: "sequence",
    wanted: "tokens asked for",
    generated: "generated",
    ended: "ended by",
    text: "text",
    caption:
      "The same prompt for each; random numbers by (seed, sequence, step). Lengths that differ are the workload; of the first whole run.",
    running: "sequences",
    rate: "tokens/s",
  },
  same: (modes, runs, tokens, sequences) =>
    modes > 1
      ? `All ${modes} modes gave each of the ${sequences} sequences the same tokens, ${tokens} in all (${runs} runs compared).`
      : `All ${runs} runs gave each of the ${sequences} sequences the same tokens, ${tokens} in all.`,
  sequence: (id) => `, sequence ${id}`,
};

const ZH: BatchLabels = {
  rows: {
    average: "每步平均用时",
    p50: "每步用时 p50",
    p95: "每步用时 p95",
    firstToken: "首批 token 用时",
    tokensPerSecond: "每秒 token 数（合计）",
    kvReservedPeak: "KV 预留（最多）",
    kvReservedMean: "KV 预留（平均）",
    kvUsedMean: "KV 已用（平均）",
    kvWastedMean: "KV 浪费（平均）",
    kvPerSequence: "每个序列的 KV（平均）",
    sequencesThatFit: "可容纳序列数（推算）",
  },
  chart: {
    used: "已用",
    wasted: "预留而未用",
    fit: "连续缓存所占内存可容纳的序列数（推算）",
    memory: "KV 预留（各步平均）",
    running: "运行中的序列数",
    rate: "每秒 token 数（所有序列合计）",
  },
  charts: {
    kv: {
      title: "整批序列占用的 KV 内存",
      caption:
        "上：各步平均预留的 KV 内存及其中已用的部分。下：按每个序列的平均预留量，连续缓存所占内存可容纳的完整序列数；为推算值，并未实际运行。",
    },
    rate: {
      title: "原始数据：每步的每秒 token 数（所有序列合计）",
      caption: "各模式的第一次重复。各序列长度不同，故后面的步序列较少，token 也较少。",
    },
  },
  stairs: "为所有序列之和：每下一级台阶表示有序列结束并归还其空间。",
  report: {
    sequences: "各序列",
    sequence: "序列",
    wanted: "要求的 token 数",
    generated: "生成的 token 数",
    ended: "结束原因",
    text: "文本",
    caption: "提示词相同；随机数取决于（种子、序列、步）。长度不同正是所设的负载；取自第一次完整的运行。",
    running: "序列数",
    rate: "token/秒",
  },
  same: (modes, runs, tokens, sequences) =>
    modes > 1
      ? `全部 ${modes} 种模式为 ${sequences} 个序列各自给出相同的 token，共 ${tokens} 个（比较了 ${runs} 次运行）。`
      : `全部 ${runs} 次运行为 ${sequences} 个序列各自给出相同的 token，共 ${tokens} 个。`,
  sequence: (id) => `，序列 ${id}`,
};
