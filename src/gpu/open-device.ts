import { type AdapterChoice, type AdapterInfo, type GpuProfile, openAdapter } from "./adapter.ts";

export interface OpenOptions {
  /** Which adapter: see AdapterChoice. Default "auto". */
  readonly adapter?: AdapterChoice;
  /** Dawn's toggles. Default "safe". */
  readonly profile?: GpuProfile;
  /** Bytes of GPU memory that may be taken at once. Default: no limit. */
  readonly memoryBudget?: number;
  /** "portable" keeps to kernels that need no optional feature. Default "auto". */
  readonly kernels?: "auto" | "portable";
  /** "default" keeps WebGPU's guaranteed limits instead of the adapter's own. For tests. */
  readonly limits?: "adapter" | "default";
  /** Sizes of kernels for a GPU, or for a CPU that plays GPU. Default: what the adapter is. For tests of the other. */
  readonly forms?: "gpu" | "software";
  /** Dawn's null backend: for fault tests alone, it computes nothing. */
  readonly backend?: "null";
}

/** Asked for where the adapter has them; which kernels run depends on it. */
const WANTED_FEATURES = [
  "shader-f16",
  "subgroups",
  "timestamp-query",
  "chromium-experimental-subgroup-matrix",
];

/** WebGPU gives the guaranteed minimum unless a limit is asked for by name; these are the ones that bound us. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** A device and what was found out on the way to it. */
export interface OpenedDevice {
  readonly device: GPUDevice;
  readonly info: AdapterInfo;
  /** What the adapter could give, where the device was opened with less. */
  readonly adapterLimits: GPUSupportedLimits;
}

/** Open an adapter and a device on it. Throws NoAdapter when there is none that fits. */
export async function openDevice(options: OpenOptions): Promise<OpenedDevice> {
  const { adapter, info } = await openAdapter(
    options.adapter ?? "auto",
    options.profile ?? "safe",
    options.backend,
  );
  const requiredLimits: Record<string, number> = {};
  if (options.limits !== "default")
    for (const name of WANTED_LIMITS) requiredLimits[name] = adapter.limits[name];
  const device = await adapter.requestDevice({
    requiredFeatures: WANTED_FEATURES.filter((f) => adapter.features.has(f)) as GPUFeatureName[],
    requiredLimits,
  });
  return { device, info, adapterLimits: adapter.limits };
}
