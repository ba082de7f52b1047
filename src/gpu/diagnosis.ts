import { existsSync, readFileSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import process from "node:process";
import { packageVersion, quireVersion } from "../packages.ts";
import { type AdapterChoice, type AdapterInfo, isDeno, listAdapters } from "./adapter.ts";
import { type DeviceNode, findDeviceNodes } from "./device-nodes.ts";
import {
  type DriverFile,
  findStrayDrivers,
  libraryProblem,
  loadedFrom,
  readDriverFile,
} from "./driver-file.ts";
import { ensureVulkanLoader, type Loader, softwareAdapterMissing } from "./software-adapter.ts";
import { findVulkanDrivers } from "./vulkan-drivers.ts";

/** What a machine offers to WebGPU, as `quire doctor --json` prints it. Absent is null, never undefined. */
export interface Machine {
  readonly runtime: {
    readonly name: "node" | "deno";
    readonly version: string;
    readonly platform: string;
    readonly arch: string;
    /** "Debian GNU/Linux 12 (bookworm)". */
    readonly system: string;
    readonly cpus: number;
    readonly memoryBytes: number;
  };
  /** Version of Quire and of the packages that bring WebGPU; null when not installed. */
  readonly packages: {
    readonly quire: string;
    readonly webgpu: string | null;
    readonly swiftshader: string | null;
  };
  /** Signs that this is a container; empty when there are none. */
  readonly container: readonly string[];
  readonly wsl: boolean;
  /** Variables that decide what a Vulkan loader or a container finds; those that are set. */
  readonly environment: Readonly<Record<string, string>>;
  readonly loader: { readonly kind: Loader; readonly path: string | null; readonly problem: string | null };
  /** Driver files that the loader finds. */
  readonly drivers: readonly DriverFile[];
  /** Driver files in places where the loader does not look. */
  readonly strayDrivers: readonly DriverFile[];
  /** Files that VK_DRIVER_FILES and its relatives name and that do not exist. */
  readonly missingDriverFiles: readonly string[];
  readonly devices: readonly DeviceNode[];
  readonly nvidia: {
    /** Of the kernel module; null where none is loaded. */
    readonly kernelVersion: string | null;
    /** Why NVIDIA's Vulkan driver cannot be loaded; null when it can. */
    readonly libraryProblem: string | null;
    /** Where that library lies when the linker does not find it; null when it is nowhere that we know. */
    readonly strayLibrary: string | null;
  };
  /** Names of the adapters that Dawn lists; Deno lists none. */
  readonly adapters: readonly string[];
  /** Why Dawn cannot be loaded; null when it can, and on Deno. */
  readonly dawnProblem: string | null;
  /** Why there is no software adapter; null when there is one. */
  readonly softwareMissing: string | null;
}

/** The machine, and what asking for an adapter came to. */
export interface Diagnosis extends Machine {
  /** What was asked for. */
  readonly choice: AdapterChoice;
  /** What was given; null when nothing was. */
  readonly chosen: AdapterInfo | null;
  /** Why nothing was given, or what broke off the test of what was given. */
  readonly openProblem: string | null;
}

const VARIABLES = [
  "NVIDIA_VISIBLE_DEVICES",
  "NVIDIA_DRIVER_CAPABILITIES",
  "VK_DRIVER_FILES",
  "VK_ICD_FILENAMES",
  "VK_ADD_DRIVER_FILES",
  "VK_LOADER_DRIVERS_DISABLE",
  "VK_LOADER_DRIVERS_SELECT",
  "LD_LIBRARY_PATH",
  "XDG_RUNTIME_DIR",
];

/** The library that holds NVIDIA's Vulkan driver on every Linux. */
const NVIDIA_LIBRARY = "libGLX_nvidia.so.0";
/** Where Kubernetes on Google's cloud, Colab and NixOS put it. */
const NVIDIA_FOLDERS = ["/usr/local/nvidia/lib64", "/usr/lib64-nvidia", "/run/opengl-driver/lib"];

/** Look at everything that decides which adapters there are. Never throws: what cannot be found out is null or empty. */
export async function examineMachine(): Promise<Machine> {
  // Before anything of ours sets variables of its own.
  const environment = Object.fromEntries(
    VARIABLES.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
  );
  const linux = process.platform === "linux";
  const files = linux ? driverFiles() : [];
  const { loader, path, problem } = await findLoader();
  const drivers = files.map(readDriverFile);
  const { adapters, dawnProblem } = await findAdapters(linux && (loader === "none" || files.length === 0));
  return {
    runtime: {
      name: isDeno ? "deno" : "node",
      version: runtimeVersion(),
      platform: process.platform,
      arch: process.arch,
      system: systemName(),
      cpus: os.cpus().length,
      memoryBytes: os.totalmem(),
    },
    packages: {
      quire: quireVersion(),
      webgpu: packageVersion("webgpu") ?? null,
      swiftshader: packageVersion("@sparticuz/chromium") ?? null,
    },
    container: containerSigns(),
    wsl: /microsoft/i.test(textOf("/proc/version")),
    environment,
    loader: { kind: loader, path, problem },
    drivers,
    strayDrivers: linux ? findStrayDrivers(files).map(readDriverFile) : [],
    missingDriverFiles: namedFiles(environment).filter((file) => !existsSync(file)),
    devices: linux ? findDeviceNodes() : [],
    nvidia: {
      kernelVersion: textOf("/proc/driver/nvidia/version").match(/\b(\d+\.\d+(?:\.\d+)?)\b/)?.[1] ?? null,
      libraryProblem: linux ? (libraryProblem(NVIDIA_LIBRARY) ?? null) : null,
      strayLibrary: NVIDIA_FOLDERS.map((f) => join(f, NVIDIA_LIBRARY)).find((f) => existsSync(f)) ?? null,
    },
    adapters,
    dawnProblem,
    softwareMissing: softwareAdapterMissing() ?? null,
  };
}

function driverFiles(): string[] {
  try {
    return findVulkanDrivers();
  } catch {
    // A folder that may not be listed: the Vulkan loader finds nothing in it either.
    return [];
  }
}

async function findLoader(): Promise<{ loader: Loader; path: string | null; problem: string | null }> {
  if (process.platform !== "linux") return { loader: "system", path: null, problem: null };
  const name = "libvulkan.so.1";
  if (isDeno) {
    // Deno brings no loader: it needs one on the search path that it was started with.
    const problem = libraryProblem(name) ?? null;
    return { loader: problem === null ? "system" : "none", path: loadedFrom(name) ?? null, problem };
  }
  try {
    return { loader: await ensureVulkanLoader(), path: loadedFrom(name) ?? null, problem: null };
  } catch (error) {
    return { loader: "none", path: null, problem: (error as Error).message };
  }
}

/** `hopeless`: there is nothing to be found, and asking would only make the Vulkan loader complain on stderr. */
async function findAdapters(hopeless: boolean): Promise<{ adapters: string[]; dawnProblem: string | null }> {
  if (isDeno) return { adapters: [], dawnProblem: null };
  try {
    if (!hopeless) return { adapters: await listAdapters(), dawnProblem: null };
    await import("webgpu");
    return { adapters: [], dawnProblem: null };
  } catch (error) {
    return { adapters: [], dawnProblem: (error as Error).message.replace(/\s+/g, " ") };
  }
}

function runtimeVersion(): string {
  const deno = (globalThis as { Deno?: { version: { deno: string } } }).Deno;
  return deno ? deno.version.deno : process.versions.node;
}

function systemName(): string {
  const name = textOf("/etc/os-release").match(/^PRETTY_NAME="?([^"\n]*)"?$/m)?.[1];
  return name || `${os.type()} ${os.release()}`;
}

function containerSigns(): string[] {
  const files = ["/.dockerenv", "/run/.containerenv"].filter((file) => existsSync(file));
  const cgroup = textOf("/proc/1/cgroup").match(/docker|kubepods|containerd|libpod|lxc/)?.[0];
  const { KUBERNETES_SERVICE_HOST, container } = process.env;
  return [
    ...files,
    ...(cgroup ? [`cgroup ${cgroup}`] : []),
    ...(KUBERNETES_SERVICE_HOST ? ["KUBERNETES_SERVICE_HOST"] : []),
    ...(container ? [`container=${container}`] : []),
  ];
}

/** Files that the environment names; the older variable counts only where the newer one is not set. */
function namedFiles(environment: Readonly<Record<string, string>>): string[] {
  const { VK_DRIVER_FILES, VK_ICD_FILENAMES, VK_ADD_DRIVER_FILES } = environment;
  return [VK_DRIVER_FILES ?? VK_ICD_FILENAMES ?? "", VK_ADD_DRIVER_FILES ?? ""]
    .flatMap((list) => list.split(":"))
    .filter(Boolean);
}

/** Content of a file, empty when it cannot be read. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // Not there, or not ours to read: either way there is nothing to tell.
    return "";
  }
}
