import { GpuError, NoAdapter } from "./errors.ts";
import type { LateErrors } from "./late-errors.ts";
import { type KernelSource, placeOf } from "./wgsl.ts";

/** A compute pipeline and the layout its bind groups have. */
export interface CompiledKernel {
  readonly id: number;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Every kernel that a device has compiled, once for each choice of parts and constants. */
export class Pipelines {
  private readonly device: GPUDevice;
  private readonly errors: LateErrors;
  /** The adapter's name, for messages. */
  private readonly adapter: string;
  private readonly compiled = new Map<string, CompiledKernel>();

  constructor(device: GPUDevice, errors: LateErrors, adapter: string) {
    this.device = device;
    this.errors = errors;
    this.adapter = adapter;
  }

  /** The pipeline under `key`. A mistake in the WGSL comes late, with the file and line of each error. */
  compile(source: KernelSource, key: string, constants: Readonly<Record<string, number>>): CompiledKernel {
    const known = this.compiled.get(key);
    if (known) return known;
    this.errors.throwIfFailed();
    for (const feature of source.features)
      if (!this.device.features.has(feature))
        throw new NoAdapter(`FEATURE: kernel ${source.name} needs ${feature}, which ${this.adapter} lacks`);
    const layout = this.device.createBindGroupLayout({
      label: source.name,
      entries: source.bindings.map((b) => ({
        binding: b.index,
        visibility: 4, // GPUShaderStage.COMPUTE
        buffer: {
          type: b.access === "uniform" ? "uniform" : b.access === "read" ? "read-only-storage" : "storage",
        },
      })),
    });
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ label: source.name, code: source.code });
    const pipeline = this.device.createComputePipeline({
      label: source.name,
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main", constants: { ...constants } },
    });
    this.errors.expectNone(this.device.popErrorScope(), async (error) => {
      const info = await module.getCompilationInfo();
      const lines = info.messages
        .filter((m) => m.type === "error")
        .map((m) => `${placeOf(source, m.lineNum)}: ${m.message}`);
      return new GpuError(lines.join("\n") || `kernel ${source.name}: ${error.message}`);
    });
    const compiled = { id: this.compiled.size, pipeline, layout };
    this.compiled.set(key, compiled);
    return compiled;
  }

  clear(): void {
    this.compiled.clear();
  }
}
