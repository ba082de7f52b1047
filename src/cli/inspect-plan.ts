import { BadInput } from "../check.ts";
import { sizeClass } from "../gpu/memory.ts";
import type { ModelConfig } from "../model/config.ts";
import { memoryPlan, type PlannedLaunch, type PlannedValue } from "../model/memory-plan.ts";

/** What a plan is asked for. */
export interface PlanOptions {
  /** New tokens, all sequences together. Default: as many as a piece has. */
  readonly tokens?: number;
  /** Sequences whose logits are wanted. */
  readonly sequences: number;
  /** Most tokens that are computed at once. */
  readonly prefillChunk: number;
  /** By tensor cores: products store keys and values, and rows that only products read are halves. */
  readonly tensorCores: boolean;
}

/** The memory plan of a step as `quire inspect --memory-plan --json` prints it. Sizes are in bytes; launches count from 0. */
export interface InspectedPlan {
  /** New tokens; more than `rows` are computed in pieces. */
  readonly tokens: number;
  /** Rows of the step: of the largest piece. */
  readonly rows: number;
  readonly sequences: number;
  readonly prefillChunk: number;
  readonly tensorCores: boolean;
  readonly launches: readonly PlannedLaunch[];
  /** In the order in which they are made, all layers. `buffer` is a place in `buffers`. */
  readonly values: readonly (PlannedValue & { readonly buffer: number })[];
  readonly buffers: readonly {
    readonly bytes: number;
    /** As a forward pass takes it: of a size class of the ledger. */
    readonly ledgerBytes: number;
  }[];
  readonly totalBytes: number;
  readonly ledgerBytes: number;
  /** If each value of the embedding, of one layer and of the head had a buffer of its own. */
  readonly unsharedBytes: number;
  /** The most that lives at once. */
  readonly liveBytes: number;
}

/** The plan of the largest piece of a batch. Throws BadInput for a batch that cannot be. */
export function inspectPlan(config: ModelConfig, options: PlanOptions): InspectedPlan {
  const { sequences, prefillChunk, tensorCores } = options;
  const most = sequences * config.contextLength;
  const rowsAtOnce = Math.max(prefillChunk, sequences);
  const tokens = options.tokens ?? Math.min(rowsAtOnce, most);
  if (tokens < sequences || tokens > most)
    throw new BadInput(
      `--tokens is ${tokens} and --sequences is ${sequences}; wanted at least a token and at most the model's context of ${config.contextLength} for each sequence`,
    );
  const rows = Math.min(tokens, rowsAtOnce);
  const form = tensorCores ? { queriesOnly: true, rowDtype: "f16" as const } : {};
  const plan = memoryPlan(config, { rows, samples: sequences, ...form });
  const buffers = plan.sizes.map((bytes) => ({ bytes, ledgerBytes: sizeClass(bytes) }));
  return {
    tokens,
    rows,
    sequences,
    prefillChunk,
    tensorCores,
    launches: plan.launches,
    values: plan.values.map((value, i) => ({ ...value, buffer: plan.bufferOf[i]! })),
    buffers,
    totalBytes: plan.totalBytes,
    ledgerBytes: buffers.reduce((sum, { ledgerBytes }) => sum + ledgerBytes, 0),
    unsharedBytes: plan.unsharedBytes,
    liveBytes: plan.liveBytes,
  };
}
