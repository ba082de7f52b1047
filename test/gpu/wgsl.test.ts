import { readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { loadKernel, parseKernel, placeOf, readShader } from "../../src/gpu/wgsl.ts";

const SHADERS = readdirSync(new URL("../../shaders/", import.meta.url))
  .filter((file) => file.endsWith(".wgsl"))
  .map((file) => file.replace(".wgsl", ""))
  .sort();
const KERNELS = SHADERS.filter((name) => readShader(name).includes("@compute"));
const PARTS = SHADERS.filter((name) => !KERNELS.includes(name));

/** Lines of `// with`, each as the parts it offers. */
const offersOf = (name: string) =>
  [...readShader(name).matchAll(/^\/\/ with (.+)$/gm)].map((m) => m[1]!.replaceAll(".wgsl", "").split(" | "));

describe("every file in shaders/", () => {
  test("is a kernel or a part that some kernel takes", () => {
    expect(KERNELS.length).toBeGreaterThan(12);
    const taken = new Set(KERNELS.flatMap(offersOf).flat());
    expect([...taken].sort()).toEqual(PARTS);
  });

  test.each(KERNELS)("%s parses with every choice of its parts", (name) => {
    const offers = offersOf(name);
    const choices = offers.reduce<string[][]>(
      (all, offered) => all.flatMap((chosen) => offered.map((part) => [...chosen, part])),
      [[]],
    );
    for (const parts of choices) {
      const source = loadKernel(name, parts);
      expect(source.name).toBe(name);
      expect(source.pieces.map((p) => p.file)).toEqual([...parts, name].map((p) => `shaders/${p}.wgsl`));
      // A kernel whose sizes are constants of the pipeline has no params.
      const uniforms = source.bindings.filter((b) => b.access === "uniform");
      expect(uniforms.map((b) => `${b.name} at ${b.index}`)).toEqual(
        source.params.length > 0 ? ["params at 0"] : [],
      );
      expect(source.bindings.some((b) => b.access === "read_write")).toBe(true);
      expect(source.params.length + source.overrides.length).toBeGreaterThan(0);
    }
  });

  test.each(PARTS)("%s declares no binding and no entry point: it is only put in front", (name) => {
    expect(readShader(name)).not.toContain("@group");
    expect(() => parseKernel(name, readShader(name))).toThrow(
      `kernel ${name}: no compute entry point "main"`,
    );
  });
});

describe("what is read from a kernel", () => {
  test.each([
    ["array<f32>", "", "f32"],
    ["array<vec4f>", "", "f32"],
    ["array<u32>", "", "u32"],
    ["array<Packed4>", "alias Packed4 = vec4f;", "f32"],
    ["array<Packed4>", "alias Packed4 = vec2u;", "f16"],
    ["array<Packed4>", "alias Packed4 = u32;", "i8"],
    ["array<Keys>", "alias Packed4 = vec4f; alias Keys = Packed4;", "f32"],
    ["array<Keys>", "alias Packed4 = vec2u; alias Keys = vec4u;", "f16"],
  ])("%s with %j holds %s", (type, alias, element) => {
    const code = `${alias} @group(0) @binding(0) var<storage, read> x: ${type}; @compute @workgroup_size(1) fn main() {}`;
    expect(parseKernel("k", code).bindings[0]!.element).toBe(element);
  });

  test("a type that no tensor has is refused", () => {
    const code =
      "@group(0) @binding(0) var<storage, read> x: array<vec2f>; @compute @workgroup_size(1) fn main() {}";
    expect(() => parseKernel("k", code)).toThrow("kernel k: x is array<vec2f>; wanted array<f32>");
  });

  test("softmax: bindings, params and its part", () => {
    const source = loadKernel("softmax");
    expect(source.bindings).toEqual([
      { name: "params", index: 0, access: "uniform", element: undefined },
      { name: "x", index: 1, access: "read", element: "f32" },
      { name: "y", index: 2, access: "read_write", element: "f32" },
    ]);
    expect(source.params).toEqual([
      { name: "rows", type: "u32" },
      { name: "cols", type: "u32" },
      { name: "stride", type: "u32" },
    ]);
    expect(source.pieces.map((p) => p.file)).toEqual(["shaders/reduce.wgsl", "shaders/softmax.wgsl"]);
    expect([source.overrides, source.features]).toEqual([[], []]);
  });

  test("matvec: overrides, and the first part of a line is the default", () => {
    expect(loadKernel("matvec").overrides).toEqual([
      "EPILOGUE",
      "DEPTH",
      "N_QUADS",
      "K_QUADS",
      "COLUMNS",
      "SPLIT",
      "PARTIALS",
      "SHARES",
      "WHOLE_SHARES",
      "ONE_ROUND",
    ]);
    expect(loadKernel("matvec").code).toBe(loadKernel("matvec", ["storage-f32"]).code);
    expect(loadKernel("matvec").code).toContain("alias Packed4 = vec4f;");
    expect(loadKernel("matvec", ["storage-f16"]).code).toContain("alias Packed4 = vec2u;");
  });

  const MAIN = "@compute @workgroup_size(1)\nfn main() {}";

  test("comments declare nothing", () => {
    const parsed = parseKernel(
      "k",
      `// struct Params { a: vec4f }
       /* @group(1) @binding(7) var<storage> ghost: array<f32>;
          enable ghosts; override GHOST: u32; */
       struct Params {
         first: u32, // of many: types
         scale: f32, /* 1/√D */
         shift: i32
       }
       @group(0) @binding(0) var<uniform> params: Params;
       @group(0) @binding(1)
       var<storage> x: array<f32>; // read is the default
       @group(0) @binding(2) var<storage,read_write> y : array<f32>;
       override WIDTH = 4u;
       ${MAIN}`,
    );
    expect(parsed).toEqual({
      bindings: [
        { name: "params", index: 0, access: "uniform", element: undefined },
        { name: "x", index: 1, access: "read", element: "f32" },
        { name: "y", index: 2, access: "read_write", element: "f32" },
      ],
      params: [
        { name: "first", type: "u32" },
        { name: "scale", type: "f32" },
        { name: "shift", type: "i32" },
      ],
      overrides: ["WIDTH"],
      features: [],
    });
  });

  test("a kernel may do without params", () => {
    const parsed = parseKernel("k", `@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n${MAIN}`);
    expect(parsed.params).toEqual([]);
    expect(parsed.bindings).toHaveLength(1);
  });

  test("features that it enables", () => {
    expect(parseKernel("k", `enable subgroups;\n${MAIN}`).features).toEqual(["subgroups"]);
    expect(parseKernel("k", MAIN).features).toEqual([]);
  });

  const storage = (count: number) =>
    Array.from({ length: count }, (_, i) => `@group(0) @binding(${i}) var<storage> x${i}: array<f32>;`).join(
      "\n",
    );

  test("eight storage buffers are as many as there may be", () => {
    expect(parseKernel("k", `${storage(8)}\n${MAIN}`).bindings).toHaveLength(8);
    expect(() => parseKernel("k", `${storage(9)}\n${MAIN}`)).toThrow(
      "kernel k: 9 storage buffers; WebGPU guarantees 8",
    );
  });

  test.each([
    ["fn main() {}", 'kernel k: no compute entry point "main"'],
    ["@compute @workgroup_size(1) fn other() {}", 'kernel k: no compute entry point "main"'],
    [
      `@group(1) @binding(0) var<storage> x: array<f32>;\n${MAIN}`,
      "kernel k: binding x is in group 1; only group 0 is used",
    ],
    [
      `@group(0) @binding(0) var<workgroup> x: array<f32>;\n${MAIN}`,
      "kernel k: x is var<workgroup>; wanted uniform or storage",
    ],
    [`@group(0) @binding(0) var<storage, write> x: array<f32>;\n${MAIN}`, "kernel k: x has access write"],
    [
      `@group(0) @binding(1) var<storage> x: array<f32>;\n${MAIN}`,
      "kernel k: x has binding 1, expected 0: number them in order, without gaps",
    ],
    [
      `struct Params { a: u32 }
       @group(0) @binding(0) var<uniform> params: Params;
       @group(0) @binding(2) var<storage> x: array<f32>;\n${MAIN}`,
      "kernel k: x has binding 2, expected 1: number them in order, without gaps",
    ],
    [
      `struct Params { a: u32 }
       @group(0) @binding(0) var<uniform> settings: Params;\n${MAIN}`,
      "kernel k: the only uniform is params, at binding 0",
    ],
    [
      `struct Params { a: u32 }
       @group(0) @binding(0) var<storage> x: array<f32>;
       @group(0) @binding(1) var<uniform> params: Params;\n${MAIN}`,
      "kernel k: the only uniform is params, at binding 0",
    ],
    [
      `struct Params { size: u32, offset: vec2u }
       @group(0) @binding(0) var<uniform> params: Params;\n${MAIN}`,
      "kernel k: Params.offset is vec2u; wanted u32, i32 or f32",
    ],
    [`struct Params { size: u32 }\n${MAIN}`, "kernel k: struct Params and its binding go together"],
    [
      `@group(0) @binding(0) var<uniform> params: Params;\n${MAIN}`,
      "kernel k: struct Params and its binding go together",
    ],
  ])("refused, case %#", (code, message) => {
    expect(() => parseKernel("k", code)).toThrow(message);
  });
});

describe("parts", () => {
  const files: Record<string, string> = {
    kernel: [
      "// with load-a.wgsl | load-b.wgsl",
      "// with other.wgsl",
      "@compute @workgroup_size(1)",
      "fn main() {}",
      "",
    ].join("\n"),
    "load-a": "const A = 1;\n",
    "load-b": "enable subgroups;\nconst B = 1;\nconst C = 2;\n",
    other: "const OTHER = 3;", // no line break at its end
    alone: "@compute @workgroup_size(1)\nfn main() {}\n",
  };
  const read = (name: string) => files[name]!;

  test("go in front, in the order of the lines", () => {
    const { code, pieces } = loadKernel("kernel", ["load-a"], read);
    expect(code.indexOf("A = 1")).toBeLessThan(code.indexOf("OTHER"));
    expect(code.indexOf("OTHER")).toBeLessThan(code.indexOf("fn main"));
    expect(pieces.map((p) => p.file)).toEqual([
      "shaders/load-a.wgsl",
      "shaders/other.wgsl",
      "shaders/kernel.wgsl",
    ]);
  });

  test("their directives come before everything else", () => {
    const { code, features } = loadKernel("kernel", ["load-b"], read);
    expect(code.startsWith("enable subgroups;\n")).toBe(true);
    expect(code.match(/enable/g)).toHaveLength(1);
    expect(features).toEqual(["subgroups"]);
  });

  test.each([[[]], [["load-a"]], [["load-b"]], [["other", "load-b"]]])(
    "%j: a line of the assembled code is named by its file and its line there",
    (parts) => {
      const source = loadKernel("kernel", parts, read);
      const places = source.code.split("\n").flatMap((text, i) => {
        const [word] = text.match(/A = 1|B = 1|C = 2|OTHER|fn main/) ?? [];
        return word ? [`${word}: ${placeOf(source, i + 1)}`] : [];
      });
      expect(places).toEqual([
        ...(parts.includes("load-b")
          ? ["B = 1: shaders/load-b.wgsl:2", "C = 2: shaders/load-b.wgsl:3"]
          : ["A = 1: shaders/load-a.wgsl:1"]),
        "OTHER: shaders/other.wgsl:1",
        "fn main: shaders/kernel.wgsl:4",
      ]);
    },
  );

  test("every line of every real kernel is found again in the file that it names", () => {
    for (const name of KERNELS) {
      const source = loadKernel(name);
      const lines = source.code.split("\n");
      for (const [i, text] of lines.entries()) {
        if (text.trim() === "" || text.startsWith("enable ")) continue;
        const [, file, line] = placeOf(source, i + 1).match(/^shaders\/(.+)\.wgsl:(\d+)$/)!;
        expect(readShader(file!).split("\n")[Number(line) - 1]).toBe(text);
      }
    }
  });

  test("a part that no line offers is refused, with those in use", () => {
    expect(() => loadKernel("kernel", ["load-c"], read)).toThrow(
      'kernel kernel: no "// with" line offers the part load-c; it has load-a, other',
    );
    expect(() => loadKernel("alone", ["load-a"], read)).toThrow(
      'kernel alone: no "// with" line offers the part load-a; it has none',
    );
    expect(() => loadKernel("kernel", ["load-a", "load-b"], read)).toThrow(
      'no "// with" line offers the part load-b',
    );
  });

  test.each(["../package", "Softmax", "softmax.wgsl", ""])('"%s" is not the name of a shader', (name) => {
    expect(() => readShader(name)).toThrow(
      `"${name}" is not a shader's name: wanted the stem of a file in shaders/`,
    );
  });

  test("a shader that is not there is named by its path", () => {
    expect(() => loadKernel("softmin")).toThrow(/no such file.*shaders\/softmin\.wgsl/);
  });
});
