import { basename, dirname, join } from "node:path";
import { CheckpointError } from "./checkpoint-error.ts";
import { listFolder, openBytes } from "./file-bytes.ts";
import { quote } from "./quote.ts";
import { readShardIndex, type ShardIndex } from "./shard-index.ts";
import type { StoredTensor, TensorFile } from "./tensor-file.ts";

/**
 * Open the checkpoint that the index at `indexPath` describes: every shard, joined into one TensorFile.
 * `openShard` opens one file of the index's format. Throws CheckpointError, with an INDEX_ code where index and
 * shards disagree; whatever was opened by then is closed.
 */
export async function openShards(
  indexPath: string,
  format: TensorFile["format"],
  openShard: (path: string) => Promise<TensorFile>,
): Promise<TensorFile> {
  const index = await readIndexAt(indexPath);
  const folder = dirname(indexPath);
  const present = (await listFolder(folder)) ?? new Set<string>();
  const names = new Set(index.weightMap.values());
  for (const name of names) {
    if (present.has(name)) continue;
    throw new CheckpointError("INDEX_SHARD_MISSING", indexPath, `shard ${quote(name)} is not in ${folder}`);
  }
  const shards: TensorFile[] = [];
  try {
    for (const name of names) shards.push(await openShard(join(folder, name)));
    return joinShards(indexPath, format, index, shards);
  } catch (error) {
    await closeAll(shards);
    throw error;
  }
}

async function readIndexAt(path: string): Promise<ShardIndex> {
  const file = await openBytes(path);
  try {
    return await readShardIndex(file);
  } finally {
    await file.close();
  }
}

function joinShards(
  path: string,
  format: TensorFile["format"],
  index: ShardIndex,
  shards: readonly TensorFile[],
): TensorFile {
  const tensors = new Map<string, StoredTensor>();
  const metadata = new Map<string, string>();
  const holders = new Map<string, string>();
  for (const shard of shards) {
    const shardName = basename(shard.path);
    for (const [key, value] of shard.metadata) metadata.set(key, value);
    for (const [name, tensor] of shard.tensors) {
      const other = holders.get(name);
      if (other !== undefined) {
        const what = `${quote(name)} is in two shards, ${quote(other)} and ${quote(shardName)}`;
        throw new CheckpointError("INDEX_DUPLICATE", path, what);
      }
      if (!index.weightMap.has(name)) {
        const what = `${quote(name)} is in ${quote(shardName)}, but not in \`weight_map\``;
        throw new CheckpointError("INDEX_UNLISTED", path, what);
      }
      holders.set(name, shardName);
      tensors.set(name, tensor);
    }
  }
  for (const [name, shardName] of index.weightMap) {
    if (holders.get(name) === shardName) continue;
    const found = holders.get(name);
    const got = found === undefined ? "" : `, it is in ${quote(found)}`;
    throw new CheckpointError(
      "INDEX_TENSOR_MISSING",
      path,
      `${quote(name)} is not in ${quote(shardName)}${got}`,
    );
  }
  requireTotalSize(path, index, tensors);
  return { path, format, tensors, metadata, close: () => closeAll(shards) };
}

/**
 * The stated total must be one of the sums that Hugging Face's writers make: all tensors; without a head that is tied
 * to the embedding (they count shared memory once); with a boolean as an eighth of a byte (their size of one bit).
 */
function requireTotalSize(path: string, index: ShardIndex, tensors: ReadonlyMap<string, StoredTensor>): void {
  if (index.totalSize === undefined) return;
  let all = 0;
  let booleans = 0;
  for (const tensor of tensors.values()) {
    all += tensor.byteLength;
    if (tensor.dtype === "BOOL") booleans += tensor.byteLength;
  }
  const head = tensors.get("lm_head.weight")?.byteLength ?? 0;
  const inBits = booleans - booleans / 8;
  const sums = [all, all - head, all - inBits, all - head - inBits];
  if (sums.includes(index.totalSize)) return;
  const what = `\`total_size\`: got ${index.totalSize}, expected ${all}, the bytes of all tensors`;
  throw new CheckpointError("INDEX_SIZE", path, what);
}

async function closeAll(shards: readonly TensorFile[]): Promise<void> {
  for (const shard of shards) await shard.close();
}
