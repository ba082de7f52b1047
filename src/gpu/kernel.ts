import { check } from "../check.ts";
import type { Gpu } from "./gpu.ts";
import type { BufferRange, Work } from "./recording.ts";
import { type KernelSource, loadKernel, packParams } from "./wgsl.ts";

export interface RunOptions {
  /** Parts that go in front of the kernel instead of the first one each `// with` line names. */
  readonly parts?: readonly string[];
  /** Values for the kernel's `override` constants. */
  readonly constants?: Readonly<Record<string, number>>;
  /** What the launch moves and computes, for the profile; asked for only then. */
  readonly work?: () => Work;
}

/** One WGSL file, compiled once for each choice of parts and constants, called by the names it declares. */
export class Kernel {
  readonly name: string;
  private readonly sources = new Map<string, KernelSource>();

  constructor(name: string) {
    this.name = name;
  }

  /** The kernel with the chosen parts in front. */
  source(parts: readonly string[] = []): KernelSource {
    const key = parts.join();
    let source = this.sources.get(key);
    if (!source) {
      source = loadKernel(this.name, parts);
      this.sources.set(key, source);
    }
    return source;
  }

  /**
   * Add this kernel to the Gpu's recording.
   *
   * `buffers` has one entry for each storage binding and `params` one for each member of Params, both by the names in the
   * WGSL. `workgroups` is [x], [x, y] or [x, y, z]. Throws on a missing or unknown name.
   */
  run(
    gpu: Gpu,
    buffers: Readonly<Record<string, BufferRange>>,
    params: Readonly<Record<string, number>>,
    workgroups: readonly number[],
    { parts = [], constants = {}, work }: RunOptions = {},
  ): void {
    const source = this.source(parts);
    const ranges: BufferRange[] = [];
    for (const binding of source.bindings) {
      if (binding.access === "uniform") continue;
      const range = buffers[binding.name];
      check(range, () => `kernel ${this.name}: buffer ${binding.name} is missing`);
      check(
        range.dtype === undefined || range.dtype === binding.element,
        () => `kernel ${this.name}: ${binding.name} is ${range.dtype}; the shader's is ${binding.element}`,
      );
      ranges.push(range);
    }
    for (const name of Object.keys(buffers))
      check(
        source.bindings.some((b) => b.name === name),
        () => `kernel ${this.name}: has no buffer ${name}`,
      );
    for (const name of Object.keys(constants))
      check(source.overrides.includes(name), () => `kernel ${this.name}: has no override ${name}`);
    const key = `${this.name} ${parts.join()} ${JSON.stringify(constants)}`;
    const compiled = gpu.compile(source, key, constants);
    const bytes = source.params.length > 0 ? packParams(source, params) : undefined;
    const [x, y = 1, z = 1] = workgroups;
    gpu.dispatch(this.name, compiled, bytes, ranges, [x!, y, z], work);
  }
}

/** The most workgroups that WebGPU guarantees along one dimension of a dispatch. */
const MAX_WORKGROUPS = 65_535;

/** Workgroups [x, y] with x · y ≥ `count`, for kernels that number them y · grid.x + x. */
export function foldWorkgroups(count: number): [number, number] {
  const y = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / y), y];
}
