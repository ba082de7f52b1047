import { existsSync, readdirSync, readFileSync } from "node:fs";
import { constants as os } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import process from "node:process";

/** A Vulkan driver's announcement (ICD json), and whether the library it names can be loaded. */
export interface DriverFile {
  readonly file: string;
  /** As the file names it; null when the file names none. */
  readonly library: string | null;
  /** Vulkan version that the driver says it speaks, such as "1.3.242". */
  readonly apiVersion: string | null;
  /** What is wrong with the file or the library; null when both are fine. */
  readonly problem: string | null;
}

/** glibc's RTLD_NODELETE: a GPU driver may have started threads, and must not be unloaded under them. */
const RTLD_NODELETE = 0x1000;

/** Read a driver file and try its library. Never throws: a broken one is a finding. */
export function readDriverFile(file: string): DriverFile {
  let library: string | null = null;
  let apiVersion: string | null = null;
  try {
    const { ICD } = JSON.parse(readFileSync(file, "utf8")) ?? {};
    if (typeof ICD?.library_path === "string" && ICD.library_path !== "") library = ICD.library_path;
    if (typeof ICD?.api_version === "string") apiVersion = ICD.api_version;
  } catch (error) {
    return { file, library, apiVersion, problem: `cannot be read: ${oneLine(error)}` };
  }
  if (library === null) return { file, library, apiVersion, problem: "names no library (ICD.library_path)" };
  // With a slash it is a path from the file's folder; without, the system's linker searches.
  const path = library.includes("/") && !isAbsolute(library) ? join(dirname(file), library) : library;
  return { file, library, apiVersion, problem: libraryProblem(path) ?? null };
}

/** Where cloud images, NixOS and vendors' installers put driver files that the Vulkan loader does not look for. */
const STRAY_FOLDERS = [
  "/usr/local/nvidia/share/vulkan/icd.d",
  "/usr/local/nvidia/vulkan/icd.d",
  "/run/opengl-driver/share/vulkan/icd.d",
  "/usr/lib/x86_64-linux-gnu/GL/vulkan/icd.d",
  "/opt/amdgpu/share/vulkan/icd.d",
  "/opt/amdgpu/etc/vulkan/icd.d",
];

/** Driver files in such places, those in `known` left out. */
export function findStrayDrivers(known: readonly string[], folders = STRAY_FOLDERS): string[] {
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .filter((file) => file.endsWith(".json") && !known.includes(file));
}

/** Load a shared library into this process for good, as a Vulkan loader would: why that fails, or undefined. */
export function libraryProblem(path: string): string | undefined {
  const { Deno } = globalThis as { Deno?: { dlopen(path: string, symbols: object): unknown } };
  try {
    if (Deno) Deno.dlopen(path, {});
    else process.dlopen({ exports: {} }, path, os.dlopen.RTLD_LAZY | RTLD_NODELETE);
  } catch (error) {
    const message = oneLine(error);
    // What Node says of a library that loads but is no addon.
    return message.includes("did not self-register") ? undefined : message;
  }
  return undefined;
}

/** The file from which this process has loaded a library, or undefined. Linux only. */
export function loadedFrom(name: string): string | undefined {
  try {
    const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
    return maps.map((line) => line.slice(line.indexOf("/"))).find((path) => path.includes(`/${name}`));
  } catch {
    // No /proc: nothing to tell.
    return undefined;
  }
}

const oneLine = (error: unknown): string => (error as Error).message.replace(/\s+/g, " ");
