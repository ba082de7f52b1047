import { readFileSync } from "node:fs";
import { check } from "../check.ts";

/** One `@group(0) @binding(n) var…` line. */
export interface Binding {
  readonly name: string;
  readonly index: number;
  readonly access: "uniform" | "read" | "read_write";
  /** What its elements are: a tensor of another dtype would be read as nonsense. Undefined for the params. */
  readonly element: "f32" | "f16" | "i8" | "u32" | undefined;
}

/** One scalar member of `struct Params`; every member takes 4 bytes. */
export interface Param {
  readonly name: string;
  readonly type: "u32" | "i32" | "f32";
}

/** What a kernel's source declares. The host obeys it; nothing is stated twice. */
export interface KernelSource {
  readonly name: string;
  /** Parts in front of the kernel, then the kernel itself: what the WGSL compiler sees. */
  readonly code: string;
  /** File and first line of each piece of `code`, to give compile errors their place. */
  readonly pieces: readonly { readonly file: string; readonly firstLine: number }[];
  readonly bindings: readonly Binding[];
  readonly params: readonly Param[];
  readonly overrides: readonly string[];
  readonly features: readonly string[];
}

const SHADERS = new URL("../../shaders/", import.meta.url);
const BINDING = /@group\((\d+)\)\s*@binding\((\d+)\)\s*var<([^>]*)>\s*(\w+)\s*:\s*([^;]*);/g;
/** Storage of four elements, as the storage parts define it: Packed4, and other names in kernels that have two of them. */
const PACKED = /alias\s+(\w+)\s*=\s*(\w+)\s*;/g;
const PARAMS = /struct\s+Params\s*\{([^}]*)\}/;
/** WGSL extensions that the API calls something else. */
const FEATURES: Readonly<Record<string, string>> = {
  f16: "shader-f16",
  chromium_experimental_subgroup_matrix: "chromium-experimental-subgroup-matrix",
};
const ENABLE = /^enable [^;]*;$/gm;
const WITH = /^\/\/ with (.+)$/gm;

/** The text of shaders/<name>.wgsl. Throws when there is no such file. */
export function readShader(name: string): string {
  check(/^[a-z0-9-]+$/.test(name), `"${name}" is not a shader's name: wanted the stem of a file in shaders/`);
  return readFileSync(new URL(`${name}.wgsl`, SHADERS), "utf8");
}

/** WGSL without comments, so that declarations can be found by pattern. Line breaks stay. */
function stripComments(code: string): string {
  return code.replace(/\/\*[\s\S]*?\*\//g, (c) => c.replace(/[^\n]/g, " ")).replace(/\/\/[^\n]*/g, "");
}

/**
 * Read a kernel and put its parts in front.
 *
 * A kernel names its parts in comment lines: `// with storage-f32.wgsl | storage-f16.wgsl` means that one of the two goes
 * in front; the first is the default, and `parts` chooses another. Throws when `parts` names what no line offers.
 */
export function loadKernel(name: string, parts: readonly string[] = [], read = readShader): KernelSource {
  const body = read(name);
  const chosen: string[] = [];
  for (const [, line] of body.matchAll(WITH)) {
    const offered = line!.split("|").map((s) => s.trim().replace(/\.wgsl$/, ""));
    chosen.push(parts.find((p) => offered.includes(p)) ?? offered[0]!);
  }
  for (const p of parts)
    check(
      chosen.includes(p),
      `kernel ${name}: no "// with" line offers the part ${p}; it has ${chosen.join(", ") || "none"}`,
    );

  const pieces: { file: string; firstLine: number }[] = [];
  const texts = [...chosen, name].map((piece) => ({ piece, text: piece === name ? body : read(piece) }));
  // WGSL wants its directives before everything else, so those of all pieces come first; an empty line takes their place.
  const directives = texts.flatMap(({ text }) => text.match(ENABLE) ?? []);
  let code = directives.map((line) => `${line}\n`).join("");
  for (const { piece, text } of texts) {
    pieces.push({ file: `shaders/${piece}.wgsl`, firstLine: code.split("\n").length });
    code += `${text.replace(ENABLE, "")}\n`;
  }
  return { name, code, pieces, ...parseKernel(name, code) };
}

/** Find bindings, params, overrides and required features in WGSL. Throws with the kernel's name on what it cannot use. */
export function parseKernel(
  name: string,
  code: string,
): Pick<KernelSource, "bindings" | "params" | "overrides" | "features"> {
  const text = stripComments(code);
  check(/@compute[\s\S]*?fn\s+main\s*\(/.test(text), `kernel ${name}: no compute entry point "main"`);
  const packed = new Map([...text.matchAll(PACKED)].map(([, alias, type]) => [alias!, type!]));
  const bindings = [...text.matchAll(BINDING)].map(([, group, index, space, variable, type]): Binding => {
    check(group === "0", `kernel ${name}: binding ${variable} is in group ${group}; only group 0 is used`);
    const [kind, access = "read"] = space!.split(",").map((s) => s.trim());
    check(
      kind === "uniform" || kind === "storage",
      `kernel ${name}: ${variable} is var<${space}>; wanted uniform or storage`,
    );
    check(
      kind === "uniform" || access === "read" || access === "read_write",
      `kernel ${name}: ${variable} has access ${access}`,
    );
    return {
      name: variable!,
      index: Number(index),
      access: kind === "uniform" ? "uniform" : (access as "read" | "read_write"),
      element: kind === "uniform" ? undefined : elementOf(name, variable!, type!, packed),
    };
  });
  bindings.forEach((b, i) => {
    check(
      b.index === i,
      `kernel ${name}: ${b.name} has binding ${b.index}, expected ${i}: number them in order, without gaps`,
    );
    check(
      b.access !== "uniform" || (b.name === "params" && i === 0),
      `kernel ${name}: the only uniform is params, at binding 0`,
    );
  });
  const storage = bindings.filter((b) => b.access !== "uniform").length;
  check(storage <= 8, `kernel ${name}: ${storage} storage buffers; WebGPU guarantees 8`);

  const struct = text.match(PARAMS)?.[1] ?? "";
  const params = struct
    .split(",")
    .map((s) => s.trim())
    .filter(Boolean)
    .map((member): Param => {
      const [field, type] = member.split(":").map((s) => s.trim());
      check(
        type === "u32" || type === "i32" || type === "f32",
        `kernel ${name}: Params.${field} is ${type}; wanted u32, i32 or f32`,
      );
      return { name: field!, type };
    });
  check(
    params.length > 0 === (bindings[0]?.access === "uniform"),
    `kernel ${name}: struct Params and its binding go together`,
  );
  const overrides = [...text.matchAll(/\boverride\s+(\w+)/g)].map((m) => m[1]!);
  const features = [...text.matchAll(/\benable\s+([\w\s,]+);/g)]
    .flatMap((m) => m[1]!.split(",").map((s) => s.trim()))
    // WGSL and the API have different names for some extensions.
    .map((extension) => FEATURES[extension] ?? extension);
  return { bindings, params, overrides, features };
}

/** The dtype of the tensors that fit `array<…>`. Throws on a type that no tensor has. */
function elementOf(
  kernel: string,
  variable: string,
  type: string,
  aliases: ReadonlyMap<string, string>,
): "f32" | "f16" | "i8" | "u32" {
  const inner = type.trim().match(/^array<\s*(\w+)\s*>$/)?.[1] ?? "";
  let stored = aliases.get(inner);
  while (stored && aliases.has(stored)) stored = aliases.get(stored);
  if (inner === "f32" || inner === "vec4f" || stored === "vec4f") return "f32";
  if (inner === "u32") return "u32";
  if (stored === "vec2u" || stored === "vec4u") return "f16";
  if (stored === "u32") return "i8";
  check(
    false,
    `kernel ${kernel}: ${variable} is ${type.trim()}; wanted array<f32>, <vec4f>, <u32> or <Packed4>`,
  );
}

/** Params as bytes, in the order of the struct, padded to 16. Throws on a missing, extra or non-finite value. */
export function packParams(source: KernelSource, values: Readonly<Record<string, number>>): ArrayBuffer {
  const buffer = new ArrayBuffer(Math.ceil(source.params.length / 4) * 16);
  const view = new DataView(buffer);
  source.params.forEach(({ name, type }, i) => {
    const value = values[name];
    check(value !== undefined, `kernel ${source.name}: param ${name} is missing`);
    const ok =
      type === "f32"
        ? Number.isFinite(value)
        : type === "u32"
          ? value === value >>> 0
          : value === (value | 0);
    check(ok, `kernel ${source.name}: param ${name} is ${value}, wanted ${type}`);
    if (type === "f32") view.setFloat32(i * 4, value, true);
    else view.setInt32(i * 4, value, true);
  });
  for (const name of Object.keys(values))
    check(
      source.params.some((p) => p.name === name),
      `kernel ${source.name}: has no param ${name}`,
    );
  return buffer;
}

/** `shaders/softmax.wgsl:23` for a line of the assembled code. */
export function placeOf(source: KernelSource, line: number): string {
  const piece = [...source.pieces].reverse().find((p) => line >= p.firstLine);
  // Before the first piece stand the directives, each of which is a line of the kernel or of a part.
  if (!piece) return `shaders/${source.name}.wgsl: ${source.code.split("\n")[line - 1]}`;
  return `${piece.file}:${line - piece.firstLine + 1}`;
}
