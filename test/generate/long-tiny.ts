import type { Gpu } from "../../src/gpu/gpu.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { Tensor } from "../../src/tensor.ts";
import { TINY } from "../model/tiny.ts";

/** The tiny model with a longer context: its 64 position embeddings `times` times over. */
export async function loadLongTiny(gpu: Gpu, times = 4): Promise<Gpt2> {
  const model = await Gpt2.load(gpu, TINY);
  const [wpe] = model.weights.wpe.blocks;
  const { contextLength: rows, channels } = model.config;
  const once = await wpe!.read();
  const positions = new Float32Array(times * rows * channels);
  for (let i = 0; i < times; i++) positions.set(once, i * rows * channels);
  wpe!.free();
  const options = { purpose: "weights", label: "wpe" } as const;
  const longer = Tensor.from(gpu, [times * rows, channels], positions, options);
  const weights = { ...model.weights, wpe: { blocks: [longer] } };
  return new Gpt2(gpu, { ...model.config, contextLength: times * rows }, weights);
}
