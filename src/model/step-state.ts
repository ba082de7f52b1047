import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type KvCache, type Place, type RememberingCache, remembers } from "../kv/cache.ts";
import type { SlotLookup } from "../ops/decode-attention.ts";
import type { Bests } from "../ops/norm-head.ts";
import { type SampleSettings, sample, settingsWords } from "../ops/sample.ts";
import { Tensor } from "../tensor.ts";
import type { ModelConfig } from "./config.ts";
import { StepArrays } from "./step-arrays.ts";

/** What a step needs to know of a sequence. */
export interface StepSequence {
  /** Prompt and generated ids; the last one's successor is to be sampled. */
  readonly tokens: readonly number[];
  /** How many of them were generated. */
  readonly generated: number;
  readonly id: number;
  readonly sampling: SampleSettings;
  readonly place: Place;
}

/** What is fixed as long as a batch's steps are replayed. */
export interface BatchShape {
  /** S. */
  readonly sequences: number;
  /** No sequence gets longer than this. */
  readonly maxContext: number;
  /** All of them are greedy: their sampler is a smaller kernel. Default false. */
  readonly greedy?: boolean;
}

/** Steps whose tokens the ring on the GPU holds. */
export const RING_STEPS = 64;

/**
 * What the GPU knows of the S sequences of a batch: the integer arrays of the step, sampling settings, tokens seen, slots,
 * and the ring of sampled tokens that the host reads. The sampler advances it; the host writes it only when the batch
 * changes, and the slot table when sequences get new slots.
 */
export class StepState {
  readonly gpu: Gpu;
  readonly sequences: number;
  readonly arrays: StepArrays;
  readonly slots: SlotLookup;
  /** [RING_STEPS, S] u32: row r holds the tokens of every step whose number is r modulo RING_STEPS. */
  readonly tokens: Tensor;
  private readonly maxContext: number;
  private readonly greedy: boolean;
  private readonly cache: RememberingCache | undefined;
  private readonly settings: Tensor;
  private readonly seen: Tensor;
  private readonly seenWords: number;

  /** Room for a batch. Throws OutOfMemory. */
  constructor(gpu: Gpu, config: ModelConfig, cache: KvCache, { sequences, maxContext, greedy }: BatchShape) {
    this.gpu = gpu;
    this.sequences = sequences;
    this.maxContext = maxContext;
    this.greedy = greedy ?? false;
    this.cache = remembers(cache) ? cache : undefined;
    this.seenWords = Math.ceil(config.vocabSize / 32);
    const made: Tensor[] = [];
    const table = (label: string, shape: readonly number[]) => {
      const tensor = Tensor.empty(gpu, shape, { dtype: "u32", purpose: "tables", label });
      made.push(tensor);
      return tensor;
    };
    try {
      this.arrays = new StepArrays(gpu, sequences);
      made.push(this.arrays.all);
      this.settings = table("sampling settings", [sequences, 8]);
      this.seen = table("tokens seen", [sequences, this.seenWords]);
      this.tokens = table("sampled tokens", [RING_STEPS, sequences]);
      this.slots = {
        part: this.cache?.slotPart ?? "slots-contiguous",
        pageSize: this.cache?.pageSize ?? 1,
        table: table("slot table", [sequences, this.cache?.tableWidth(maxContext) ?? 1]),
      };
    } catch (error) {
      for (const tensor of made) tensor.free();
      throw error;
    }
  }

  /** Write everything for these sequences, one for each row of the batch; the next tokens go to row `ring` of the ring. */
  load(sequences: readonly StepSequence[], ring = 0): void {
    check(
      sequences.length === this.sequences,
      () => `step state: ${sequences.length} sequences for a batch of ${this.sequences}`,
    );
    check(
      !this.greedy || sequences.every(({ sampling }) => sampling.temperature === 0),
      "step state: the batch is said to be greedy, but a sequence has a temperature above 0",
    );
    const positions = sequences.map(({ tokens }) => tokens.length - 1);
    this.arrays.write({
      tokenIds: sequences.map(({ tokens }) => tokens.at(-1)!),
      positions,
      slotMapping: sequences.map(({ place }, s) => this.slotOf(place, positions[s]!)),
      contextLens: sequences.map(({ tokens }) => tokens.length),
      generated: sequences.map((s) => s.generated),
      ring: sequences.map(() => ring),
    });
    const settings = new Uint32Array(8 * this.sequences);
    const seen = new Uint32Array(this.seenWords * this.sequences);
    sequences.forEach(({ tokens, id, sampling }, s) => {
      settings.set(settingsWords(sampling, id), 8 * s);
      for (const token of tokens) seen[s * this.seenWords + (token >>> 5)]! |= 1 << (token & 31);
    });
    this.gpu.write(this.settings, settings);
    this.gpu.write(this.seen, seen);
    this.writeSlots(sequences.map((s) => s.place));
  }

  /** Write the slot table, after sequences got new slots. Steps already submitted do not look at what is new in it. */
  writeSlots(places: readonly Place[]): void {
    if (!this.cache) return;
    const width = this.slots.table.cols;
    const rows = new Uint32Array(width * this.sequences);
    places.forEach((place, s) => {
      rows.set(this.cache!.slotRow(place).slice(0, width), s * width);
    });
    this.gpu.write(this.slots.table, rows);
  }

  /**
   * Sample a token for each sequence from logits [S, V] f32, put it into the ring, and advance every array. `bests` is
   * what normHead says of the logits.
   */
  sample(logits: Tensor, bests?: Bests): void {
    sample({
      logits,
      bests,
      settings: this.settings,
      seen: this.seen,
      slots: this.slots.part === "slots-paged" ? this.slots : { table: this.slots.table },
      step: this.arrays.all,
      tokens: this.tokens,
      maxPositions: this.maxContext,
      greedy: this.greedy,
    });
  }

  free(): void {
    for (const tensor of [this.arrays.all, this.settings, this.seen, this.tokens, this.slots.table])
      tensor.free();
  }

  /** The slot of a position, as far as it is reserved; else 0, where nobody looks. */
  private slotOf(place: Place, position: number): number {
    if (!this.cache) return 0;
    const row = this.cache.slotRow(place);
    const { pageSize } = this.cache;
    if (this.slots.part === "slots-contiguous") return row[0]! + position;
    const page = row[Math.floor(position / pageSize)];
    return page === undefined ? 0 : page * pageSize + (position % pageSize);
  }
}
