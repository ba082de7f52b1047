/** Made-up results with the proportions of novels-en on an integrated GPU: 57 tokens, three modes, two repeats. */
import { completeResults } from "../../src/bench/conclude.ts";
import { timingOf } from "../../src/bench/kv.ts";
import { batchLengths } from "../../src/bench/kv-batch.ts";
import type {
  BenchResults,
  MeasuredResults,
  RunResult,
  StepResult,
  Timing,
} from "../../src/bench/results.ts";
import { CACHE_MODES, type CacheMode } from "../../src/kv/cache.ts";

export const PROMPT_TOKENS = [780, 311, 259, 993, 886, 12, 279];
export const KV_BYTES_PER_TOKEN = 2 * 6 * 3 * 64 * 4;
export const PAGE_SIZE = 16;
export const MAX_SEQ_LEN = 1024;
const WEIGHT_BYTES = 3_654_144 * 4;
const TEXT =
  ' the sun was\nfull of the sun.\n"I am not a man," said the priest, "and I am not a man, but I am not a man\nof the world.';

export interface Shape {
  /** Sequences at once, with lengths that differ. */
  batch?: number;
  newTokens?: number;
  repeats?: number;
  modes?: readonly CacheMode[];
  /** Seconds of the prefill, in every mode. */
  prefillSeconds?: number;
  /** Multiplies every other step of a mode. */
  timing?: Timing;
  slowness?: Partial<Record<CacheMode, number>>;
}

/** Repeatable noise in [-1, 1]. */
function noise(step: number, repeat: number, mode: number): number {
  const wave = Math.sin(step * 12.9898 + repeat * 78.233 + mode * 37.719) * 43758.5453;
  return 2 * (wave - Math.floor(wave)) - 1;
}

function sampleStep(mode: CacheMode, step: number, repeat: number, shape: Shape): StepResult {
  const context = PROMPT_TOKENS.length + step - 1;
  const slots = {
    none: 0,
    contiguous: MAX_SEQ_LEN,
    paged: Math.ceil(context / PAGE_SIZE) * PAGE_SIZE,
  }[mode];
  const batch = shape.batch ?? 1;
  const running = batchLengths(batch, shape.newTokens ?? 50).filter((length) => length >= step).length;
  const computed = running * (mode === "none" || step === 1 ? context : 1);
  const kvReservedBytes = running * slots * KV_BYTES_PER_TOKEN;
  const kvAllocatedBytes = mode === "contiguous" ? batch * slots * KV_BYTES_PER_TOKEN : kvReservedBytes;
  const memoryByPurpose = {
    weights: WEIGHT_BYTES,
    kv: kvAllocatedBytes,
    activations: 180_224 + computed * 12_288,
    tables: 4_096,
    staging: 16_384,
  };
  const gpuMemoryBytes = Object.values(memoryByPurpose).reduce((a, b) => a + b, 0);
  const typical = mode === "none" ? 0.004 + 0.00022 * context : mode === "contiguous" ? 0.0041 : 0.0043;
  const jitter = 1 + 0.06 * noise(step, repeat, CACHE_MODES.indexOf(mode));
  const slowness = shape.slowness?.[mode] ?? 1;
  const seconds = step === 1 ? (shape.prefillSeconds ?? 0.0092) * jitter : typical * jitter * slowness;
  return {
    step,
    tokenId: 300 + ((step * 37) % 97),
    contextLength: context,
    newTokensComputed: computed,
    seconds,
    gpuMemoryBytes,
    gpuPeakBytes: gpuMemoryBytes + computed * 6_144,
    memoryByPurpose,
    kvAllocatedBytes,
    kvReservedBytes,
    kvUsedBytes: mode === "none" ? 0 : running * context * KV_BYTES_PER_TOKEN,
    ...(batch > 1 && { sequences: running }),
  };
}

export function sampleRun(mode: CacheMode, repeat: number, shape: Shape = {}): RunResult {
  const steps = Array.from({ length: shape.newTokens ?? 50 }, (_, i) =>
    sampleStep(mode, i + 1, repeat, shape),
  );
  const last = steps.at(-1)!;
  const tokens = steps.map((s) => s.tokenId);
  const sequences = batchLengths(shape.batch ?? 1, steps.length).map((length, id) => ({
    id,
    newTokens: length,
    tokens: tokens.slice(0, length).map((token) => token + id),
    text: TEXT,
    finishReason: "length" as const,
  }));
  return {
    mode,
    repeat,
    timing: timingOf(mode, shape.timing ?? "visible"),
    tokens,
    text: TEXT,
    finishReason: "length",
    steps,
    surplus: 0,
    totalSeconds: steps.reduce((total, s) => total + s.seconds, 0) * 1.01,
    timeToFirstTokenSeconds: steps[0]!.seconds,
    peakBytes: Math.max(...steps.map((s) => s.gpuPeakBytes)),
    peakByPurpose: last.memoryByPurpose,
    ...(sequences.length > 1 && { sequences }),
  };
}

export function sampleRuns(shape: Shape = {}): RunResult[] {
  return (shape.modes ?? CACHE_MODES).flatMap((mode) =>
    Array.from({ length: shape.repeats ?? 2 }, (_, i) => sampleRun(mode, i + 1, shape)),
  );
}

export function sampleMeasured(shape: Shape = {}): MeasuredResults {
  return {
    quire: { version: "0.1.0", commit: "8be2a47c0ffee", dirty: false },
    createdAt: "2026-11-23T12:00:00.000Z",
    command: ["quire", "bench", "kv", "--model", "weights/novels-en", "--repeat", "2"],
    runtime: {
      name: "node",
      version: "20.20.2",
      os: "Linux 6.1",
      arch: "x64",
      cpus: 2,
      cpuModel: "Example CPU @ 2.4GHz",
      webgpu: "0.6.2",
    },
    adapter: {
      vendor: "google",
      architecture: "swiftshader",
      device: "0xc0de",
      description: "SwiftShader Device (Subzero)",
      driver: "5.0.0",
      backend: "vulkan",
      software: true,
      profile: "fast",
      features: ["subgroups", "timestamp-query"],
      limits: { maxBufferSize: 1_073_741_824, maxStorageBufferBindingSize: 1_073_741_824 },
    },
    model: {
      name: "novels-en",
      path: "weights/novels-en",
      parameters: 3_654_144,
      layers: 6,
      heads: 3,
      headSize: 64,
      channels: 192,
      contextLength: 1024,
      vocabSize: 4096,
      weightBytes: WEIGHT_BYTES,
      kvBytesPerToken: KV_BYTES_PER_TOKEN,
      dtype: "f32",
      kvDtype: "f32",
    },
    options: {
      prompt: "It was a dark night, and",
      promptTokens: PROMPT_TOKENS,
      newTokens: shape.newTokens ?? 50,
      modes: [...(shape.modes ?? CACHE_MODES)],
      temperature: 0.7,
      topK: 0,
      topP: 1,
      minP: 0,
      repetitionPenalty: 1,
      seed: "18446744073709551615",
      repeat: shape.repeats ?? 2,
      warmup: 1,
      timing: shape.timing ?? "visible",
      pageSize: PAGE_SIZE,
      maxSeqLen: MAX_SEQ_LEN,
      kernels: "auto",
      ignoreEos: true,
      batch: shape.batch ?? 1,
    },
    runs: sampleRuns(shape),
  };
}

export function sampleResults(shape: Shape = {}, lang: "en" | "zh" = "en"): BenchResults {
  return completeResults(sampleMeasured(shape), lang);
}
