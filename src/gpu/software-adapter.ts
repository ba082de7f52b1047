import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { constants as os, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";
import { makeFolder, userCacheFolder } from "../folders.ts";
import { packageFile, packageVersion } from "../packages.ts";
import { NoAdapter } from "./errors.ts";

// The machine with no GPU still runs everything: npm's @sparticuz/chromium ships SwiftShader, a Vulkan driver for the CPU,
// together with a Vulkan loader. Both are unpacked once and loaded into this process only; nothing is installed.

const ARCHIVE = "bin/swiftshader.tar.br";
const DRIVER = "vk_swiftshader_icd.json";
const DRIVER_LIBRARY = "libvk_swiftshader.so";
const LOADER = "libvulkan.so.1";
/** glibc's RTLD_NODELETE: the loader must stay although Node thinks that loading it failed. */
const RTLD_NODELETE = 0x1000;

/** Where the unpacked driver lies: a folder that outlives the process, under the user's cache. */
function cacheFolder(): string {
  return join(userCacheFolder(), `swiftshader-${packageVersion("@sparticuz/chromium")}`);
}

/** Why this machine has no software adapter, or undefined when it has one. */
export function softwareAdapterMissing(): string | undefined {
  if (process.platform !== "linux" || process.arch !== "x64")
    return `the software adapter exists for Linux on x64 only, and this is ${process.platform} on ${process.arch}`;
  if (!packageFile("@sparticuz/chromium", ARCHIVE))
    return "the package @sparticuz/chromium is not installed: run npm ci";
  return undefined;
}

/** Unpack SwiftShader unless that was done before, and return its folder. Throws NoAdapter where it cannot exist. */
export async function unpackSoftwareAdapter(): Promise<string> {
  const missing = softwareAdapterMissing();
  if (missing) throw new NoAdapter(`NO_ADAPTER: ${missing}`);
  const folder = cacheFolder();
  if (isWhole(folder)) return folder;
  try {
    return await unpackInto(folder);
  } catch (error) {
    // A home that cannot be written (read-only container) is no reason to give up.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    const fallback = join(temporaryFolder(), "swiftshader");
    return isWhole(fallback) ? fallback : await unpackInto(fallback);
  }
}

/** Are the driver, its library and the loader there, and not empty? A full disk leaves files without content. */
function isWhole(folder: string): boolean {
  return [DRIVER, DRIVER_LIBRARY, LOADER].every((name) => {
    const path = join(folder, name);
    return existsSync(path) && statSync(path).size > 0;
  });
}

/** Our own folder among everybody's temporary ones. Libraries are loaded from it, so nobody else may have filled it. */
function temporaryFolder(): string {
  const user = process.getuid?.() ?? 0;
  const folder = join(tmpdir(), `quire-${user}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { uid, mode } = lstatSync(folder);
  if (uid !== user || (mode & 0o022) !== 0)
    throw new NoAdapter(
      `NO_ADAPTER: ${folder} belongs to another user, or others may write to it; set QUIRE_CACHE to a folder of your own`,
    );
  return folder;
}

/** Unpack beside the target and rename, so that two processes that start at once both find a whole folder. */
async function unpackInto(folder: string): Promise<string> {
  const { x } = await import("tar");
  makeFolder(join(folder, ".."));
  const fresh = mkdtempSync(`${folder}-`);
  try {
    const archive = readFileSync(packageFile("@sparticuz/chromium", ARCHIVE)!);
    await pipeline(Readable.from([archive]), createBrotliDecompress(), x({ cwd: fresh }));
    if (isWhole(folder)) throw new Error("another process was faster");
    // What is there is damaged.
    rmSync(folder, { recursive: true, force: true });
    renameSync(fresh, folder);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    if (!isWhole(folder)) throw error;
  }
  return folder;
}

/**
 * Load a shared library into this process for good. Node calls it a failed addon ("did not self-register"), but the
 * library stays; any other failure is returned as a message.
 */
function loadLibrary(path: string): string | undefined {
  try {
    process.dlopen({ exports: {} }, path, os.dlopen.RTLD_NOW | os.dlopen.RTLD_GLOBAL | RTLD_NODELETE);
  } catch (error) {
    const message = (error as Error).message;
    return message.includes("did not self-register") ? undefined : message;
  }
  return undefined;
}

/** How the Vulkan loader was found. */
export type Loader = "system" | "bundled" | "none";

/**
 * Make sure that a Vulkan loader is in this process, before Dawn looks for one: the system's, or the one that came with
 * the software adapter. With the second, a GPU whose driver is installed works without the package libvulkan1.
 */
export async function ensureVulkanLoader(): Promise<Loader> {
  if (process.platform !== "linux") return "system";
  // Mesa's and NVIDIA's loaders complain on stderr when this is unset.
  process.env.XDG_RUNTIME_DIR ??= tmpdir();
  if (loadLibrary(LOADER) === undefined) return "system";
  if (softwareAdapterMissing()) return "none";
  return loadLibrary(join(await unpackSoftwareAdapter(), LOADER)) === undefined ? "bundled" : "none";
}

/** Environment under which a Vulkan loader finds SwiftShader and nothing else. */
export async function softwareEnvironment(): Promise<Record<string, string>> {
  const folder = await unpackSoftwareAdapter();
  const driver = join(folder, DRIVER);
  const path = [folder, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":");
  return {
    LD_LIBRARY_PATH: path,
    VK_DRIVER_FILES: driver,
    VK_ICD_FILENAMES: driver,
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir(),
  };
}
