import { describe, expect, test } from "vitest";
import { NO_TOKEN } from "../../src/ops/sample.ts";
import { KNOWN, takeTokens } from "../../src/ops/take-tokens.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, expectSameBits, openTestGpu, withGuards } from "../gpu-fixture.ts";

const gpu = await openTestGpu();
const integers = (values: readonly number[]) => Tensor.from(gpu, [values.length], values, { dtype: "u32" });

const take = async (ids: readonly number[], sources: readonly number[], tokens: readonly number[]) => [
  ...(await withGuards(gpu, () => takeTokens(integers(ids), integers(sources), integers(tokens)))).bits,
];

test.each([
  { count: 1, why: "one thread works" },
  { count: 63, why: "one thread idle" },
  { count: 64, why: "exactly one workgroup" },
  { count: 65, why: "one past it" },
  { count: 1024, why: "many" },
])("$count ids, every third from the ring: $why", async ({ count }) => {
  const tokens = [50_256, 7, 0, 131];
  const ids = Array.from({ length: count }, (_, t) => 1000 + t);
  const sources = ids.map((_, t) => (t % 3 === 1 ? t % 4 : KNOWN));
  const wanted = ids.map((id, t) => (t % 3 === 1 ? tokens[t % 4] : id));
  expect(await take(ids, sources, tokens)).toEqual(wanted);
});

describe("properties", () => {
  test("a token that could not be chosen becomes token 0, which may be computed", async () => {
    expect(await take([5, 5, 5], [0, 1, KNOWN], [NO_TOKEN, 9])).toEqual([0, 9, 5]);
  });

  test("the same call 20 times gives the same bits", async () => {
    const [ids, sources, tokens] = [integers([1, 2, 3]), integers([1, KNOWN, 0]), integers([8, 9])];
    await expectSameBits(() => takeTokens(ids, sources, tokens));
    for (const t of [ids, sources, tokens]) t.free();
  });
});

test("the ledger is back where it started", async () => {
  await expectLedgerUnchanged(gpu, () => {
    const given = [integers([1]), integers([0]), integers([4])] as const;
    takeTokens(...given).free();
    for (const t of given) t.free();
  });
});

test("sources of another length are refused", () => {
  const [ids, sources] = [integers([1, 2]), integers([0])];
  expect(() => takeTokens(ids, sources, ids)).toThrow("take-tokens: ids are [2] but sources [1]");
  ids.free();
  sources.free();
});
