import type { Gpu } from "../../src/gpu/gpu.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { Tensor } from "../../src/tensor.ts";
import { TINY } from "../model/tiny.ts";

/** The tiny model with a context of 256: its 64 position embeddings again and again. Free it with `free()`. */
export async function loadLongTiny(gpu: Gpu): Promise<Gpt2> {
  const model = await Gpt2.load(gpu, TINY);
  const [wpe] = model.weights.wpe.blocks;
  const { contextLength: rows, channels } = model.config;
  const once = await wpe!.read();
  const positions = new Float32Array(4 * rows * channels);
  for (let i = 0; i < 4; i++) positions.set(once, i * rows * channels);
  wpe!.free();
  const options = { purpose: "weights", label: "wpe" } as const;
  const longer = Tensor.from(gpu, [4 * rows, channels], positions, options);
  const weights = { ...model.weights, wpe: { blocks: [longer] } };
  return new Gpt2(gpu, { ...model.config, contextLength: 4 * rows }, weights);
}
