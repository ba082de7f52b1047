import type { CacheShape } from "../kv/cache.ts";
import { tensorBytes } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { Products } from "./linear.ts";
import { largestLiveSet, type Sharing, shareBuffers } from "./share-buffers.ts";

// What a step has in memory beside weights, keys and values, launch by launch, known before any of it is taken.

/** A step of T new tokens, with logits after S of them. */
export interface StepForm {
  /** T. */
  readonly rows: number;
  /** S; 0 for a step that only fills the cache. */
  readonly samples: number;
  /** A product stores keys and values itself, so that it leaves the queries alone: [T, C] instead of [T, 3 · C]. */
  readonly queriesOnly?: boolean;
  /** How rows are stored that only a product reads, as Products.rows. */
  readonly rowDtype?: "f32" | "f16";
  /** Token ids that are known only to the GPU are put together first. */
  readonly takesTokens?: boolean;
  /** Without a cache: keys and values of a layer are activations too, in this form. */
  readonly forgets?: Pick<CacheShape, "heads" | "headSize" | "dtype">;
}

/** A launch: what it is called, and the part of the model that it belongs to. */
export interface PlannedLaunch {
  readonly stage: string;
  readonly name: string;
}

/** Something that a launch makes and later ones read. Launches are counted from 0. */
export interface PlannedValue {
  readonly name: string;
  readonly stage: string;
  readonly shape: readonly number[];
  readonly dtype: "f32" | "f16" | "u32";
  readonly bytes: number;
  /** The launch that makes it. */
  readonly from: number;
  /** The last launch before its memory is given back: nothing made until then may lie there. */
  readonly to: number;
  /** The last launch that reads it; `to` is later where the code gives the memory back later. */
  readonly lastRead: number;
}

export interface MemoryPlan extends Sharing {
  readonly launches: readonly PlannedLaunch[];
  readonly values: readonly PlannedValue[];
  /** Of all buffers. */
  readonly totalBytes: number;
  /** If every value of the embedding, of one layer and of the head had a buffer of its own. */
  readonly unsharedBytes: number;
  /** The most that lives at once: no plan takes less. */
  readonly liveBytes: number;
}

/** What of a step's form its products decide. */
export function productForm({ qkv, rows }: Products): Pick<StepForm, "queriesOnly" | "rowDtype"> {
  return { queriesOnly: qkv !== undefined, rowDtype: rows };
}

type Open = { -readonly [K in keyof PlannedValue]: PlannedValue[K] };

/**
 * The plan of a step: its values with their lifetimes, and buffers that they share. Deterministic; all layers are planned, although
 * they are alike.
 */
export function memoryPlan(config: ModelConfig, form: StepForm): MemoryPlan {
  const { launches, values } = stepValues(config, form);
  const { sizes, bufferOf } = shareBuffers(values);
  const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
  const isOnce = ({ stage }: PlannedValue) => !stage.startsWith("layer ") || stage === "layer 0";
  return {
    launches,
    values,
    sizes,
    bufferOf,
    totalBytes: sum(sizes),
    unsharedBytes: sum(values.filter(isOnce).map(({ bytes }) => bytes)),
    liveBytes: largestLiveSet(values),
  };
}

/**
 * Buffers for a smaller step of the same form, shared as the plan of the larger one shares them: whatever fits there fits here. One
 * without samples has the same values but for the head's.
 */
export function smallerSizes(plan: Sharing, values: readonly PlannedValue[]): number[] {
  const sizes = plan.sizes.map(() => 0);
  values.forEach(({ bytes }, i) => {
    const buffer = plan.bufferOf[i]!;
    sizes[buffer] = Math.max(sizes[buffer]!, bytes);
  });
  return sizes;
}

/** Launches and values of a step in the order of Gpt2: `layers`, `attend`, `mlp`, then the head. */
export function stepValues(
  config: ModelConfig,
  form: StepForm,
): { launches: readonly PlannedLaunch[]; values: readonly PlannedValue[] } {
  const { channels: C, innerChannels: F, vocabSize: V } = config;
  const { rows: T, samples: S, rowDtype = "f32", forgets } = form;
  const launches: PlannedLaunch[] = [];
  const values: Open[] = [];
  let stage = "embed";
  const now = () => launches.length - 1;
  const launch = (name: string, ...reads: readonly Open[]): void => {
    launches.push({ stage, name });
    for (const value of reads) value.lastRead = now();
  };
  /** What the launch before makes; in memory to the end, unless it is given back. */
  const value = (name: string, shape: readonly number[], dtype: PlannedValue["dtype"] = "f32"): Open => {
    const bytes = tensorBytes(shape, dtype);
    const to = Number.POSITIVE_INFINITY;
    const made = { name, stage, shape, dtype, bytes, from: now(), to, lastRead: now() };
    values.push(made);
    return made;
  };
  const giveBack = (...freed: readonly Open[]): void => {
    for (const v of freed) v.to = now();
  };

  /** x + attention(ln_1(x)): the middle of a block. */
  function attend(x: Open): Open {
    launch("ln_1", x);
    const normed = value("normed", [T, C], rowDtype);
    const merged = look(normed);
    launch("proj", merged, x);
    const middle = value("middle", [T, C]);
    giveBack(normed, merged);
    return middle;
  }

  /** Query, key and value, stored by a launch of their own or not; then attention. */
  function look(normed: Open): Open {
    launch("qkv", normed);
    const stored: Open[] = [];
    const store = () => {
      if (!forgets) return;
      const { heads, headSize, dtype } = forgets;
      for (const name of ["keys", "values"]) stored.push(value(name, [T, heads, headSize], dtype));
    };
    if (form.queriesOnly) store();
    const qkv = form.queriesOnly ? value("queries", [T, C]) : value("qkv", [T, 3 * C]);
    if (!form.queriesOnly) {
      launch("store", qkv);
      store();
    }
    launch("attend", qkv, ...stored);
    const merged = value("merged", [T, C]);
    giveBack(qkv, ...stored);
    return merged;
  }

  /** x + mlp(ln_2(x)). */
  function mlp(x: Open): Open {
    launch("ln_2", x);
    const normed = value("normed", [T, C], rowDtype);
    launch("fc", normed);
    const act = value("act", [T, F], rowDtype);
    launch("fc_proj", act, x);
    const out = value("out", [T, C]);
    giveBack(normed, act);
    return out;
  }

  const ids: Open[] = [];
  if (form.takesTokens) {
    launch("tokens");
    ids.push(value("ids", [T], "u32"));
  }
  launch("embed", ...ids);
  let x = value("x", [T, C]);
  for (let layer = 0; layer < config.layers; layer++) {
    stage = `layer ${layer}`;
    const middle = attend(x);
    const out = mlp(middle);
    giveBack(x, middle);
    x = out;
  }
  stage = "head";
  if (S > 0) {
    // Only rows whose logits are wanted go on from here.
    launch("gather", x);
    const gathered = value("last", [S, C]);
    launch("ln_f", gathered);
    const normed = value("normed", [S, C]);
    launch("head", normed);
    value("logits", [S, V]);
  }
  for (const v of values) v.to = Math.min(v.to, now());
  return { launches, values };
}
