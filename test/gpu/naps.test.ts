import { afterEach, expect, test, vi } from "vitest";
import { Naps } from "../../src/gpu/naps.ts";

/** A clock that only naps move; how long each was asked to take. */
function stillClock(): number[] {
  let now = 1000;
  const naps: number[] = [];
  vi.spyOn(performance, "now").mockImplementation(() => now);
  vi.spyOn(Atomics, "wait").mockImplementation((_array, _index, _value, timeout) => {
    naps.push(timeout!);
    now += 0.125 + timeout!; // a turn of the event loop takes a while too
    return "timed-out";
  });
  return naps;
}
const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
};
afterEach(() => void vi.restoreAllMocks());

test("what is awaited comes through, and so does its error", async () => {
  const naps = new Naps();
  expect(await naps.until(Promise.resolve(7))).toBe(7);
  await expect(naps.until(Promise.reject(new Error("lost")))).rejects.toThrow("lost");
});

test("naps are an eighth of the wait so far, and a fifth of a millisecond at most", async () => {
  const taken = stillClock();
  let end: (() => void) | undefined;
  const wait = new Naps().until(
    new Promise<void>((resolve) => {
      end = resolve;
    }),
  );
  await turns(100);
  expect(taken.slice(0, 3)).toEqual([0, 1 / 64, 1 / 64 + 9 / 512]);
  expect(taken.slice(1).every((nap, i) => nap >= taken[i]!)).toBe(true);
  expect(Math.max(...taken)).toBe(0.2);
  end?.();
  await wait;
});

test("two waits at once take the naps of one, and after the last there are none", async () => {
  const taken = stillClock();
  const naps = new Naps();
  const ends: (() => void)[] = [];
  const waits = [0, 1].map(() => naps.until(new Promise<void>((resolve) => void ends.push(resolve))));
  await turns(10);
  expect(taken.length).toBeGreaterThan(5);
  expect(taken.length).toBeLessThanOrEqual(12);
  ends[0]!();
  await waits[0];
  const before = taken.length;
  await turns(5);
  expect(taken.length).toBeGreaterThan(before);
  ends[1]!();
  await waits[1];
  await turns(1);
  const after = taken.length;
  await turns(5);
  expect(taken).toHaveLength(after);
});
