import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const PROJECT = fileURLToPath(new URL("../", import.meta.url));
const read = (path: string): string => readFileSync(PROJECT + path, "utf8");
const exists = (path: string): boolean => existsSync(PROJECT + path);

/** Files under a folder, as paths from the project's root, sorted. */
function filesIn(folder: string, ending: string): string[] {
  return readdirSync(PROJECT + folder, { recursive: true, encoding: "utf8" })
    .map((name) => `${folder}/${name.replaceAll("\\", "/")}`)
    .filter((path) => path.endsWith(ending))
    .sort();
}

const SOURCES = filesIn("src", ".ts");

/** Imports nothing of WebGPU and may be imported by all. */
const PURE =
  /^src\/(?:(?:check|packages|folders|half|quantize|hub|tokenizer)\.ts|(?:formats|hub|tokenizer)\/.*|kv\/(?:(?:page|prefix|strip)-.*|kv-space\.ts)|generate\/(?:sampler|sequence|random|stop-strings|logit-filters|scheduler.*|request.*|beam-.*|step-plan|engine-types|engine-metrics)\.ts|model\/config\.ts)$/;

/** From the lowest up; a module imports from its own layer and from those below. */
const LAYERS = [
  ["gpu", /^src\/gpu\//],
  ["tensor", /^src\/tensor\.ts$/],
  ["ops", /^src\/ops\//],
  ["kv caches", /^src\/kv\//],
  ["model", /^src\/model\//],
  ["generate", /^src\/generate\//],
  ["bench", /^src\/bench\//],
  ["cli and public names", /^src\/(?:cli\/|index\.ts$)/],
] as const;

/** 0 for pure modules, else the place in LAYERS from 1 on; -1 for a file that has no layer. */
function rank(path: string): number {
  if (PURE.test(path)) return 0;
  const index = LAYERS.findIndex(([, pattern]) => pattern.test(path));
  return index < 0 ? -1 : index + 1;
}

/** Modules that a source names: imports and re-exports, of types too, and dynamic imports. */
function importsOf(source: string): string[] {
  return [...source.matchAll(/\b(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((m) => m[1]!);
}

/** What is wrong with the imports of one file. */
function wrongImports(path: string, source: string): string[] {
  return importsOf(source)
    .filter((name) => name.startsWith("."))
    .map((name) => posix.join(posix.dirname(path), name))
    .filter((target) => rank(target) > rank(path))
    .map((target) => `${path} may not import ${target}`);
}

describe("layers", () => {
  test("every source file has one", () => {
    expect(SOURCES.filter((path) => rank(path) < 0)).toEqual([]);
    expect(SOURCES.length).toBeGreaterThan(50);
  });

  test("imports go down only, and pure modules import pure ones", () => {
    expect(SOURCES.flatMap((path) => wrongImports(path, read(path)))).toEqual([]);
  });

  test("every import of a file names one that is there", () => {
    const missing = SOURCES.flatMap((path) =>
      importsOf(read(path))
        .filter((name) => name.startsWith("."))
        .map((name) => posix.join(posix.dirname(path), name))
        .filter((target) => !exists(target))
        .map((target) => `${path} imports ${target}, which is not there`),
    );
    expect(missing).toEqual([]);
  });

  test("a wrong import is seen, whatever its form, and told in one line", () => {
    const wrong = [
      'import { Gpt2 } from "../model/gpt2.ts";',
      'import type { Gpt2 } from "../model/gpt2.ts";',
      'export * from "../model/gpt2.ts";',
      'const { Gpt2 } = await import("../model/gpt2.ts");',
      'import {\n  Gpt2,\n} from "../model/gpt2.ts";',
    ];
    for (const line of wrong)
      expect(wrongImports("src/ops/gelu.ts", line)).toEqual([
        "src/ops/gelu.ts may not import src/model/gpt2.ts",
      ]);
    expect(wrongImports("src/kv/page-table.ts", 'import { Tensor } from "../tensor.ts";')).toEqual([
      "src/kv/page-table.ts may not import src/tensor.ts",
    ]);
    expect(wrongImports("src/model/gpt2.ts", 'import { gelu } from "../ops/gelu.ts";')).toEqual([]);
    expect(wrongImports("src/gpu/kernel.ts", 'import { check } from "../check.ts";')).toEqual([]);
  });

  test("WebGPU is known to src/gpu alone: its package, and every name that begins with GPU", () => {
    const others = SOURCES.filter((path) => !path.startsWith("src/gpu/"));
    const names = others.flatMap((path) =>
      [...read(path).matchAll(/\bGPU[A-Z]\w*/g)].map(([name]) => `${path} says ${name}`),
    );
    expect(names).toEqual([]);
    expect(others.filter((path) => importsOf(read(path)).includes("webgpu"))).toEqual([]);
    expect(importsOf(read("src/gpu/adapter.ts"))).toContain("webgpu");
  });
});

describe("kernels", () => {
  const shaders = filesIn("shaders", ".wgsl")
    .map((path) => posix.basename(path, ".wgsl"))
    .sort();
  const code = (name: string) => read(`shaders/${name}.wgsl`).replace(/\/\/[^\n]*/g, "");
  const isKernel = (name: string) => /@compute\b/.test(code(name));
  const kernels = shaders.filter(isKernel);
  const parts = shaders.filter((name) => !isKernel(name));
  /** Another form of the same op: for adapters with an optional feature, or another rung of matmul's ladder. */
  const VARIANT = /-(?:subgroup|subgroup-matrix)$|(?<=^matmul)-(?:naive|tiles|registers)$/;
  const ops = kernels.filter((name) => !VARIANT.test(name));
  const stems = (folder: string, ending: string) =>
    filesIn(folder, ending).map((p) => posix.basename(p, ending));
  const offered = (name: string): string[] =>
    [...read(`shaders/${name}.wgsl`).matchAll(/^\/\/ with (.+)$/gm)].flatMap((m) =>
      m[1]!.split("|").map((part) => part.trim().replace(/\.wgsl$/, "")),
    );

  test("lie flat in shaders/", () => {
    expect(filesIn("shaders", "").filter((path) => path.split("/").length > 2)).toEqual([]);
  });

  test.each(ops)("%s has a shader, an op that runs it and a test", (name) => {
    expect(exists(`src/ops/${name}.ts`), `src/ops/${name}.ts`).toBe(true);
    expect(read(`src/ops/${name}.ts`)).toContain(`new Kernel("${name}")`);
    expect(exists(`test/ops/${name}.test.ts`), `test/ops/${name}.test.ts`).toBe(true);
  });

  test("every variant belongs to an op, which runs it", () => {
    for (const variant of kernels.filter((name) => VARIANT.test(name))) {
      const op = variant.replace(VARIANT, "");
      expect(ops).toContain(op);
      expect(read(`src/ops/${op}.ts`)).toContain(`new Kernel("${variant}")`);
    }
  });

  test("every op that runs a kernel runs its own, and every test of an op is of one", () => {
    const running = filesIn("src/ops", ".ts").filter((path) => read(path).includes("new Kernel("));
    expect(running.map((path) => posix.basename(path, ".ts")).sort()).toEqual(ops);
    for (const path of running)
      for (const [, name] of read(path).matchAll(/new Kernel\("([^"]+)"\)/g))
        expect(name!.replace(VARIANT, "")).toBe(posix.basename(path, ".ts"));
    expect(stems("test/ops", ".test.ts").sort()).toEqual(ops);
  });

  test("every part is named by a kernel, and what is named is a part", () => {
    const named = new Set(kernels.flatMap(offered));
    expect([...named].sort()).toEqual(parts);
  });

  test.each(kernels)("%s: bindings in group 0 only, at most 8 storage buffers", (name) => {
    const text = [...offered(name), name].map(code).join("\n");
    const groups = [...text.matchAll(/@group\(\s*(\w+)\s*\)/g)].map((m) => m[1]);
    expect(new Set(groups)).toEqual(new Set(["0"]));
    expect([...text.matchAll(/var<\s*storage\b/g)].length).toBeLessThanOrEqual(8);
  });
});

describe("the lesson: paged attention is attention with another address", () => {
  /** WGSL without comments, one space for any white space. */
  const plain = (name: string) =>
    read(`shaders/${name}.wgsl`)
      .replace(/\/\/[^\n]*/g, "")
      .replace(/\s+/g, " ");
  const without = (text: string, ...pieces: RegExp[]) =>
    pieces.reduce((rest, piece) => {
      expect(rest.match(piece), `${piece}`).toHaveLength(1);
      return rest.replace(piece, "");
    }, text);
  const SLOT_OF = /fn slot_of\(sequence: u32, position: u32\) -> u32 \{[^}]*\} /g;

  test("the shaders differ in slot_of, its binding and its two params, and in nothing else", () => {
    const dense = without(
      plain("attention"),
      SLOT_OF,
      /@group\(0\) @binding\(4\) var<storage, read> strip_starts: array<u32>; /g,
    );
    const paged = without(
      plain("paged-attention"),
      SLOT_OF,
      /@group\(0\) @binding\(4\) var<storage, read> page_table: array<u32>; /g,
      /page_size: u32, /g,
      /table_width: u32, /g,
    );
    expect(paged).toBe(dense);
    expect(paged).not.toMatch(/page|table|strip/);
  });
});

describe("the tree", () => {
  const AGREED = [
    ...["package.json", "src", "shaders", "weights", "test", "tsconfig.json", "README.md", "docs"],
    ...["LICENSE", "package-lock.json", "tsconfig.build.json", "biome.json", "vitest.config.ts"],
  ];
  /** Made by installing, building and running; git ignores them. */
  const MADE = /^(?:node_modules|dist|results|.*\.tgz)$/;

  test("the top level has what was agreed, and nothing else but dot files", () => {
    // What git tracks: a user's own files beside it are nobody's business.
    const tracked = execFileSync("git", ["-C", PROJECT, "ls-tree", "--name-only", "HEAD"], {
      encoding: "utf8",
    });
    const found = tracked.split("\n").filter((name) => name && !name.startsWith(".") && !MADE.test(name));
    expect(found.sort()).toEqual(AGREED.sort());
  });

  test("no source file has over 300 lines, no shader over 200", () => {
    const long = (paths: readonly string[], most: number) =>
      paths
        .map((path) => [path, read(path).split("\n").length - 1] as const)
        .filter(([, lines]) => lines > most);
    expect(long(SOURCES, 300)).toEqual([]);
    expect(long(filesIn("shaders", ".wgsl"), 200)).toEqual([]);
  });

  test("file names are kebab-case", () => {
    const names = [...SOURCES, ...filesIn("shaders", ".wgsl")].map((path) => posix.basename(path));
    expect(names.filter((name) => !/^[a-z0-9]+(?:-[a-z0-9]+)*\.(?:ts|wgsl)$/.test(name))).toEqual([]);
  });
});

describe("package-lock.json", () => {
  interface Entry {
    readonly resolved?: string;
    readonly optionalDependencies?: Record<string, string>;
  }
  const lock = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url), "utf8")) as {
    packages: Record<string, Entry>;
  };

  // npm ci refuses a lock that lacks one, and npm install leaves out those that the registry at hand does not have.
  test("has every platform's package of every optional dependency", () => {
    const missing = Object.entries(lock.packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) => !lock.packages[`${path}/node_modules/${name}`] && !lock.packages[`node_modules/${name}`],
      ),
    );
    expect(missing).toEqual([]);
  });

  test("names no registry", () => {
    expect(Object.values(lock.packages).filter((entry) => entry.resolved?.startsWith("http"))).toEqual([]);
  });
});
