import { basename, resolve } from "node:path";
import { kvBytesPerToken, type ModelConfig, parameterCount } from "../model/config.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import type { ModelDescription } from "./results.ts";

/** What a result file says of the model that was measured; its weights are on the GPU, and nothing else's. */
export function describeModel(
  model: Gpt2,
  folder: string,
  dtype: string,
  kvDtype: "f32" | "f16",
): ModelDescription {
  return {
    ...describeConfig(model.config, folder, dtype, kvDtype),
    weightBytes: model.gpu.memory.currentByPurpose.weights,
  };
}

/** The same of a model that is not loaded. */
export function describeConfig(
  config: ModelConfig,
  folder: string,
  dtype: string,
  kvDtype: "f32" | "f16",
): Omit<ModelDescription, "weightBytes"> {
  const { layers, heads, headSize, channels, contextLength, vocabSize } = config;
  return {
    name: basename(resolve(folder)),
    path: folder,
    parameters: parameterCount(config),
    layers,
    heads,
    headSize,
    channels,
    contextLength,
    vocabSize,
    kvBytesPerToken: kvBytesPerToken(config, kvDtype === "f32" ? 4 : 2),
    dtype,
    kvDtype,
  };
}
