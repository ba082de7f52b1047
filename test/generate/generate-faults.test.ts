import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { generate, type Timing } from "../../src/generate/generate.ts";
import { Sequence } from "../../src/generate/sequence.ts";
import { DeviceLost, OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import type { CacheMode, KvCache } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { cacheFor, TINY, tokensOf } from "../model/tiny.ts";

// On Dawn's null backend, which computes nothing: every logit is made zero, and the first token is chosen each time.

const SEQUENCES = 2;

/** A way to generate, with so many tokens: without a cache a token is a wait; the GPU runs ahead 8 steps a round, 3 rounds. */
const WAYS = [
  { mode: "none", timing: "pipelined", newTokens: 3 },
  { mode: "contiguous", timing: "visible", newTokens: 4 },
  { mode: "paged", timing: "visible", newTokens: 4 },
  { mode: "contiguous", timing: "pipelined", newTokens: 35 },
  { mode: "paged", timing: "pipelined", newTokens: 35 },
] as const;
type Way = { readonly mode: CacheMode; readonly timing: Timing; readonly newTokens: number };

interface Run {
  readonly way: Way;
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

async function prepare(way: Way): Promise<Run> {
  const gpu = await Gpu.open({ backend: "null" });
  const model = await Gpt2.load(gpu, TINY);
  const read = gpu.read.bind(gpu);
  const zeros = async (...range: Parameters<typeof read>) =>
    new ArrayBuffer((await read(...range)).byteLength);
  Object.assign(gpu, { read: zeros });
  const result = gpu.readBack.result.bind(gpu.readBack);
  const zerosLate = async (target: Parameters<typeof result>[0]) =>
    new ArrayBuffer((await result(target)).byteLength);
  Object.assign(gpu.readBack, { result: zerosLate });
  const sequences = Array.from({ length: SEQUENCES }, (_, id) => {
    const sampling = { temperature: 0, seed: 0 };
    return new Sequence({
      id,
      prompt: tokensOf(id, 9),
      maxNewTokens: way.newTokens,
      contextLength: 64,
      sampling,
    });
  });
  const cache = cacheFor(gpu, model, way.mode, SEQUENCES, { pageSize: 8 });
  const run = { way, gpu, model, cache, sequences };
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
async function outcome({ way, model, cache, sequences }: Run): Promise<unknown> {
  const run = async () => {
    for await (const { tokens } of generate(model, cache, sequences, way))
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

describe.each(WAYS)("the device is lost while it generates, cache $mode, $timing", (way) => {
  let waits = 0;

  beforeAll(async () => {
    const run = await prepare(way);
    tapWaits(run.gpu, () => waits++);
    expect(await outcome(run)).toBe("finished");
    expect(run.sequences.map((s) => s.finishReason)).toEqual(["length", "length"]);
    expectNothingHeld(run);
  });

  test("at any await: it ends with DeviceLost, gives its places back, and close empties the ledger", async () => {
    // A wait for buffers; for the prompt's token one for the result with the two inside it, and these two for each later round.
    const rounds = way.timing === "visible" ? way.newTokens - 1 : Math.ceil((way.newTokens - 1) / 8);
    expect(waits).toBe(way.mode === "none" ? 2 + way.newTokens * 6 : 2 + 6 + rounds * 4);
    for (let lostAt = 1; lostAt <= waits; lostAt++) {
      const run = await prepare(way);
      let wait = 0;
      tapWaits(run.gpu, () => {
        if (++wait === lostAt) run.gpu.device.destroy();
      });
      const end = await outcome(run);
      // When the last tokens are on the host already, nothing needs the device any more.
      if (lostAt === waits && end === "finished") expect(wait).toBe(waits);
      else expect(end, `lost at wait ${lostAt} of ${waits}`).toBeInstanceOf(DeviceLost);
      expectNothingHeld(run);
    }
  });

  test("between two turns of the event loop of the first step", async () => {
    for (let turns = 0; turns < 30; turns++) {
      const run = await prepare(way);
      const ending = outcome(run);
      for (let i = 0; i < turns; i++) await Promise.resolve();
      run.gpu.device.destroy();
      expect(await ending, `lost after ${turns} turns`).toBeInstanceOf(DeviceLost);
      expectNothingHeld(run);
    }
  });

  test("between two steps: tokens that have come are given, then it ends", async () => {
    const run = await prepare(way);
    const steps = generate(run.model, run.cache, run.sequences, way);
    await steps.next();
    run.gpu.device.destroy();
    const rest = async () => {
      let count = 0;
      while (!(await steps.next()).done) count++;
      return count;
    };
    await expect(rest()).rejects.toBeInstanceOf(DeviceLost);
    // What was on the host, or on its way there: not more than the rounds that were submitted.
    const given = run.sequences[0]!.generatedLength;
    expect(given).toBeLessThanOrEqual(way.timing === "pipelined" && way.mode !== "none" ? 1 + 2 * 8 : 1);
    expect(await steps.next()).toEqual({ done: true, value: undefined });
    expectNothingHeld(run);
    // What the model and the cache hold may still be given back in good order.
    run.cache.free();
    run.model.free();
  });

  test("before it begins", async () => {
    const run = await prepare(way);
    run.gpu.device.destroy();
    await run.gpu.device.lost;
    expect(await outcome(run)).toBeInstanceOf(DeviceLost);
    expectNothingHeld(run);
  });

  test("the Gpu is closed under it: it says so, and nothing else gets in the way of that", async () => {
    const run = await prepare(way);
    const ending = outcome(run);
    await run.gpu.close();
    expect(await ending).toMatchObject({ message: "this Gpu is closed" });
    expect(run.cache.usage().reserved).toBe(0);
  });
});

test("a cache that the device has no room for is known before the first token", async () => {
  const run = await prepare(WAYS[4]);
  for (let i = 0; i < 4; i++) run.gpu.memory.alloc(128 * 2 ** 20, "weights", `block ${i}`);
  const end = await outcome(run);
  expect(end).toBeInstanceOf(OutOfMemory);
  expect((end as Error).message).toMatch(/^OOM: buffer block 3 \(weights\)/);
  expectNothingHeld(run);
});

describe.each(WAYS)("who listens gives up, cache $mode, $timing", (way) => {
  test.each([1, 2, 4])("after step %i, by leaving the loop: places and memory are back", async (last) => {
    const run = await prepare({ ...way, newTokens: 30 });
    for await (const { step } of generate(run.model, run.cache, run.sequences, way))
      if (step + 1 === last) break;
    expectNothingHeld(run);
    expect(run.sequences.map((s) => s.generatedLength)).toEqual([last, last]);
    await run.gpu.finish();
  });

  test("by an error of its own, which it gets back", async () => {
    const run = await prepare({ ...way, newTokens: 30 });
    const listen = async () => {
      for await (const { step } of generate(run.model, run.cache, run.sequences, way))
        if (step === 1) throw new Error("the pipe is closed");
    };
    await expect(listen()).rejects.toThrow("the pipe is closed");
    expectNothingHeld(run);
    await run.gpu.finish();
  });

  test("before the first step: nothing was taken", async () => {
    const run = await prepare(way);
    const before = run.gpu.memory.current;
    await generate(run.model, run.cache, run.sequences, way).return(undefined);
    expect(run.gpu.memory.current).toBe(before);
    expectNothingHeld(run);
  });
});

test("an error that comes late, while rounds are in flight, ends it and gives everything back", async () => {
  const run = await prepare(WAYS[4]);
  const steps = generate(run.model, run.cache, run.sequences, WAYS[4]);
  await steps.next();
  for (let i = 0; i < 4; i++) run.gpu.memory.alloc(128 * 2 ** 20, "weights", `block ${i}`);
  const rest = async () => {
    while (!(await steps.next()).done);
  };
  await expect(rest()).rejects.toBeInstanceOf(OutOfMemory);
  expectNothingHeld(run);
});
