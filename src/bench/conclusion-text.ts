/** The sentences of `concludeFrom` in English and Chinese; the figures arrive formatted. */
import type { CacheMode } from "../kv/cache.ts";
import { type Lang, labels } from "./labels.ts";
import type { Timing } from "./results.ts";

interface Waste {
  reserved: string;
  used: string;
  wasted: string;
  percent: string;
}

export interface ConclusionText {
  fastest(mode: CacheMode, average: string, batch: boolean): string;
  tie(modes: { mode: CacheMode; average: string }[], repeats: number): string;
  slower(best: CacheMode, mode: CacheMode, factor: string, batch: boolean): string;
  speedups(modes: { mode: CacheMode; factor: string; withinSpread: boolean }[]): string;
  growth(mode: CacheMode, early: string, late: string, factor: string): string;
  firstToken(mode: CacheMode, seconds: string, share: string, early: string, late: string): string;
  flat(mode: CacheMode, early: string, late: string): string;
  tooShort(mode: CacheMode): string;
  waste(mode: CacheMode, figures: Waste): string;
  saved(bytes: string, percent: string): string;
  nothingSaved(more: string): string;
  pool(allocated: string, reserved: string): string;
  peaks(modes: { mode: CacheMode; peak: string }[]): string;
  timing: Record<Timing, string>;
  mixedTiming: string;
  software: string;
  oneRepeat: string;
  differentTokens: string;
  incomplete(why: string): string;
}

export function conclusionText(lang: Lang): ConclusionText {
  return lang === "zh" ? ZH : EN;
}

const en = labels("en").modes;
const zh = labels("zh").modes;

const EN: ConclusionText = {
  fastest: (mode, average, batch) =>
    `Fastest: ${en[mode]}, ${average} a ${batch ? "step" : "token"} on average.`,
  tie: (modes, repeats) =>
    `Fastest: ${modes.map((m) => `${en[m.mode]} (${m.average})`).join(" and ")} cannot be told apart; ` +
    `they differ by less than the spread of ${repeats > 1 ? `the ${repeats} repeats` : "the steps"}.`,
  slower: (best, mode, factor, batch) =>
    `Compared with ${en[best]}, a ${batch ? "step" : "token"} takes ${factor} as long with ${en[mode]}.`,
  speedups: (modes) =>
    `Speed-up over no cache: ${modes
      .map((m) => `${en[m.mode]} ${m.factor}${m.withinSpread ? " (within the spread)" : ""}`)
      .join(", ")}.`,
  growth: (mode, early, late, factor) =>
    `${upperFirst(en[mode])}: the steps grow from ${early} (first quarter) to ${late} (last quarter), ${factor}; ` +
    "this growth costs more than the first token.",
  firstToken: (mode, seconds, share, early, late) =>
    `${upperFirst(en[mode])}: the first token takes ${seconds}, ${share} of the run; ` +
    `the later steps take ${early} (first quarter) and ${late} (last quarter).`,
  flat: (mode, early, late) =>
    `${upperFirst(en[mode])}: the steps take ${early} in the first quarter and ${late} in the last; ` +
    "neither growth nor the first token dominates.",
  tooShort: (mode) => `${upperFirst(en[mode])}: too few steps to tell whether they grow.`,
  waste: (mode, f) =>
    `${upperFirst(en[mode])} reserved ${f.reserved} for keys and values and used ${f.used} of it; ` +
    `${f.wasted} (${f.percent}) was reserved for nothing.`,
  saved: (bytes, percent) =>
    `Paging reserves ${bytes} (${percent}) less than the contiguous cache for the same tokens.`,
  nothingSaved: (more) =>
    `Paging saves no KV memory here: it reserves ${more} more than the contiguous cache.`,
  pool: (allocated, reserved) =>
    `The page pool itself is ${allocated}: what this sequence does not hold (it holds ${reserved}) is free for others, ` +
    "not for the rest of the GPU.",
  peaks: (modes) => `Peak GPU memory: ${modes.map((m) => `${en[m.mode]} ${m.peak}`).join(", ")}.`,
  timing: labels("en").timingNote,
  mixedTiming:
    "No cache waits for each of its tokens and the others do not: the factors between them hold what the waiting costs too.",
  software:
    "The adapter is software on the CPU: the tokens and the bytes are right, but it is slow and the times are no benchmark of a GPU.",
  oneRepeat: "One repeat only: how far runs scatter is unknown; --repeat 3 would show it.",
  differentTokens:
    "The runs did not give the same tokens, so they did not do the same work: do not compare the times.",
  incomplete: (why) => `The experiment is incomplete: ${why}`,
};

const ZH: ConclusionText = {
  fastest: (mode, average, batch) => `最快：${zh[mode]}，平均每${batch ? "步" : "个 token"} ${average}。`,
  tie: (modes, repeats) =>
    `最快：${modes.map((m) => `${zh[m.mode]}（${m.average}）`).join("与")}无法区分高下，差距小于${
      repeats > 1 ? ` ${repeats} 次重复` : "各步"
    }的波动范围。`,
  slower: (best, mode, factor, batch) =>
    `与${zh[best]}相比，${zh[mode]}每${batch ? "步" : "个 token"}用时为其 ${factor.replace("×", " 倍")}。`,
  speedups: (modes) =>
    `相对无缓存的加速比：${modes
      .map((m) => `${zh[m.mode]} ${m.factor}${m.withinSpread ? "（在波动范围内）" : ""}`)
      .join("，")}。`,
  growth: (mode, early, late, factor) =>
    `${zh[mode]}：单步用时由前四分之一的 ${early} 增至后四分之一的 ${late}（${factor}），增长的代价超过首个 token。`,
  firstToken: (mode, seconds, share, early, late) =>
    `${zh[mode]}：首个 token 用时 ${seconds}，占全程 ${share}；其后各步前四分之一为 ${early}，后四分之一为 ${late}。`,
  flat: (mode, early, late) =>
    `${zh[mode]}：单步用时前四分之一为 ${early}，后四分之一为 ${late}；增长与首个 token 均不占主导。`,
  tooShort: (mode) => `${zh[mode]}：步数太少，看不出是否增长。`,
  waste: (mode, f) =>
    `${zh[mode]}为键值预留 ${f.reserved}，实际使用 ${f.used}；${f.wasted}（${f.percent}）白白预留。`,
  saved: (bytes, percent) => `对同样的 token，分页比连续缓存少预留 ${bytes}（${percent}）。`,
  nothingSaved: (more) => `此处分页并未节省 KV 内存：比连续缓存多预留 ${more}。`,
  pool: (allocated, reserved) =>
    `页池本身占 ${allocated}：本序列持有 ${reserved}，其余的页可供其他序列使用，但不会还给 GPU 的其他用途。`,
  peaks: (modes) => `GPU 内存峰值：${modes.map((m) => `${zh[m.mode]} ${m.peak}`).join("，")}。`,
  timing: labels("zh").timingNote,
  mixedTiming: "无缓存模式逐个等待 token，其余模式则不然：两者之间的倍数也包含等待的代价。",
  software: "此适配器由 CPU 软件模拟：token 与字节数正确，但速度慢，用时不能作为 GPU 的基准。",
  oneRepeat: "只运行了一次：波动未知；可用 --repeat 3 查看。",
  differentTokens: "各次运行的 token 不一致，所做的工作不同：请勿比较用时。",
  incomplete: (why) => `实验未完成：${why}`,
};

function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
