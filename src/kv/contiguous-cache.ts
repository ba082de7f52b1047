import { BadInput, check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { Tensor } from "../tensor.ts";
import { lookInStrips, rememberedStep } from "./attend-slots.ts";
import {
  allocateLayers,
  type CacheShape,
  type CacheStep,
  freeLayers,
  type KvUsage,
  type LayerKv,
  type Place,
  type RememberingCache,
  type StepRequest,
  slotBytes,
  sum,
} from "./cache.ts";

/** A strip of the cache: slots start … start + maxLength - 1, in the order of positions. */
interface Strip {
  readonly start: number;
  length: number;
}

/**
 * The cache before paging: every sequence gets a strip of `maxLength` slots when it opens, whatever it will need of it.
 * What it does not need is the waste of internal fragmentation.
 */
export class ContiguousCache implements RememberingCache {
  readonly mode = "contiguous";
  readonly remembers = true;
  readonly slotPart = "slots-contiguous";
  readonly pageSize = 1;
  readonly maxLength: number;
  private readonly gpu: Gpu;
  readonly shape: CacheShape;
  readonly layers: readonly LayerKv[];
  private readonly freeStarts: number[];
  private readonly open_ = new Set<Strip>();
  private readonly strips: number;

  /** Room for `strips` sequences of up to `maxLength` tokens. Throws OutOfMemory. */
  constructor(gpu: Gpu, shape: CacheShape, strips: number, maxLength: number) {
    check(
      strips >= 1 && maxLength >= 1,
      `contiguous cache: ${strips} strips of ${maxLength} tokens; wanted at least 1 of each`,
    );
    this.gpu = gpu;
    this.shape = shape;
    this.strips = strips;
    this.maxLength = maxLength;
    this.layers = allocateLayers(gpu, shape, strips * maxLength, "contiguous cache");
    this.freeStarts = Array.from({ length: strips }, (_, i) => (strips - 1 - i) * maxLength);
  }

  open(): Place {
    const start = this.freeStarts.pop();
    if (start === undefined)
      throw new BadInput(
        `the contiguous cache has ${this.strips} strips and all are taken: run fewer sequences`,
      );
    const strip = { start, length: 0 };
    this.open_.add(strip);
    return strip;
  }

  prepare(requests: readonly StepRequest[]): CacheStep {
    const strips = requests.map(({ place }) => this.strip(place));
    for (const { place, count } of requests) this.reserve(place, count);
    // What may fail comes before the strips grow.
    const starts = strips.map((s) => s.start);
    const stripStarts = Tensor.from(this.gpu, [starts.length], starts, {
      dtype: "u32",
      purpose: "tables",
      label: "strip starts",
    });
    const slotMapping = new Uint32Array(sum(requests.map((r) => r.count)));
    let t = 0;
    requests.forEach(({ count }, i) => {
      const strip = strips[i]!;
      for (let j = 0; j < count; j++) slotMapping[t++] = strip.start + strip.length++;
    });
    return {
      slotMapping,
      ...rememberedStep(this.layers, lookInStrips(stripStarts)),
    };
  }

  tableWidth(): number {
    return 1;
  }

  /** A strip has all its slots from the beginning: this only refuses what does not fit. */
  reserve(place: Place, count: number): void {
    const length = this.strip(place).length + count;
    if (length > this.maxLength)
      throw new BadInput(
        `a sequence of ${length} tokens does not fit its strip of ${this.maxLength}: raise --max-seq-len`,
      );
  }

  slotRow(place: Place): readonly number[] {
    return [this.strip(place).start];
  }

  grow(place: Place, count: number): void {
    this.reserve(place, count);
    this.strip(place).length += count;
  }

  close(place: Place): void {
    const strip = this.strip(place);
    this.open_.delete(strip);
    this.freeStarts.push(strip.start);
  }

  usage(): KvUsage {
    const bytes = slotBytes(this.shape);
    const reserved = this.open_.size * this.maxLength * bytes;
    const used = sum([...this.open_].map((s) => s.length)) * bytes;
    return { allocated: this.strips * this.maxLength * bytes, reserved, used, wasted: reserved - used };
  }

  free(): void {
    freeLayers(this.layers);
  }

  private strip(place: Place): Strip {
    check(this.open_.has(place as Strip), "contiguous cache: this place is closed, or another cache's");
    return place as Strip;
  }
}
