import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import {
  chooseTile,
  OWN_CHOICE,
  parseTuning,
  type TilePoint,
  type TuningFor,
  tuningText,
} from "../../src/gpu/tuning.ts";
import { readTuning, shadersNamed, tuningFor, tuningPath, writeTuning } from "../../src/gpu/tuning-file.ts";
import { TILE_FAMILIES } from "../../src/ops/tile-families.ts";

const TILES = ["small", "large", OWN_CHOICE];
const size = fc.integer({ min: 1, max: 65_536 });
const point = fc.record(
  { rows: size, depth: size, columns: size, tile: fc.constantFrom(...TILES) },
  { requiredKeys: ["rows", "columns", "tile"] },
);
const table = fc.array(point, { minLength: 1, maxLength: 30 });
const distance = (p: TilePoint, rows: number, columns: number, depth?: number) =>
  Math.log(p.rows / rows) ** 2 +
  Math.log(p.columns / columns) ** 2 +
  (depth && p.depth ? Math.log(p.depth / depth) ** 2 : 0);

describe("chooseTile", () => {
  test("takes the nearest point by the logarithm: of 10 and 1,000, 90 is nearer to 10", () => {
    const points = [
      { rows: 10, depth: 768, columns: 768, tile: "small" },
      { rows: 1000, depth: 768, columns: 768, tile: "large" },
    ];
    expect(chooseTile(points, 90, 768, "own", 768)).toBe("small");
    expect(chooseTile(points, 110, 768, "own", 768)).toBe("large");
    expect(chooseTile(points, 50_000, 50_257, "own", 768)).toBe("large");
  });

  test("tells products of one size by their depth, where it is asked with one", () => {
    const points = [768, 3072].map((depth) => ({ rows: 64, depth, columns: 768, tile: `for ${depth}` }));
    expect(chooseTile(points, 64, 768, "own", 3000)).toBe("for 3072");
    expect(chooseTile(points, 64, 768, "own")).toBe("for 768");
  });

  test("is the op's own without a table, without a point, and where nothing was faster", () => {
    expect(chooseTile(undefined, 1, 1, "own")).toBe("own");
    expect(chooseTile([], 1, 1, "own")).toBe("own");
    expect(chooseTile([{ rows: 8, depth: 8, columns: 8, tile: OWN_CHOICE }], 1, 1, "own")).toBe("own");
  });

  test("no point is nearer than the chosen one, and what is measured is what is chosen", () => {
    fc.assert(
      fc.property(table, size, size, fc.option(size, { nil: undefined }), (points, rows, columns, depth) => {
        const chosen = chooseTile(points, rows, columns, OWN_CHOICE, depth);
        const least = Math.min(...points.map((p) => distance(p, rows, columns, depth)));
        const nearest = points.filter((p) => distance(p, rows, columns, depth) === least);
        expect(nearest.map((p) => p.tile)).toContain(chosen);
      }),
    );
  });

  test("does not depend on the order of the points, nor on what was asked before", () => {
    const distinct = fc.uniqueArray(point, {
      selector: (p) => `${p.rows} ${p.depth} ${p.columns}`,
      minLength: 1,
    });
    fc.assert(
      fc.property(distinct, fc.array(fc.tuple(size, size, size), { maxLength: 20 }), (points, asked) => {
        const backwards = [...points].reverse();
        for (const [rows, columns, depth] of [...asked, ...asked])
          expect(chooseTile(points, rows, columns, "own", depth)).toBe(
            chooseTile(backwards, rows, columns, "own", depth),
          );
      }),
    );
  });
});

const WANTED: TuningFor = {
  adapter: "Some GPU",
  driver: "1.2",
  families: {
    matrix: { kernels: "abc", tiles: ["small", "large"] },
    registers: { kernels: "def", tiles: ["small"] },
  },
};
const NOW = new Date(0);

describe("a tuning file", () => {
  test("gives back what was written", () => {
    fc.assert(
      fc.property(table, (points) => {
        const parsed = parseTuning(tuningText({ matrix: points }, WANTED, NOW), WANTED);
        expect(parsed).toEqual({ tuning: { matrix: points }, ignored: [] });
      }),
    );
  });

  const points = [{ rows: 1, depth: 3, columns: 2, tile: "small" }];
  const whole = JSON.parse(tuningText({ matrix: points, registers: points }, WANTED, NOW));
  test.each([
    ["no JSON", "{", "it is no JSON"],
    ["another schema", { ...whole, schema: "quire-tuning/0" }, /^schema: /],
    ["another adapter", { ...whole, adapter: "Other" }, "it was measured on Other with driver 1.2"],
    ["another driver", { ...whole, driver: null }, "it was measured on Some GPU with driver unknown"],
    [
      "no rows",
      {
        ...whole,
        families: { matrix: { kernels: "abc", points: [{ rows: 0, depth: 1, columns: 1, tile: "small" }] } },
      },
      /^families\.matrix\.points\.0\.rows: /,
    ],
  ])("that is damaged or foreign is ignored as a whole: %s", (_, file, why) => {
    const { tuning, ignored } = parseTuning(typeof file === "string" ? file : JSON.stringify(file), WANTED);
    expect(tuning).toEqual({});
    expect(ignored).toEqual([expect.stringMatching(why)]);
  });

  test("loses only the families whose shaders have changed, whose tiles are gone, or that are none", () => {
    const { matrix, registers } = whole.families;
    const families = {
      matrix: { ...matrix, kernels: "old" },
      registers: { ...registers, points: [...points, { rows: 1, depth: 1, columns: 1, tile: "large" }] },
      another: matrix,
    };
    const text = JSON.stringify({ ...whole, families });
    expect(parseTuning(text, WANTED)).toEqual({
      tuning: {},
      ignored: ["matrix: its shaders have changed since", 'registers: there is no tile "large"'],
    });
    expect(parseTuning(JSON.stringify({ ...whole, families: { ...families, registers } }), WANTED)).toEqual({
      tuning: { registers: points },
      ignored: ["matrix: its shaders have changed since"],
    });
  });

  test("of any text at all never throws", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        const { tuning, ignored } = parseTuning(text, WANTED);
        expect(tuning).toEqual({});
        expect(ignored).toHaveLength(1);
      }),
    );
  });
});

describe("the cache", () => {
  const INFO = { description: "Some GPU", driver: "1.2" };
  const points = [{ rows: 64, depth: 768, columns: 768, tile: shadersNamed(TILE_FAMILIES.matrix.tiles)[0]! }];
  const warnings: string[] = [];
  const read = (info = INFO) => readTuning(info, TILE_FAMILIES, (line) => warnings.push(line));
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "quire-tuning-"));
    vi.stubEnv("QUIRE_CACHE", folder);
    warnings.length = 0;
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(folder, { recursive: true });
  });

  test("keeps a table for its adapter and driver, and for nobody else", () => {
    expect(read()).toBeUndefined();
    const path = writeTuning({ matrix: points }, INFO, TILE_FAMILIES);
    expect(path).toBe(tuningPath(INFO));
    expect(path.startsWith(join(folder, "quire", "tuning"))).toBe(true);
    expect(read()).toEqual({ matrix: points });
    expect(read({ ...INFO, driver: "1.3" })).toBeUndefined();
    expect(warnings).toEqual([]);
  });

  test("keeps the families that a later tuning lacks", () => {
    writeTuning({ matrix: points }, INFO, TILE_FAMILIES);
    writeTuning({ registers: [] }, INFO, TILE_FAMILIES);
    expect(read()).toEqual({ matrix: points, registers: [] });
  });

  test("tells in one line what it ignores, and how to have it again", () => {
    writeFileSync(writeTuning({ matrix: points }, INFO, TILE_FAMILIES), "damaged");
    expect(read()).toBeUndefined();
    expect(warnings).toEqual([
      `tuning ignored: ${tuningPath(INFO)}: it is no JSON; run "quire bench shaders --tune" again`,
    ]);
  });

  test("is ignored when a shader has changed since", () => {
    const path = writeTuning({ matrix: points }, INFO, TILE_FAMILIES);
    const { kernels } = tuningFor(INFO, TILE_FAMILIES).families.matrix!;
    writeFileSync(path, readFileSync(path, "utf8").replace(kernels, "0".repeat(16)));
    expect(read()).toBeUndefined();
    expect(warnings[0]).toContain("matrix: its shaders have changed since");
  });

  test("that cannot be written to says what to do, and leaves nothing behind", () => {
    writeFileSync(join(folder, "file"), "");
    vi.stubEnv("QUIRE_CACHE", join(folder, "file"));
    expect(() => writeTuning({ matrix: points }, INFO, TILE_FAMILIES)).toThrow(BadInput);
    expect(() => writeTuning({ matrix: points }, INFO, TILE_FAMILIES)).toThrow(/set QUIRE_CACHE/);
    expect(existsSync(join(folder, "quire"))).toBe(false);
  });

  test("every family has tiles to choose from", () => {
    for (const [name, { tiles }] of Object.entries(TILE_FAMILIES))
      expect(shadersNamed(tiles).length, name).toBeGreaterThan(1);
  });
});
