import { describe, expect, test, vi } from "vitest";
import { SHAPES, type ShaderCase } from "../../src/bench/shader-case.ts";
import { addCase, headCase, shaderCases } from "../../src/bench/shader-cases.ts";
import { checkResult, sampledIndices, toleranceOf } from "../../src/bench/shader-check.ts";
import { ShaderInputs } from "../../src/bench/shader-inputs.ts";
import { shadersText } from "../../src/bench/shader-table.ts";
import { benchShaders, nameOf } from "../../src/bench/shaders.ts";
import { BadInput } from "../../src/check.ts";
import { MATMUL_TIERS } from "../../src/ops/matmul.ts";
import { Tensor } from "../../src/tensor.ts";
import { expectLedgerUnchanged, openTestGpu } from "../gpu-fixture.ts";

const gpu = await openTestGpu();

/** A case that expects something else than its kernel gives. */
const broken: ShaderCase = {
  ...addCase(4, 64),
  kernel: "broken",
  prepare(inputs) {
    const prepared = addCase(4, 64).prepare(inputs);
    return { ...prepared, expected: [(index) => prepared.expected[0]!(index) + (index === 0 ? 0.5 : 0)] };
  },
};

describe("bench shaders", () => {
  test("every kernel and variant agrees with the reference and is timed", async () => {
    const names: string[] = [];
    const results = await benchShaders(gpu, {
      shape: "tiny",
      repeat: 1,
      onProgress: (_done, _total, name) => names.push(name),
    });
    const cases = shaderCases(SHAPES.tiny).filter((c) => c.suits?.(gpu) ?? true);
    expect(results.cases.filter((c) => !c.ok)).toEqual([]);
    expect(results.ok).toBe(true);
    expect(results.cases.map(nameOf)).toEqual(cases.map(nameOf));
    expect(names).toEqual(["peaks", ...cases.map(nameOf), "done"]);
    for (const { timing, check } of results.cases) {
      expect(timing!.seconds).toBeGreaterThan(0);
      expect(timing!.bytesPerSecond).toBeGreaterThan(0);
      expect(timing!.shareOfPeak).toBeGreaterThan(0);
      expect(check.compared).toBeGreaterThan(0);
    }
    expect(JSON.parse(JSON.stringify(results))).toEqual(results);
    const text = shadersText(results);
    expect(text).toContain(`Cases that agree with the reference: ${cases.length} of ${cases.length}.`);
    for (const { kernel, shape } of cases) expect(text).toMatch(new RegExp(`${kernel}.*${shape}`));
  });

  test("the cases have names of their own and cover every kernel", async () => {
    const cases = shaderCases(SHAPES["124m"]);
    expect(new Set(cases.map(nameOf)).size).toBe(cases.length);
    expect([...new Set(cases.map((c) => c.kernel))].sort()).toEqual(
      [
        [
          "add",
          "argmax",
          "attention",
          "decode-attention",
          "embedding",
          "flash-attention",
          "gather-rows",
          "gelu",
        ],
        ["kv-write"],
        ["layernorm", "matmul", "matmul-transposed", "matvec", "merge-attention", "merge-matvec"],
        ["norm-head", "norm-matvec", "norm-qkv", "paged-attention", "softmax"],
      ].flat(),
    );
    expect(cases.map(nameOf)).toContain("matmul-transposed f16 head 16×768×50257");
    for (const tier of MATMUL_TIERS)
      expect(cases.some((c) => c.kernel === "matmul" && c.variant.startsWith(tier))).toBe(true);
    expect(cases.map(nameOf)).toContain("matmul matrix, f16 square 4096×4096×4096");
    for (const kernel of ["embedding", "matmul", "matvec", "matmul-transposed"])
      expect(cases.some((c) => c.kernel === kernel && c.variant.startsWith("int8"))).toBe(true);
  });

  test("a case that fails its check is reported, not timed, and does not stop the others", async () => {
    const results = await benchShaders(gpu, { shape: "tiny", repeat: 1, cases: [broken, addCase(4, 64)] });
    expect(results.ok).toBe(false);
    const [failed, passed] = results.cases;
    expect(failed).toMatchObject({ kernel: "broken", ok: false, timing: null });
    expect(failed!.failure).toMatch(/^element 0 of 256 is .*: error 5\.0e-1, allowed 1\.0e-6; NMSE/);
    expect(passed).toMatchObject({ kernel: "add", ok: true });
    expect(shadersText(results)).toMatch(
      /broken .* FAILED [\s\S]*FAILED: 1 of 2 cases\nbroken f32 4×64: element 0/,
    );
  });

  test("a case that keeps memory is reported", async () => {
    const kept: Tensor[] = [];
    const leaking: ShaderCase = {
      ...addCase(4, 64),
      prepare(inputs) {
        if (kept.length === 0) kept.push(Tensor.empty(gpu, [64]));
        return addCase(4, 64).prepare(inputs);
      },
    };
    const results = await benchShaders(gpu, { shape: "tiny", repeat: 1, cases: [leaking] });
    expect(results.cases[0]).toMatchObject({
      ok: false,
      failure: "256 bytes of GPU memory were not given back",
    });
    for (const tensor of kept) tensor.free();
  });

  test("inputs rotate through several sets, until so many bytes were read", async () => {
    const results = await benchShaders(gpu, {
      shape: "tiny",
      filter: "decode f16",
      repeat: 1,
      rotateBytes: 1e6,
    });
    expect(results.ok).toBe(true);
    const sets = results.cases.map((c) => c.timing!.inputSets);
    expect(Math.min(...sets)).toBeGreaterThan(1);
    expect(results.cases.every((c) => c.timing!.callsPerPass % c.timing!.inputSets === 0)).toBe(true);
    expect(results.cases.every((c) => c.timing!.cold)).toBe(true);
  });

  test("without timestamp-query the wall clock is used, and the text says so", async () => {
    const features = gpu.features;
    Object.assign(gpu, { features: new Set([...features].filter((f) => f !== "timestamp-query")) });
    try {
      const results = await benchShaders(gpu, { shape: "tiny", filter: "add", repeat: 1 });
      expect(results.cases[0]!.timing).toMatchObject({ method: "wall-clock" });
      expect(shadersText(results)).toContain("wall clock of the host");
    } finally {
      Object.assign(gpu, { features });
    }
  });

  test("a filter keeps the cases that hold all its words, and refuses one that fits none", async () => {
    const { cases } = await benchShaders(gpu, { shape: "tiny", filter: "GELU erf", repeat: 1 });
    expect(cases.map(nameOf)).toEqual(["gelu f32, erf 64×768"]);
    await expect(benchShaders(gpu, { shape: "tiny", filter: "conv2d" })).rejects.toThrow(BadInput);
    await expect(benchShaders(gpu, { shape: "tiny", filter: "conv2d" })).rejects.toThrow(
      /^--filter is "conv2d"; it fits no case\. Kernels: embedding, layernorm, /,
    );
  });

  test("gives back what it takes, also when a case throws", async () => {
    await expectLedgerUnchanged(gpu, async () => {
      await benchShaders(gpu, { shape: "tiny", filter: "norm-qkv int8", repeat: 1 });
    });
    const throwing: ShaderCase = {
      ...addCase(4, 64),
      prepare(inputs) {
        inputs.integers([[1]]);
        throw new Error("no inputs");
      },
    };
    await expectLedgerUnchanged(gpu, async () => {
      await expect(benchShaders(gpu, { shape: "tiny", cases: [throwing] })).rejects.toThrow("no inputs");
    });
  });
});

describe("shader inputs", () => {
  test("are split where a binding is small: the head in blocks agrees with the reference", async () => {
    const small = vi.spyOn(gpu, "maxBindingBytes", "get").mockReturnValue(2 ** 18);
    const inputs = new ShaderInputs(gpu, 2 ** 21);
    try {
      const head = headCase(2, 192, 701, "f32");
      const { run, expected } = head.prepare(inputs);
      const [y] = run();
      expect(checkResult(await y!.read(), 2, expected[0]!, head.tolerance).failure).toBeNull();
      expect(inputs.randomTable(701, 192, "f32").table.blocks).toHaveLength(3);
      y!.free();
    } finally {
      small.mockRestore();
      inputs.free();
    }
  });

  test("are what `at` says, with padding of zeros, and the same after release", async () => {
    const inputs = new ShaderInputs(gpu, 2 ** 20);
    const take = async () => {
      const read: Float32Array[] = [];
      for (const [shape, dtype] of [
        [[3, 64], "f32"],
        [[3, 64], "f16"],
        [[3, 64], "i8"],
        [[2, 65], "f32"],
        [[2, 65], "f16"],
      ] as const) {
        const { tensor, at } = inputs.random(shape, dtype);
        const values = await tensor.read();
        expect(values).toEqual(Float32Array.from(values, (_, i) => at(i) * (dtype === "i8" ? 127 : 1)));
        read.push(values);
      }
      inputs.release();
      return read;
    };
    try {
      expect(await take()).toEqual(await take());
    } finally {
      inputs.free();
    }
  });
});

describe("check of a result", () => {
  const tolerance = toleranceOf("add");
  const ones = () => 1;

  test("finds a NaN anywhere, also where no element is compared", () => {
    const values = new Float32Array(10_000).fill(1);
    const indices = sampledIndices(values.length, 10);
    const unsampled = values.findIndex((_, i) => !indices.includes(i));
    values[unsampled] = Number.NaN;
    const result = checkResult(values, 10, ones, tolerance);
    expect(result).toMatchObject({ ok: false, failure: `element ${unsampled} of 10000 is NaN` });
  });

  test("compares the corners, and tells an error that is not finite as null", () => {
    for (const corner of [0, 999, 9000, 9999]) {
      const values = new Float32Array(10_000).fill(1);
      values[corner] = Number.POSITIVE_INFINITY;
      expect(checkResult(values, 10, ones, tolerance)).toMatchObject({ ok: false, maxAbs: null, nmse: null });
      values[corner] = 1.25;
      expect(checkResult(values, 10, ones, tolerance)).toMatchObject({ ok: false, maxAbs: 0.25 });
    }
  });

  test("refuses by the mean square error alone", () => {
    const values = new Float32Array(100).fill(1 + 1e-6);
    const loose = { nmse: 1e-14, maxAbs: 1e-3 };
    expect(checkResult(values, 1, ones, loose).ok).toBe(false);
    expect(checkResult(values, 1, ones, { ...loose, nmse: 1e-10 }).ok).toBe(true);
  });
});
