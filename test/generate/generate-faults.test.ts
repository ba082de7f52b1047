import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { generate } from "../../src/generate/generate.ts";
import { Sequence } from "../../src/generate/sequence.ts";
import { DeviceLost, OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheMode, type KvCache } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { cacheFor, TINY, tokensOf } from "../model/tiny.ts";

// On Dawn's null backend, which computes nothing: every logit is made zero, and the first token is chosen each time.

const SEQUENCES = 2;
const NEW_TOKENS = 3;

interface Run {
  readonly gpu: Gpu;
  readonly model: Gpt2;
  readonly cache: KvCache;
  readonly sequences: Sequence[];
}

const runs: Run[] = [];

afterEach(async () => {
  for (const { gpu } of runs.splice(0)) {
    await gpu.close();
    expect(gpu.memory.current).toBe(0);
  }
});

async function prepare(mode: CacheMode): Promise<Run> {
  const gpu = await Gpu.open({ backend: "null" });
  const model = await Gpt2.load(gpu, TINY);
  const read = gpu.read.bind(gpu);
  const zeros = async (...range: Parameters<typeof read>) =>
    new ArrayBuffer((await read(...range)).byteLength);
  Object.assign(gpu, { read: zeros });
  const sequences = Array.from({ length: SEQUENCES }, (_, id) => {
    const sampling = { temperature: 0, seed: 0 };
    return new Sequence({
      id,
      prompt: tokensOf(id, 9),
      maxNewTokens: NEW_TOKENS,
      contextLength: 64,
      sampling,
    });
  });
  const run = { gpu, model, cache: cacheFor(gpu, model, mode, SEQUENCES, { pageSize: 8 }), sequences };
  runs.push(run);
  return run;
}

/** Call `on` before each wait for the device begins and after it ends. Every await of generate is among them. */
function tapWaits(gpu: Gpu, on: () => void): void {
  const tap = <T>(begin: () => Promise<T>): Promise<T> => {
    on();
    return begin().finally(on);
  };
  const createBuffer = gpu.device.createBuffer.bind(gpu.device);
  const read = gpu.read.bind(gpu);
  const settle = gpu.settle.bind(gpu);
  Object.assign(gpu.device, {
    createBuffer(descriptor: GPUBufferDescriptor) {
      const buffer = createBuffer(descriptor);
      const mapAsync = buffer.mapAsync.bind(buffer);
      return Object.assign(buffer, {
        mapAsync: (...range: Parameters<typeof mapAsync>) => tap(() => mapAsync(...range)),
      });
    },
  });
  Object.assign(gpu, {
    read: (...range: Parameters<typeof read>) => tap(() => read(...range)),
    settle: () => tap(settle),
  });
}

/** How generation ends: "finished", its error, or "hangs". */
async function outcome({ model, cache, sequences }: Run): Promise<unknown> {
  const run = async () => {
    for await (const { tokens } of generate(model, cache, sequences))
      expect(tokens.length).toBeGreaterThan(0);
    return "finished";
  };
  let timer: NodeJS.Timeout | undefined;
  const hangs = new Promise((resolve) => {
    timer = setTimeout(resolve, 10_000, "hangs");
  });
  try {
    return await Promise.race([run().catch((error: unknown) => error), hangs]);
  } finally {
    clearTimeout(timer);
  }
}

function expectNothingHeld({ cache, gpu }: Run): void {
  expect(cache.usage()).toMatchObject({ reserved: 0, used: 0, wasted: 0 });
  const held = gpu.memory.byLabel().map((row) => `${row.purpose} ${row.label}`);
  expect(held.filter((label) => /^(activations|staging) (?!\(free for reuse\))/.test(label))).toEqual([]);
}

describe.each(CACHE_MODES)("the device is lost while it generates, cache %s", (mode) => {
  let waits = 0;

  beforeAll(async () => {
    const run = await prepare(mode);
    tapWaits(run.gpu, () => waits++);
    expect(await outcome(run)).toBe("finished");
    expectNothingHeld(run);
  });

  test("at any await: it ends with DeviceLost, gives its places back, and close empties the ledger", async () => {
    // A wait for buffers, and in each step one for the result, with the two inside it.
    expect(waits).toBeGreaterThanOrEqual(2 + NEW_TOKENS * 6);
    for (let lostAt = 1; lostAt <= waits; lostAt++) {
      const run = await prepare(mode);
      let wait = 0;
      tapWaits(run.gpu, () => {
        if (++wait === lostAt) run.gpu.device.destroy();
      });
      const end = await outcome(run);
      // When the last logits are on the host already, nothing needs the device any more.
      if (lostAt === waits && end === "finished") expect(wait).toBe(waits);
      else expect(end, `lost at wait ${lostAt} of ${waits}`).toBeInstanceOf(DeviceLost);
      expectNothingHeld(run);
    }
  });

  test("between two turns of the event loop of the first step", async () => {
    for (let turns = 0; turns < 30; turns++) {
      const run = await prepare(mode);
      const ending = outcome(run);
      for (let i = 0; i < turns; i++) await Promise.resolve();
      run.gpu.device.destroy();
      expect(await ending, `lost after ${turns} turns`).toBeInstanceOf(DeviceLost);
      expectNothingHeld(run);
    }
  });

  test("between two steps", async () => {
    const run = await prepare(mode);
    const steps = generate(run.model, run.cache, run.sequences);
    await steps.next();
    run.gpu.device.destroy();
    await expect(steps.next()).rejects.toBeInstanceOf(DeviceLost);
    expect(await steps.next()).toEqual({ done: true, value: undefined });
    expectNothingHeld(run);
    // What the model and the cache hold may still be given back in good order.
    run.cache.free();
    run.model.free();
  });

  test("before it begins", async () => {
    const run = await prepare(mode);
    run.gpu.device.destroy();
    await run.gpu.device.lost;
    expect(await outcome(run)).toBeInstanceOf(DeviceLost);
    expectNothingHeld(run);
  });

  test("the Gpu is closed under it: it says so, and nothing else gets in the way of that", async () => {
    const run = await prepare(mode);
    const ending = outcome(run);
    await run.gpu.close();
    expect(await ending).toMatchObject({ message: "this Gpu is closed" });
    expect(run.cache.usage().reserved).toBe(0);
  });
});

test("a cache that the device has no room for is known before the first token", async () => {
  const run = await prepare("paged");
  for (let i = 0; i < 4; i++) run.gpu.memory.alloc(128 * 2 ** 20, "weights", `block ${i}`);
  const end = await outcome(run);
  expect(end).toBeInstanceOf(OutOfMemory);
  expect((end as Error).message).toMatch(/^OOM: buffer block 3 \(weights\)/);
  expectNothingHeld(run);
});
