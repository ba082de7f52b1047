import { describe, expect, test } from "vitest";
import {
  choosePoints,
  type TuneFamily,
  type TuneOptions,
  tuneFamilies,
  tuneGrid,
  tuningOf,
} from "../../src/bench/tune.ts";
import { TUNE_FAMILIES } from "../../src/bench/tune-families.ts";
import { tuneResults, tuneText } from "../../src/bench/tune-results.ts";
import { chooseTile } from "../../src/gpu/tuning.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();

const OPTIONS: TuneOptions = {
  shapes: [
    { rows: 1, depth: 8, columns: 8 },
    { rows: 4, depth: 8, columns: 12 },
  ],
  repeat: 1,
  rotateBytes: 0,
  arenaBytes: 2 ** 20,
};

/** A family whose op notes which tile it was told to take. */
function family(asked: string[], more: Partial<TuneFamily> = {}): TuneFamily {
  return {
    name: "fake",
    tiles: ["a", "b"],
    x: "f32",
    w: "f32",
    missing: () => undefined,
    run(x, w, bias) {
      asked.push(chooseTile(gpu.tuning?.fake, x.rows, w.cols, "own", w.rows));
      return matmul(x, w, bias);
    },
    ...more,
  };
}

describe("tuneFamilies", () => {
  test("times the op's own choice and every tile at every shape, and gives all memory back", async () => {
    const asked: string[] = [];
    gpu.tuning = { matrix: [] };
    const { tuning } = gpu;
    await expectLedgerUnchanged(gpu, async () => {
      const [fake] = await tuneFamilies(gpu, [family(asked)], OPTIONS);
      expect(fake).toMatchObject({ name: "fake", tiles: ["a", "b"], missing: null });
      expect(fake!.shapes.map(({ rows, depth, columns }) => ({ rows, depth, columns }))).toEqual(
        OPTIONS.shapes,
      );
      for (const { seconds } of fake!.shapes) expect(Object.keys(seconds)).toEqual(["default", "a", "b"]);
      expect(fake!.points).toHaveLength(2);
    });
    expect(new Set(asked)).toEqual(new Set(["own", "a", "b"]));
    expect(gpu.tuning).toBe(tuning);
    gpu.tuning = undefined;
  });

  test("leaves out an op that asks for no tile, and a family that the device does not have", async () => {
    const silent = family([], { run: (x, w, bias) => matmul(x, w, bias) });
    const absent = family([], { name: "absent", missing: () => "no tensor cores" });
    const results = await tuneFamilies(gpu, [silent, absent], OPTIONS);
    expect(results).toMatchObject([
      { name: "fake", missing: "the op asks for a tile at none of the shapes", shapes: [], points: [] },
      { name: "absent", missing: "no tensor cores", shapes: [], points: [] },
    ]);
    expect(tuningOf(results)).toEqual({});
  });

  test("ends with the signal, and the Gpu has the tuning it had", async () => {
    const reason = new Error("Ctrl-C");
    const ended = tuneFamilies(gpu, [family([])], { ...OPTIONS, signal: AbortSignal.abort(reason) });
    await expect(ended).rejects.toBe(reason);
    expect(gpu.tuning).toBeUndefined();
  });

  test("the families that there are have tiles to choose from", () => {
    for (const { name, tiles } of TUNE_FAMILIES) expect(tiles.length, name).toBeGreaterThan(1);
  });
});

describe("choosePoints", () => {
  const shape = (rows: number, depth: number, own: number, a: number, b: number) => ({
    ...{ rows, depth, columns: 8 },
    seconds: { default: own, a, b },
  });

  test("takes the fastest tile, with what it gains", () => {
    expect(choosePoints([shape(1, 8, 4, 3, 2)])).toEqual([
      { rows: 1, depth: 8, columns: 8, tile: "b", gain: 1 },
    ]);
  });

  test("leaves the op its own choice where a tile gains less than what noise is", () => {
    expect(choosePoints([shape(1, 8, 4, 3.9, 5)])).toEqual([
      { rows: 1, depth: 8, columns: 8, tile: "default", gain: 0 },
    ]);
  });

  test("has a point for each shape, in their order, and the cache no gains", () => {
    const shapes = [shape(1, 8, 10, 5, 8), shape(1, 32, 10, 20, 8), shape(2, 8, 1, 1, 1)];
    const points = choosePoints(shapes);
    expect(points.map((p) => p.tile)).toEqual(["a", "b", "default"]);
    const family = { name: "fake", tiles: ["a", "b"], missing: null, shapes, points };
    expect(tuningOf([family]).fake![1]).toEqual({ rows: 1, depth: 32, columns: 8, tile: "b" });
  });
});

test("the grid has rows by powers of two, for a model's four products and squares", () => {
  const shapes = tuneGrid(8, [16], 4);
  expect(shapes).toHaveLength(3 * 5);
  expect(shapes.slice(0, 3)).toEqual([1, 2, 4].map((rows) => ({ rows, depth: 8, columns: 24 })));
  expect(shapes.at(-1)).toEqual({ rows: 4, depth: 16, columns: 16 });
});

test("the table says what was chosen, what it gains, and why there is nothing", () => {
  const shapes = [{ rows: 4, depth: 8, columns: 16, seconds: { default: 2e-6, a: 1e-6 } }];
  const text = tuneText(
    tuneResults(
      gpu,
      "tiny",
      { ...OPTIONS },
      [
        { name: "fake", tiles: ["a"], missing: null, shapes, points: choosePoints(shapes) },
        { name: "absent", tiles: [], missing: "no tensor cores", shapes: [], points: [] },
      ],
      "/cache/x.json",
    ),
  );
  expect(text).toMatch(/^ 4×8×16 +2\.00 +1\.00 +a +100\.0 %$/m);
  expect(text).toMatch(/^absent: nothing to tune: no tensor cores$/m);
  expect(text).toContain("Written to /cache/x.json");
});
