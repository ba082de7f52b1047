import { execFileSync } from "node:child_process";
import os from "node:os";
import process from "node:process";
import type { Gpu } from "../gpu/gpu.ts";
import { PROJECT_FOLDER, packageVersion, quireVersion } from "../packages.ts";
import type { BenchResults } from "./results.ts";

/** Limits that decide how large a model may be and how a kernel may look. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** What a result file says of the machine and the software that made it. */
export function environment(
  gpu: Gpu,
): Pick<BenchResults, "quire" | "createdAt" | "command" | "runtime" | "adapter"> {
  const { info } = gpu;
  return {
    ...hostEnvironment(),
    adapter: {
      vendor: info.vendor,
      architecture: info.architecture,
      device: info.device,
      description: info.description,
      driver: info.driver,
      software: info.software,
      profile: info.profile,
      ...(gpu.tuning && { tuned: true }),
      features: [...info.features],
      limits: Object.fromEntries(LIMITS.map((name) => [name, gpu.limits[name]])),
    },
  };
}

/** The same of what needs no GPU. */
export function hostEnvironment(): Pick<BenchResults, "quire" | "createdAt" | "command" | "runtime"> {
  const deno = (globalThis as { Deno?: { version: { deno: string } } }).Deno;
  return {
    quire: { version: quireVersion(), ...gitState() },
    createdAt: new Date().toISOString(),
    command: ["quire", ...process.argv.slice(2)],
    runtime: {
      name: deno ? "deno" : "node",
      version: deno ? deno.version.deno : process.versions.node,
      os: `${os.type()} ${os.release()}`,
      arch: process.arch,
      cpus: os.cpus().length,
      cpuModel: os.cpus()[0]?.model.trim(),
      webgpu: deno ? null : (packageVersion("webgpu") ?? null),
    },
  };
}

/** The commit that is checked out, and whether files differ from it; nulls outside a git checkout. */
function gitState(): { commit: string | null; dirty: boolean | null } {
  const git = (...args: string[]) =>
    execFileSync("git", ["-C", PROJECT_FOLDER, ...args], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  try {
    return { commit: git("rev-parse", "HEAD"), dirty: git("status", "--porcelain") !== "" };
  } catch {
    // No git, or no checkout: an installed package.
    return { commit: null, dirty: null };
  }
}
