import { join } from "node:path";
import { CheckpointError } from "./checkpoint-error.ts";
import { listFolder, openBytes } from "./file-bytes.ts";
import { type FileLooks, refuseOtherKinds, sniff } from "./magic.ts";
import { openPytorchBin } from "./pytorch-bin.ts";
import { quote } from "./quote.ts";
import { openSafetensors } from "./safetensors.ts";
import { openShards } from "./shards.ts";
import type { TensorFile } from "./tensor-file.ts";

/** The files that can be a folder's model, best first: safetensors need no unpickling. */
const MODEL_FILES = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
/** Other names of a folder that an error shows, so that a misnamed model is seen. */
const MAX_LISTED = 8;

/**
 * Open a model's weights. `path` is a folder as Hugging Face lays it out (one file or shards with an index, safetensors
 * before PyTorch), a weight file, or a shard index. Only headers are read.
 * Throws CheckpointError.
 */
export async function openCheckpoint(path: string): Promise<TensorFile> {
  const names = await listFolder(path);
  if (names === undefined) return openFile(path);
  const name = MODEL_FILES.find((candidate) => names.has(candidate));
  if (name !== undefined) return openFile(join(path, name));
  const listed = [...names].sort().slice(0, MAX_LISTED).map(quote).join(", ");
  const got = names.size === 0 ? "an empty folder" : names.size > MAX_LISTED ? `${listed}, …` : listed;
  throw new CheckpointError("NO_MODEL_FILE", path, `got ${got}, expected one of ${MODEL_FILES.join(", ")}`);
}

async function openFile(path: string): Promise<TensorFile> {
  if (path.endsWith(".bin.index.json")) return openShards(path, "pytorch", openPytorchBin);
  if (path.endsWith(".index.json")) return openShards(path, "safetensors", openSafetensors);
  if (path.endsWith(".safetensors")) return openSafetensors(path);
  // Any other name says little: the content decides.
  const looks = await looksAt(path);
  if (looks.kind === "safetensors") return openSafetensors(path);
  if (looks.kind === "zip" || looks.kind === "pickle" || /\.(?:bin|pth?|ckpt)$/.test(path))
    return openPytorchBin(path);
  refuseOtherKinds(path, looks, "a safetensors or PyTorch file");
  return openSafetensors(path);
}

async function looksAt(path: string): Promise<FileLooks> {
  const file = await openBytes(path);
  try {
    return await sniff(file);
  } finally {
    await file.close();
  }
}
