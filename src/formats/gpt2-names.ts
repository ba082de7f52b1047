import { CheckpointError } from "./checkpoint-error.ts";
import { quote } from "./quote.ts";
import type { StoredTensor, TensorFile } from "./tensor-file.ts";

/** Causal masks that older GPT-2 files store beside the weights: constants, not parameters. */
const MASK_BUFFER = /^h\.\d+\.attn\.(?:masked_)?bias$/;

/** A checkpoint's tensors under the names of OpenAI's files: `wte.weight`, `h.0.ln_1.bias`, … */
export interface Gpt2Tensors {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Mask buffers that were left out, by their names in the file. */
  readonly ignored: readonly string[];
}

/**
 * The name of a tensor without what training scripts and the LM head put before it: `module.` (DataParallel) and
 * `transformer.` (GPT2LMHeadModel).
 */
export function gpt2Name(name: string): string {
  return name.replace(/^module\./, "").replace(/^transformer\./, "");
}

/** Rename a checkpoint's tensors and leave out its mask buffers. Throws NAME_CONFLICT when two names become one. */
export function gpt2Tensors(file: TensorFile): Gpt2Tensors {
  const tensors = new Map<string, StoredTensor>();
  const ignored: string[] = [];
  for (const [stored, tensor] of file.tensors) {
    const name = gpt2Name(stored);
    if (MASK_BUFFER.test(name)) {
      ignored.push(stored);
      continue;
    }
    const twin = tensors.get(name);
    if (twin !== undefined) {
      const what = `${quote(twin.name)} and ${quote(stored)} are both ${quote(name)}`;
      throw new CheckpointError("NAME_CONFLICT", file.path, what);
    }
    tensors.set(name, tensor);
  }
  return { tensors, ignored };
}
