/** Every word of the tables, charts and report, in English and Chinese. Names in code (options, adapters) stay as they are. */
import type { Purpose } from "../gpu/memory.ts";
import type { CacheMode } from "../kv/cache.ts";
import type { Timing } from "./results.ts";

export type Lang = "en" | "zh";

/** Rows of the summary table. */
export type RowName =
  | "average"
  | "p50"
  | "p95"
  | "firstToken"
  | "decodeAverage"
  | "total"
  | "tokensPerSecond"
  | "speedup"
  | "peak"
  | "relativeMemory"
  | "kvAllocated"
  | "kvReserved"
  | "kvUsed"
  | "kvWasted"
  | "kvWastedShare";

export interface Labels {
  htmlLang: string;
  title: string;
  modes: Record<CacheMode, string>;
  purposes: Record<Purpose, string>;
  rows: Record<RowName, string>;
  chart: Record<
    | "latency"
    | "latencyAxis"
    | "memory"
    | "step"
    | "prefill"
    | "offScale"
    | "peakOfStep"
    | "range"
    | "relative"
    | "reserved"
    | "used"
    | "kvAll"
    | "kvPaged",
    string
  >;
  charts: Record<"modes" | "normalised" | "rawLatency" | "rawKv", { title: string; caption: string }>;
  modeChart: { title(mode: string): string; caption: string };
  report: Record<
    | "summary"
    | "conclusion"
    | "charts"
    | "texts"
    | "environment"
    | "options"
    | "steps"
    | "token"
    | "context"
    | "name"
    | "value"
    | "allModes"
    | "parameters"
    | "tokensComputed"
    | "time"
    | "peak"
    | "stepsCaption"
    | "summaryCaption"
    | "softwareBadge",
    string
  >;
  /** Heads the column of the table's labels. */
  timing: Record<Timing, string>;
  /** What a step's time is, in a sentence. */
  timingNote: Record<Timing, string>;
  same(modes: number, runs: number, tokens: number): string;
  onlyOneRun: string;
  noRun: string;
  nothingFinished: string;
  differs(step: number, a: string, b: string): string;
  endOfRun: string;
  runName(mode: string, repeat: number): string;
}

export function labels(lang: Lang): Labels {
  return lang === "zh" ? ZH : EN;
}

/** A caption with what a step's time is, where that is not what everybody would think. */
export function timedCaption(caption: string, timing: Timing, { htmlLang, timingNote }: Labels): string {
  return timing === "visible" ? caption : `${caption}${htmlLang === "en" ? " " : ""}${timingNote[timing]}`;
}

const EN: Labels = {
  htmlLang: "en",
  title: "GPT-2 with no KV cache, a contiguous one and a paged one",
  modes: { none: "no cache", contiguous: "contiguous", paged: "paged" },
  purposes: {
    weights: "weights",
    kv: "keys and values",
    activations: "activations",
    tables: "tables",
    staging: "staging",
  },
  rows: {
    average: "time per token, average",
    p50: "time per token, p50",
    p95: "time per token, p95",
    firstToken: "time to first token",
    decodeAverage: "average without the first",
    total: "total time",
    tokensPerSecond: "tokens per second",
    speedup: "speed-up over no cache",
    peak: "peak GPU memory",
    relativeMemory: "peak, relative to no cache",
    kvAllocated: "KV buffers on the GPU",
    kvReserved: "KV reserved at the end",
    kvUsed: "KV used",
    kvWasted: "KV wasted",
    kvWastedShare: "wasted, of the reserved",
  },
  chart: {
    latency: "Latency",
    latencyAxis: "time of the step",
    memory: "GPU memory",
    step: "step (new token)",
    prefill: "prefill",
    offScale: "off the scale",
    peakOfStep: "peak within the step",
    range: "range of repeats",
    relative: "share of the largest",
    reserved: "reserved",
    used: "used",
    kvAll: "KV memory, one scale for all",
    kvPaged: "Close-up: the paged cache",
  },
  charts: {
    modes: {
      title: "The modes side by side",
      caption: "Bars: average time per token. Line: peak GPU memory. Both figures stand below each mode.",
    },
    normalised: {
      title: "Normalised",
      caption: "Each figure as a share of its largest value among the modes, so the costliest mode has 1.",
    },
    rawLatency: {
      title: "Raw: latency of every step",
      caption: "One line for each repeat; step 1 is the prefill, which computes the whole prompt.",
    },
    rawKv: {
      title: "Raw: KV memory reserved and used",
      caption: "The gap between reserved and used is the waste. No cache keeps nothing, so it has no line.",
    },
  },
  modeChart: {
    title: (mode) => `Mode “${mode}”: latency and memory over the steps`,
    caption:
      "Above: time of each step, averaged over the repeats. Below: live GPU memory after each step by purpose, and its peak within the step.",
  },
  report: {
    summary: "Summary",
    conclusion: "Conclusion",
    charts: "Charts",
    texts: "Texts",
    environment: "Environment",
    options: "Options",
    steps: "Every step",
    token: "token",
    context: "context (tokens)",
    name: "name",
    value: "value",
    allModes: "all modes",
    parameters: "parameters",
    tokensComputed: "tokens computed",
    time: "time",
    peak: "peak within the step",
    stepsCaption: "The first repeat of each mode; results.json and steps.csv have them all.",
    summaryCaption:
      "Averages and percentiles over every step of every repeat; memory by purpose is each purpose's own peak.",
    softwareBadge: "Software adapter: correct, slow, no benchmark.",
  },
  timing: { visible: "steps: host-visible", pipelined: "steps: pipelined" },
  timingNote: {
    visible:
      "A step's time is what a caller waits for: its token is awaited before the next step is submitted.",
    pipelined:
      "A step's time is its round's time over its steps: the host runs several steps ahead and tokens come back in rounds; " +
      "the first token, and every one without a cache, is waited for.",
  },
  same: (modes, runs, tokens) =>
    modes > 1
      ? `All ${modes} modes gave the same ${tokens} tokens (${runs} runs compared).`
      : `All ${runs} runs gave the same ${tokens} tokens.`,
  onlyOneRun: "Only one run: there is nothing to compare its tokens with.",
  noRun: "No run gave a token: there is nothing to compare.",
  nothingFinished: "No run reached its end, so there are no figures.",
  differs: (step, a, b) => `The runs DIFFER, first at step ${step}: ${a}; ${b}.`,
  endOfRun: "no token",
  runName: (mode, repeat) => `${mode}, repeat ${repeat}`,
};

const ZH: Labels = {
  htmlLang: "zh-CN",
  title: "GPT-2 生成对比：无 KV 缓存、连续缓存与分页缓存",
  modes: { none: "无缓存", contiguous: "连续缓存", paged: "分页缓存" },
  purposes: { weights: "权重", kv: "键值缓存", activations: "激活值", tables: "索引表", staging: "暂存" },
  rows: {
    average: "每个 token 平均用时",
    p50: "每个 token 用时 p50",
    p95: "每个 token 用时 p95",
    firstToken: "首个 token 用时",
    decodeAverage: "平均用时（不含首个）",
    total: "总用时",
    tokensPerSecond: "每秒 token 数",
    speedup: "相对无缓存的加速比",
    peak: "GPU 内存峰值",
    relativeMemory: "峰值（相对无缓存）",
    kvAllocated: "GPU 上的 KV 缓冲区",
    kvReserved: "结束时 KV 预留",
    kvUsed: "KV 已用",
    kvWasted: "KV 浪费",
    kvWastedShare: "浪费占预留的比例",
  },
  chart: {
    latency: "延迟",
    latencyAxis: "单步用时",
    memory: "GPU 内存",
    step: "步（新 token）",
    prefill: "预填充",
    offScale: "超出刻度",
    peakOfStep: "步内峰值",
    range: "各次重复的范围",
    relative: "占最大值的比例",
    reserved: "预留",
    used: "已用",
    kvAll: "KV 内存（同一刻度）",
    kvPaged: "放大：分页缓存",
  },
  charts: {
    modes: {
      title: "三种模式对照",
      caption: "柱：每个 token 平均用时；线：GPU 内存峰值。两项数值写在各模式下方。",
    },
    normalised: {
      title: "归一化",
      caption: "每项指标除以各模式中的最大值，代价最高的模式为 1。",
    },
    rawLatency: {
      title: "原始数据：每步延迟",
      caption: "每次重复一条线；第 1 步为预填充，计算整个提示词。",
    },
    rawKv: {
      title: "原始数据：KV 内存的预留与使用",
      caption: "预留与已用之差即浪费。无缓存模式不保存键值，故无曲线。",
    },
  },
  modeChart: {
    title: (mode) => `模式“${mode}”：各步延迟与内存`,
    caption: "上：每步用时（各次重复的平均）。下：每步之后 GPU 上按用途统计的内存，以及步内峰值。",
  },
  report: {
    summary: "汇总",
    conclusion: "结论",
    charts: "图表",
    texts: "文本",
    environment: "环境",
    options: "选项",
    steps: "逐步数据",
    token: "token",
    context: "上下文（token 数）",
    name: "名称",
    value: "值",
    allModes: "所有模式",
    parameters: "个参数",
    tokensComputed: "计算的 token 数",
    time: "用时",
    peak: "步内峰值",
    stepsCaption: "各模式的第一次重复；全部数据见 results.json 与 steps.csv。",
    summaryCaption: "平均值与百分位数取自所有重复的所有步；按用途的内存为各用途自身的峰值。",
    softwareBadge: "软件适配器：结果正确，速度慢，不作基准。",
  },
  timing: { visible: "单步：逐个等待", pipelined: "单步：流水线" },
  timingNote: {
    visible: "单步用时即调用者等待的时间：取回该步的 token 后才提交下一步。",
    pipelined:
      "单步用时为一轮的用时除以该轮步数：主机提前提交若干步，token 成轮取回；首个 token 以及无缓存模式的每个 token 均逐个等待。",
  },
  same: (modes, runs, tokens) =>
    modes > 1
      ? `全部 ${modes} 种模式给出相同的 ${tokens} 个 token（比较了 ${runs} 次运行）。`
      : `全部 ${runs} 次运行给出相同的 ${tokens} 个 token。`,
  onlyOneRun: "只有一次运行，没有可比较的 token。",
  noRun: "没有任何运行生成 token，无从比较。",
  nothingFinished: "没有任何运行完成，因此没有数据。",
  differs: (step, a, b) => `各次运行的 token 不一致，最早在第 ${step} 步：${a}；${b}。`,
  endOfRun: "无 token",
  runName: (mode, repeat) => `${mode}第 ${repeat} 次`,
};
