import process from "node:process";
import { packageVersion } from "../packages.ts";
import { NoAdapter } from "./errors.ts";
import {
  ensureVulkanLoader,
  type Loader,
  softwareAdapterMissing,
  softwareEnvironment,
} from "./software-adapter.ts";
import { findVulkanDrivers } from "./vulkan-drivers.ts";

/** "auto": a GPU if there is one, else the software adapter. "gpu": no software. Anything else: part of an adapter's name. */
export type AdapterChoice = "auto" | "gpu" | "software" | (string & {});

/** "safe" checks everything; "fast" leaves out validation, bounds checks and clearing: for benchmarks of tested kernels. */
export type GpuProfile = "safe" | "fast";

/** What runs the kernels, for people and for result files. */
export interface AdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  /** The name to show. */
  readonly description: string;
  /** The driver with its version, where the runtime tells. */
  readonly driver: string | undefined;
  /** A CPU that plays GPU: correct, slow, no benchmark. */
  readonly software: boolean;
  readonly runtime: "node" | "deno";
  /** "webgpu 0.6.2 (Dawn)" or "Deno 2.9.6". */
  readonly implementation: string;
  readonly loader: Loader;
  readonly profile: GpuProfile;
  readonly features: readonly string[];
  /** Threads that run in step, at least; every subgroup has as many unless subgroupMaxSize says otherwise. */
  readonly subgroupSize: number | undefined;
  readonly subgroupMaxSize?: number;
  /** Shapes of matrices that a subgroup multiplies, where the device has such units (tensor cores). */
  readonly subgroupMatrixConfigs?: readonly MatrixConfig[];
}

/** A subgroup multiplies M × K by K × N of one type into another. */
export interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** An adapter, and what is known of it. */
export interface OpenedAdapter {
  readonly adapter: GPUAdapter;
  readonly info: AdapterInfo;
}

/** Dawn's toggles; docs/gpu-server.md says what each does. */
const ENABLE: Record<GpuProfile, readonly string[]> = {
  safe: ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"],
  fast: [
    "allow_unsafe_apis",
    "vulkan_enable_f16_on_nvidia",
    "skip_validation",
    "disable_robustness",
    "disable_workgroup_init",
    "disable_polyfills_on_integer_div_and_mod",
    "use_vulkan_memory_model",
  ],
};
const DISABLE = ["timestamp_quantization"];

/**
 * Off on the software adapter: its compiler clears workgroup memory with one instruction for each word, and takes seconds for
 * 20 KB of them. Without it Dawn clears with a loop.
 */
const DISABLE_ON_SOFTWARE = ["use_vulkan_zero_initialize_workgroup_memory_extension"];

const SOFTWARE_NAME = "SwiftShader Device (Subzero)";

export const isDeno = "Deno" in globalThis;

interface DawnModule {
  create(flags: string[]): GPU;
  globals: Record<string, unknown>;
}

let dawn: Promise<DawnModule> | undefined;

/** Dawn, loaded once: after the Vulkan loader, and never on Deno. */
function loadDawn(): Promise<DawnModule> {
  dawn ??= (import("webgpu") as Promise<DawnModule>).then((module) => {
    // GPUBufferUsage and friends are read as globals, on Deno as here.
    Object.assign(globalThis, module.globals);
    return module;
  });
  return dawn;
}

/**
 * Dawn's instances, kept until the process ends. One that is collected before all that came from it makes the process
 * crash or hang at its end, in every second run on the null backend; a kept one does not keep Node alive.
 */
const instances: GPU[] = [];

function dawnInstance(
  module: DawnModule,
  extra: readonly string[],
  profile: GpuProfile = "safe",
  disable: readonly string[] = DISABLE,
): GPU {
  const instance = module.create([
    `enable-dawn-features=${ENABLE[profile].join(",")}`,
    `disable-dawn-features=${disable.join(",")}`,
    ...extra,
  ]);
  instances.push(instance);
  return instance;
}

/**
 * Open an adapter on Node (Dawn) or Deno (navigator.gpu).
 *
 * Throws NoAdapter, with what to do, when nothing fits `choice`. `backend: "null"` is for fault tests alone: it computes
 * nothing.
 */
export async function openAdapter(
  choice: AdapterChoice,
  profile: GpuProfile,
  backend?: "null",
): Promise<OpenedAdapter> {
  if (isDeno) return openOnDeno(choice);
  const loader = await ensureVulkanLoader();
  const module = await loadDawn();
  const tried: string[] = [];

  const attempt = async (
    extra: string[],
    name: string,
    disable?: readonly string[],
  ): Promise<OpenedAdapter | undefined> => {
    try {
      const instance = dawnInstance(module, extra, profile, disable);
      const adapter = await instance.requestAdapter({ powerPreference: "high-performance" });
      if (adapter) return { adapter, info: describe(adapter, profile, loader) };
      tried.push(`${name}: no adapter`);
    } catch (error) {
      tried.push(`${name}: ${(error as Error).message.replace(/\s+/g, " ")}`);
    }
    return undefined;
  };

  if (backend === "null") {
    const opened = await attempt(["backend=null"], "null backend");
    if (opened) return opened;
    throw noAdapter(choice, tried);
  }
  const named = choice !== "auto" && choice !== "gpu" && choice !== "software";
  const hopeless = whyNoHardware(loader);
  if (choice === "software") {
    // Nothing else is asked.
  } else if (hopeless !== undefined) {
    tried.push(hopeless);
  } else if (named) {
    const names = await adapterNames(module);
    const name = pickName(names, choice);
    const opened = name === undefined ? undefined : await attempt([`adapter=${name}`], name);
    if (opened) return opened;
    tried.push(`adapters here: ${names.join(", ") || "none"}`);
  } else {
    const opened = await attempt([], "default");
    if (opened && !opened.info.software) return opened;
    if (opened) tried.push(`default: ${opened.info.description} is software`);
  }
  const mayBeSoftware = named ? SOFTWARE_NAME.toLowerCase().includes(choice.toLowerCase()) : choice !== "gpu";
  if (!mayBeSoftware) throw noAdapter(choice, tried);
  const missing = softwareAdapterMissing();
  if (missing) throw noAdapter(choice, [...tried, missing]);
  const opened = await withEnvironment(await softwareEnvironment(), () =>
    attempt([`adapter=${SOFTWARE_NAME}`], "software", [...DISABLE, ...DISABLE_ON_SOFTWARE]),
  );
  if (opened) return opened;
  throw noAdapter(choice, tried);
}

/**
 * Why no hardware adapter can be here, or undefined. Vulkan is Dawn's only way to a GPU on Linux; elsewhere it has others,
 * and needs no driver files. Asking in vain would only make Dawn complain on stderr.
 */
function whyNoHardware(loader: Loader): string | undefined {
  if (process.platform !== "linux") return undefined;
  if (loader === "none") return "no Vulkan loader";
  return findVulkanDrivers().length === 0 ? "no Vulkan driver is installed" : undefined;
}

/** Run `body` under variables that the Vulkan loader reads, and put the old ones back: other adapters stay findable. */
async function withEnvironment<T>(variables: Record<string, string>, body: () => Promise<T>): Promise<T> {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, variables);
  try {
    return await body();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

async function openOnDeno(choice: AdapterChoice): Promise<OpenedAdapter> {
  const instance = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (!instance) throw noAdapter(choice, ["this Deno has no navigator.gpu"]);
  const adapter = await instance.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw noAdapter(choice, ["navigator.gpu: no adapter"]);
  const opened = { adapter, info: describe(adapter, "safe", "system") };
  const { software, description } = opened.info;
  const named = choice !== "auto" && choice !== "gpu" && choice !== "software";
  const fits =
    choice === "auto" ||
    (named ? description.toLowerCase().includes(choice.toLowerCase()) : software === (choice === "software"));
  if (!fits) throw noAdapter(choice, [`navigator.gpu offers ${description}`]);
  return opened;
}

/** Dawn lists its adapters only in the message of the rejection that says that none fits. */
async function adapterNames(module: DawnModule): Promise<string[]> {
  try {
    await dawnInstance(module, ["adapter=\u0001no such adapter"]).requestAdapter();
  } catch (error) {
    const names = [...(error as Error).message.matchAll(/name: '([^']*)'/g)].map((m) => m[1]!);
    return [...new Set(names)];
  }
  return [];
}

/** Names of the adapters that Dawn finds here; none on Deno, which lists none. Throws when Dawn cannot be loaded. */
export async function listAdapters(): Promise<string[]> {
  if (isDeno) return [];
  await ensureVulkanLoader();
  return adapterNames(await loadDawn());
}

/** Dawn's toggles under a profile. Deno has none. */
export function dawnToggles(profile: GpuProfile): { enable: readonly string[]; disable: readonly string[] } {
  return { enable: ENABLE[profile], disable: DISABLE };
}

function pickName(names: readonly string[], part: string): string | undefined {
  return names.find((n) => n.toLowerCase().includes(part.toLowerCase()));
}

function describe(adapter: GPUAdapter, profile: GpuProfile, loader: Loader): AdapterInfo {
  const i = adapter.info as GPUAdapterInfo & {
    isFallbackAdapter?: boolean;
    subgroupMinSize?: number;
    subgroupMaxSize?: number;
    subgroupMatrixConfigs?: Iterable<MatrixConfig>;
  };
  const name = `${i.vendor} ${i.architecture} ${i.device} ${i.description}`;
  const version = isDeno
    ? (globalThis as unknown as { Deno: { version: { deno: string } } }).Deno.version.deno
    : packageVersion("webgpu");
  return {
    vendor: i.vendor,
    architecture: i.architecture,
    device: i.device,
    // Dawn describes the driver and names the device; Deno describes the device and numbers it.
    description: /swiftshader/i.test(name)
      ? "SwiftShader"
      : isDeno
        ? i.description
        : i.device || i.description,
    driver: isDeno ? undefined : i.description || undefined,
    software: i.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe/i.test(name),
    runtime: isDeno ? "deno" : "node",
    implementation: isDeno ? `Deno ${version}` : `webgpu ${version} (Dawn)`,
    loader,
    profile,
    features: [...adapter.features].sort(),
    subgroupSize: i.subgroupMinSize || undefined,
    subgroupMaxSize: i.subgroupMaxSize || undefined,
    subgroupMatrixConfigs: [...(i.subgroupMatrixConfigs ?? [])].map(
      ({ componentType, resultComponentType, M, N, K }) => ({ componentType, resultComponentType, M, N, K }),
    ),
  };
}

function noAdapter(choice: AdapterChoice, tried: readonly string[]): NoAdapter {
  const wanted =
    choice === "auto"
      ? "any adapter"
      : choice === "gpu"
        ? "a GPU"
        : choice === "software"
          ? "the software adapter"
          : `an adapter named like "${choice}"`;
  return new NoAdapter(
    `NO_ADAPTER: wanted ${wanted}; ${tried.join("; ")}. Run "quire doctor" for what to do, or try --adapter software`,
  );
}
