import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { wavesOf } from "../../src/model/page-moves.ts";
import { bitsOf, expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";
import { drive, GREEDY, member, openStep, pagesOf, pieceOf, stripOf } from "./ragged.ts";
import { TINY, tokensOf } from "./tiny.ts";

const gpu = await openTestGpu();
const model = await Gpt2.load(gpu, TINY);
afterAll(() => model.free());

const SAMPLED = { temperature: 1, seed: 4 };

test("a fork goes on by itself after its last page is copied, and the first one does not notice", async () => {
  const step = await openStep(model, 4);
  const prompt = tokensOf(1, 13); // page 1 full, page 2 with 5 tokens
  const make = (s: number, slotRow: number[]) => member(prompt, slotRow, { id: s, settings: SAMPLED });
  const alone = await Promise.all([0, 1].map((s) => drive(step, [make(s, pagesOf(s))], 6)));

  const [first, second] = [make(0, pagesOf(2)), make(1, [pagesOf(2)[0]!, ...pagesOf(3).slice(1)])];
  const piece = { ...pieceOf(first), tokens: prompt.slice(0, 12) };
  await step.launch({ pieces: [piece], samples: [] }).result;
  step.copyPages([{ from: first.slotRow[1]!, to: second.slotRow[1]! }]);
  first.computed = 12;
  second.computed = 12;
  expect(await drive(step, [first, second], 6)).toEqual(alone.flat());
  step.free();
});

describe.each(["f32", "f16"] as const)("pages on the host, %s", (kvDtype) => {
  test("come back into other pages bit for bit, in order with the steps", async () => {
    // Little scratch, so that pages travel in several pieces.
    const step = await openStep(model, 4, { kvDtype, maxBatchedTokens: 8 });
    const prompt = tokensOf(2, 21);
    const make = (slotRow: number[]) => member(prompt, slotRow, { settings: SAMPLED });
    const wanted = await drive(step, [make(pagesOf(3))], 8, 8);

    const moved = make(pagesOf(0));
    await drive(step, [moved], 2, 8);
    const pages = [...pagesOf(0)].slice(0, 3);
    const reading = step.readPages(pages);
    // The pages are another's before the copy has arrived.
    const other = drive(step, [member(tokensOf(5, 20), pagesOf(0), { id: 9 })], 1, 8);
    const host = await reading;
    expect(host.pieces.length).toBeGreaterThan(1);
    expect(host.bytes).toBe(3 * 8 * (kvDtype === "f32" ? 4 : 2) * 2 * 2 * 48);
    await other;
    const elsewhere = [14, 9, 12, ...pagesOf(2)];
    step.writePages(elsewhere.slice(0, 3), host);
    const back = { ...moved, slotRow: elsewhere };
    expect(await drive(step, [back], 8, 8)).toEqual(wanted);
    step.free();
  });

  test("as many as there are: every bit of the cache", async () => {
    const step = await openStep(model, 2, { kvDtype });
    const tensors = step.layers.flatMap(({ k, v }) => [k, v]);
    tensors.forEach((t, i) => {
      gpu.write(
        t,
        Uint32Array.from({ length: t.bytes / 4 }, (_, w) => w * 2654435761 + i),
      );
    });
    const before = await Promise.all(tensors.map(bitsOf));
    const pages = Array.from({ length: 17 }, (_, p) => p);
    const host = await step.readPages(pages);
    for (const t of tensors) gpu.write(t, new Uint8Array(t.bytes));
    step.writePages(pages, host);
    expect(await Promise.all(tensors.map(bitsOf))).toEqual(before);
    step.free();
  });
});

test("slots of strips move too", async () => {
  const step = await openStep(model, 2, { layout: "strips" });
  const make = (s: number) => member(tokensOf(6, 9), stripOf(s), { settings: GREEDY });
  const wanted = await drive(step, [make(1)], 4);
  const moved = make(0);
  await drive(step, [moved], 1);
  const slots = Array.from({ length: moved.computed }, (_, i) => i);
  const host = await step.readPages(slots);
  step.writePages(
    slots.map((slot) => 64 + slot),
    host,
  );
  expect(await drive(step, [{ ...moved, slotRow: stripOf(1) }], 4)).toEqual(wanted);
  step.free();
});

test("copies run as if one after the other", () => {
  const page = fc.integer({ min: 1, max: 6 });
  const copy = fc.record({ from: page, to: page }).filter(({ from, to }) => from !== to);
  const copies = fc.array(copy, { maxLength: 12 });
  fc.assert(
    fc.property(copies, (list) => {
      const apply = (contents: number[], wave: typeof list) => {
        const before = [...contents];
        for (const { from, to } of wave) contents[to] = before[from]!;
      };
      const [one, other] = [0, 1].map(() => [0, 1, 2, 3, 4, 5, 6]) as [number[], number[]];
      for (const copy of list) apply(one, [copy]);
      for (const wave of wavesOf(list)) {
        // In a wave the order does not matter.
        expect(new Set(wave.map(({ to }) => to)).size).toBe(wave.length);
        for (const { to } of wave) expect(wave.map(({ from }) => from)).not.toContain(to);
        apply(other, wave);
      }
      expect(other).toEqual(one);
      expect(wavesOf(list).flat()).toEqual(list);
    }),
  );
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, async () => {
    const step = await openStep(model, 2);
    step.copyPages([{ from: 1, to: 2 }]);
    const host = await step.readPages([1, 2]);
    step.writePages([3, 4], host);
    expect(() => step.writePages([3], host)).toThrow("pages: 2 on the host for 1 of the cache");
    step.free();
  });
});
