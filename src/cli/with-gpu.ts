import { spawnSync } from "node:child_process";
import process from "node:process";
import { isDeno } from "../gpu/adapter.ts";
import { NoAdapter } from "../gpu/errors.ts";
import { Gpu, type OpenOptions } from "../gpu/gpu.ts";
import { softwareAdapterMissing, softwareEnvironment } from "../gpu/software-adapter.ts";
import { Gpt2 } from "../model/gpt2.ts";
import { type ModelFlags, modelFolder } from "./options.ts";

/** Set in the child that Deno is started anew as, so that it does not start another. */
const RESTARTED = "QUIRE_DENO_RESTARTED";

/** Say aloud that no GPU runs this: a figure from a CPU must not pass for one of a GPU. */
export const SOFTWARE_NOTICE = "software adapter (SwiftShader on the CPU): correct, slow, no benchmark";

/** Open a Gpu, run `body`, close it again however it ends. Notices go to stderr. */
export async function withGpu<T>(options: OpenOptions, body: (gpu: Gpu) => Promise<T>): Promise<T> {
  const gpu = await open(options);
  if (gpu.info.software) process.stderr.write(`quire: ${SOFTWARE_NOTICE}\n`);
  try {
    return await body(gpu);
  } finally {
    await gpu.close();
  }
}

/** Load the model that the flags name, run `body`, free it. */
export async function withModel<T>(
  gpu: Gpu,
  flags: ModelFlags,
  body: (model: Gpt2, folder: string) => Promise<T>,
): Promise<T> {
  const folder = modelFolder(flags.model);
  const model = await Gpt2.load(gpu, folder, {
    dtype: flags.dtype,
    strict: flags.strict,
    onWarning: (message) => process.stderr.write(`quire: warning: ${message}\n`),
  });
  try {
    return await body(model, folder);
  } finally {
    model.free();
  }
}

async function open(options: OpenOptions): Promise<Gpu> {
  const choice = options.adapter ?? "auto";
  const mayRestart =
    isDeno &&
    process.env[RESTARTED] === undefined &&
    (choice === "auto" || choice === "software") &&
    softwareAdapterMissing() === undefined;
  if (!mayRestart) return Gpu.open(options);
  try {
    const gpu = await Gpu.open(options);
    // Another CPU driver (Mesa's) may be there; SwiftShader is the one that the tests know.
    if (!gpu.info.software) return gpu;
    await gpu.close();
  } catch (error) {
    if (!(error instanceof NoAdapter)) throw error;
  }
  return restartOnSoftwareAdapter();
}

/** Deno's Vulkan loader is chosen by the environment it starts with, so the same command is run again under one. */
async function restartOnSoftwareAdapter(): Promise<never> {
  const env = { ...process.env, ...(await softwareEnvironment()), [RESTARTED]: "1" };
  const child = spawnSync(process.execPath, ["run", "-A", ...process.argv.slice(1)], {
    env,
    stdio: "inherit",
  });
  process.exit(child.status ?? (child.signal === "SIGINT" ? 130 : 1));
}
