import { CheckpointError } from "./checkpoint-error.ts";
import type { FileBytes } from "./file-bytes.ts";
import { type JsonKind, JsonReader } from "./json-reader.ts";
import { refuseOtherKinds, sniff } from "./magic.ts";
import { quote } from "./quote.ts";

/** The content of a `*.index.json` that stands beside a model's shards. */
export interface ShardIndex {
  /** Tensor name to the name of the shard that holds it: a file in the index's own folder. */
  readonly weightMap: ReadonlyMap<string, string>;
  /** `metadata.total_size`, bytes of all tensors as their writer counted them; undefined when not given. */
  readonly totalSize: number | undefined;
}

/** 100,000 tensors with names of 100 characters make about 20 MB. */
const MAX_INDEX_BYTES = 64 * 1024 * 1024;
/** Every shard stays open while the checkpoint is: stays below the usual limit of 1,024 open files. */
const MAX_SHARDS = 512;
/** What every file system takes as one name. A colon would name a drive or a stream on Windows. */
const PLAIN_NAME = /^[^/\\:\p{Cc}]{1,255}$/u;

const CODES = {
  utf8: "INDEX_UTF8",
  json: "INDEX_JSON",
  depth: "INDEX_DEPTH",
  duplicate: "INDEX_DUPLICATE",
  limit: "INDEX_LIMIT",
};

/** Read and check a shard index. Throws CheckpointError with an INDEX_ code; no shard is looked at. */
export async function readShardIndex(file: FileBytes): Promise<ShardIndex> {
  const looks = await sniff(file);
  if (looks.kind !== "json") refuseOtherKinds(file.path, looks, "a shard index (JSON)");
  if (file.size > MAX_INDEX_BYTES) {
    const what = `index has ${file.size} bytes, limit ${MAX_INDEX_BYTES}`;
    throw new CheckpointError("INDEX_TOO_LARGE", file.path, what);
  }
  return parseShardIndex(file.path, await file.read(0, file.size));
}

function parseShardIndex(file: string, bytes: Uint8Array): ShardIndex {
  const json = new JsonReader({ file, what: "index", codes: CODES }, bytes);
  let weightMap: ReadonlyMap<string, string> | undefined;
  let totalSize: number | undefined;
  // A first walk for the syntax alone: broken JSON is a nearer fault than anything it might mean.
  json.skip();
  json.end();
  json.rewind();
  wantKind(file, json, "object", "INDEX_NOT_OBJECT", "index must be a JSON object");
  json.object((key) => {
    if (key === "weight_map") weightMap = readWeightMap(file, json);
    else if (key === "metadata") totalSize = readTotalSize(file, json);
    else json.skip();
  });
  if (weightMap === undefined) throw new CheckpointError("INDEX_FIELD", file, "index has no `weight_map`");
  return { weightMap, totalSize };
}

function readWeightMap(file: string, json: JsonReader): ReadonlyMap<string, string> {
  const weightMap = new Map<string, string>();
  const shards = new Set<string>();
  wantKind(file, json, "object", "INDEX_FIELD", "`weight_map` must be an object");
  json.object((tensor) => {
    const what = `shard of ${quote(tensor)} must be a file name`;
    wantKind(file, json, "string", "INDEX_FIELD", what);
    const shard = json.string();
    if (!PLAIN_NAME.test(shard) || shard === "." || shard === "..") {
      const got = `got ${quote(shard)}, expected the plain name of a file beside the index`;
      throw new CheckpointError("INDEX_NAME", file, `shard of ${quote(tensor)}: ${got}`);
    }
    weightMap.set(tensor, shard);
    shards.add(shard);
    if (shards.size > MAX_SHARDS) {
      throw new CheckpointError("INDEX_LIMIT", file, `index names more than ${MAX_SHARDS} shards`);
    }
  });
  if (weightMap.size === 0) throw new CheckpointError("INDEX_FIELD", file, "`weight_map` names no tensor");
  return weightMap;
}

function readTotalSize(file: string, json: JsonReader): number | undefined {
  let totalSize: number | undefined;
  wantKind(file, json, "object", "INDEX_FIELD", "`metadata` must be an object");
  json.object((key) => {
    if (key !== "total_size") {
      json.skip();
      return;
    }
    wantKind(file, json, "number", "INDEX_FIELD", "`total_size` must be a number");
    totalSize = Number(json.number());
  });
  return totalSize;
}

function wantKind(file: string, json: JsonReader, wanted: JsonKind, code: string, what: string): void {
  const kind = json.kind();
  if (kind === wanted) return;
  throw new CheckpointError(code, file, `${what}, got ${kind}`);
}
