import { BadInput } from "../check.ts";
import type { Dispatch, ReplayableRecording, Work } from "../gpu/recording.ts";
import type { KvCache } from "../kv/cache.ts";
import { makeCache } from "../kv/make-cache.ts";
import { DecodeStep } from "../model/decode-step.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import { attentionWork } from "../ops/attention.ts";

// The two steps that are profiled, recorded and not yet run: a decode step at a given context, sampling included, and the
// step of a prompt, up to its logits.

export interface StepOptions {
  readonly kv: "contiguous" | "paged";
  readonly kvDtype: "f32" | "f16";
  readonly pageSize: number;
  /** Tokens that the decode step's token sees, itself included. */
  readonly context: number;
  readonly promptLength: number;
}

export interface RecordedStep {
  readonly name: "decode" | "prefill";
  readonly contextLength: number;
  readonly newTokens: number;
  readonly recording: ReplayableRecording;
  /** What a dispatch moves and computes at this context; undefined where its kernel does not tell. */
  work(dispatch: Dispatch): Work | undefined;
  /** Put the step back to where it began, so that a run more does the same work again. */
  reset(): void;
  free(): void;
}

/** Throws BadInput when a step would not fit the model's context. */
export function checkStepLengths({ config }: Gpt2, { context, promptLength }: StepOptions): void {
  const check = (flag: string, value: number) => {
    if (value > config.contextLength)
      throw new BadInput(
        `${flag} is ${value}; wanted at most the model's context of ${config.contextLength}`,
      );
  };
  check("--context", context);
  check("--prompt-length", promptLength);
}

/** Record a step, hand it to `body`, and free it with its cache. */
export async function withStep<T>(
  model: Gpt2,
  name: RecordedStep["name"],
  options: StepOptions,
  body: (step: RecordedStep) => Promise<T>,
): Promise<T> {
  const { contextLength } = model.config;
  const length = name === "decode" ? options.context : options.promptLength;
  const cache = makeCache(model.gpu, model.cacheShape(options.kvDtype), {
    mode: options.kv,
    sequences: 1,
    contextLength,
    expectedLength: length,
    pageSize: options.pageSize,
  });
  try {
    const step = await (name === "decode" ? decodeStep : prefillStep)(model, cache, length);
    try {
      return await body(step);
    } finally {
      await model.gpu.finish();
      step.free();
    }
  } finally {
    cache.free();
  }
}

async function prefillStep(model: Gpt2, cache: KvCache, length: number): Promise<RecordedStep> {
  const place = cache.open();
  const tokens = idsOf(model, length);
  const recording = model.gpu.record(() => model.forward(cache, [{ place, tokens }]).free());
  return {
    name: "prefill",
    contextLength: length,
    newTokens: length,
    recording,
    work: told,
    reset() {},
    free: () => recording.free(),
  };
}

async function decodeStep(model: Gpt2, cache: KvCache, length: number): Promise<RecordedStep> {
  const { gpu } = model;
  const place = cache.open();
  const tokens = idsOf(model, length);
  if (length > 1) model.forward(cache, [{ place, tokens: tokens.slice(0, -1) }]).free();
  await gpu.finish();
  const common = { name: "decode", contextLength: length, newTokens: 1 } as const;
  if (!DecodeStep.supports(model, cache)) {
    const last = { place, tokens: tokens.slice(-1), prompt: 0 };
    const recording = gpu.record(() => model.forward(cache, [last]).free());
    return { ...common, recording, work: told, reset() {}, free: () => recording.free() };
  }
  const step = DecodeStep.make(model, cache, { sequences: 1, maxContext: length, greedy: true });
  cache.reserve(place, 1);
  // The step advances its own arrays: loading them anew takes it back.
  const sequence = { tokens, generated: 0, id: 0, sampling: { temperature: 0, seed: 0 }, place };
  return {
    ...common,
    recording: step.recording,
    // Recorded for longer contexts too, and only the GPU knows how long this one is.
    work: (d) =>
      d.label === "decode-attention" ? attentionWork(1, cache.layers[0]!.k, length, length) : told(d),
    reset: () => step.state.load([sequence]),
    free: () => step.free(),
  };
}

/** What the dispatch's kernel tells. */
function told(dispatch: Dispatch): Work | undefined {
  return dispatch.work?.();
}

/** Ids that differ from their neighbours; what they say does not matter to the time. */
function idsOf({ config }: Gpt2, length: number): number[] {
  return Array.from({ length }, (_, i) => (i * 7919 + 13) % config.vocabSize);
}
