import process from "node:process";
import { BadInput } from "../check.ts";
import { Gpu, type OpenOptions } from "../gpu/gpu.ts";
import { readTuning } from "../gpu/tuning-file.ts";
import type { ModelConfig } from "../model/config.ts";
import { Gpt2 } from "../model/gpt2.ts";
import { TILE_FAMILIES } from "../ops/tile-families.ts";
import type { Tokenizer } from "../tokenizer.ts";
import { type ModelFlags, modelFolder } from "./options.ts";
import { progressBar } from "./progress.ts";

/** Say aloud that no GPU runs this: a figure from a CPU must not pass for one of a GPU. */
export const SOFTWARE_NOTICE = "software adapter (SwiftShader on the CPU): correct, slow, no benchmark";

/** Open a Gpu with the tile sizes that were measured on it, run `body`, close it again however it ends. Notices go to stderr. */
export async function withGpu<T>(options: OpenOptions, body: (gpu: Gpu) => Promise<T>): Promise<T> {
  const gpu = await Gpu.open(options);
  if (gpu.info.software) process.stderr.write(`quire: ${SOFTWARE_NOTICE}\n`);
  try {
    const notice = (line: string) => process.stderr.write(`quire: ${line}\n`);
    gpu.tuning = readTuning(gpu.info, TILE_FAMILIES, notice);
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
  const model = await loadModel(gpu, folder, flags);
  try {
    return await body(model, folder);
  } finally {
    model.free();
  }
}

/** Load with a bar on a terminal: GPT-2 XL is 6 GB. */
async function loadModel(gpu: Gpu, folder: string, flags: ModelFlags): Promise<Gpt2> {
  const bar = progressBar("MiB");
  const mib = (bytes: number) => Math.ceil(bytes / 2 ** 20);
  try {
    return await Gpt2.load(gpu, folder, {
      dtype: flags.dtype,
      strict: flags.strict,
      onProgress: (done, total) => bar.show(mib(done), mib(total), "loading"),
      onWarning: (message) => process.stderr.write(`quire: warning: ${message}\n`),
    });
  } finally {
    bar.stop();
  }
}

/** Throws BadInput when the tokenizer has ids that the model has no row for: they belong to different models. */
export function checkVocabulary(tokenizer: Tokenizer, config: ModelConfig, folder: string): void {
  if (tokenizer.vocabSize > config.vocabSize)
    throw new BadInput(
      `${folder}: the tokenizer has ids up to ${tokenizer.vocabSize - 1}, the model a vocabulary of ${config.vocabSize}; ` +
        "they belong to different models",
    );
}
