import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/formats/checkpoint.ts";
import { bytesOf } from "../../src/formats/file-bytes.ts";
import { readShardIndex } from "../../src/formats/shard-index.ts";
import { entry, header, refusal, safetensors } from "./safetensors-file.ts";

let root = "";
let folders = 0;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "quire-shards-"));
});

afterAll(async () => {
  await rm(root, { recursive: true });
});

function parse(text: string | Uint8Array) {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  return readShardIndex(bytesOf("i", bytes));
}

/** Open a folder of an index and the given files; `<` in a message stands for the folder. */
async function open(index: object, files: Record<string, Uint8Array>) {
  const folder = join(root, String(folders++));
  await mkdir(folder);
  await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(folder, name), bytes);
  return openCheckpoint(folder);
}

async function refused(index: object, files: Record<string, Uint8Array>): Promise<string> {
  return (await refusal(open(index, files))).replace(/^(\w+): .*?model\.safetensors\.index\.json: /, "$1: ");
}

function shard(name: string, fill = 1): Uint8Array {
  return safetensors(`{"${name}":${entry('"U8"', "[4]", "[0,4]")}}`, new Uint8Array(4).fill(fill));
}

const SHARDS = { "s1.safetensors": shard("a", 1), "s2.safetensors": shard("b", 2) };
const WEIGHT_MAP = { a: "s1.safetensors", b: "s2.safetensors" };

describe("a shard index: its text", () => {
  it("names the shard of every tensor", async () => {
    const index = await parse(JSON.stringify({ metadata: { total_size: 8 }, weight_map: WEIGHT_MAP }));
    expect([...index.weightMap]).toEqual(Object.entries(WEIGHT_MAP));
    expect(index.totalSize).toBe(8);
  });

  it.each([
    ["", "INDEX_JSON: i: index is not JSON at byte 0: got the end, expected a value"],
    ['{"weight_map":{"a":"s",}}', "INDEX_JSON: i: index is not JSON at byte 23: got '}', expected '\"'"],
    ["{} {}", "INDEX_JSON: i: index is not JSON at byte 3: got '{', expected the end"],
    ["[[[[[[[[[", "INDEX_DEPTH: i: index nests deeper than 8 at byte 8"],
    ["[]", "INDEX_NOT_OBJECT: i: index must be a JSON object, got array"],
    ["{}", "INDEX_FIELD: i: index has no `weight_map`"],
    ['{"weight_map":{}}', "INDEX_FIELD: i: `weight_map` names no tensor"],
    ['{"weight_map":[]}', "INDEX_FIELD: i: `weight_map` must be an object, got array"],
    ['{"weight_map":{"a":1}}', "INDEX_FIELD: i: shard of `a` must be a file name, got number"],
    ['{"metadata":1}', "INDEX_FIELD: i: `metadata` must be an object, got number"],
    ['{"metadata":{"total_size":"8"}}', "INDEX_FIELD: i: `total_size` must be a number, got string"],
  ])("41: %s", async (text, message) => {
    expect(await refusal(parse(text))).toBe(message);
  });

  it("41: bytes that are not UTF-8, and files of another kind", async () => {
    expect(await refusal(parse(Uint8Array.of(0x7b, 0xff)))).toBe(
      "INDEX_UTF8: i: index is not UTF-8 at byte 1: got 0xff",
    );
    expect(await refusal(parse("version https://git-lfs.github.com/spec/v1\n"))).toContain("LFS_POINTER");
    expect(await refusal(parse("<!DOCTYPE html>"))).toContain("WRONG_FORMAT: i: looks like an HTML page");
  });

  it.each([
    "../../etc/x",
    "..",
    ".",
    "/etc/passwd",
    "sub/model.safetensors",
    "..\\x",
    "C:\\x",
    "C:x",
    "a\0b",
    "",
    "x".repeat(256),
  ])("41: %j is no plain file name", async (name) => {
    const text = JSON.stringify({ weight_map: { "wte.weight": name } });
    expect(await refusal(parse(text))).toMatch(
      /^INDEX_NAME: i: shard of `wte\.weight`: got `.*`, expected the plain name of a file beside the index$/,
    );
  });

  it("41: one tensor given two shards", async () => {
    const text = '{"weight_map":{"a":"s1.safetensors","a":"s2.safetensors"}}';
    expect(await refusal(parse(text))).toBe("INDEX_DUPLICATE: i: `a` appears twice, again at byte 36");
  });

  it("41: more shards than may be open at once, more bytes than an index can need", async () => {
    const map = Object.fromEntries(Array.from({ length: 513 }, (_, index) => [`t${index}`, `s${index}`]));
    expect(await refusal(parse(JSON.stringify({ weight_map: map })))).toBe(
      "INDEX_LIMIT: i: index names more than 512 shards",
    );
    const huge = { ...bytesOf("i", new TextEncoder().encode("{}".padEnd(600))), size: 1e9 };
    expect(await refusal(readShardIndex(huge))).toBe(
      "INDEX_TOO_LARGE: i: index has 1000000000 bytes, limit 67108864",
    );
  });
});

describe("a shard index: with its shards", () => {
  it("joins the shards into one checkpoint", async () => {
    const file = await open({ metadata: { total_size: 8 }, weight_map: WEIGHT_MAP }, SHARDS);
    expect(file.format).toBe("safetensors");
    expect([...file.tensors.keys()]).toEqual(["a", "b"]);
    expect(await file.tensors.get("b")?.read()).toEqual(new Uint8Array(4).fill(2));
    await file.close();
  });

  it("41: a missing shard", async () => {
    const message = await refused({ weight_map: WEIGHT_MAP }, { "s1.safetensors": SHARDS["s1.safetensors"] });
    expect(message).toMatch(/^INDEX_SHARD_MISSING: shard `s2\.safetensors` is not in /);
  });

  it("41: a tensor that lies in two shards", async () => {
    const both = safetensors(
      `{"a":${entry('"U8"', "[4]", "[0,4]")},"b":${entry('"U8"', "[4]", "[4,8]")}}`,
      8,
    );
    expect(await refused({ weight_map: WEIGHT_MAP }, { ...SHARDS, "s2.safetensors": both })).toBe(
      "INDEX_DUPLICATE: `a` is in two shards, `s1.safetensors` and `s2.safetensors`",
    );
  });

  it("41: a tensor that is in no shard, or in another one", async () => {
    const more = { ...WEIGHT_MAP, c: "s2.safetensors" };
    expect(await refused({ weight_map: more }, SHARDS)).toBe(
      "INDEX_TENSOR_MISSING: `c` is not in `s2.safetensors`",
    );
    const swapped = { a: "s2.safetensors", b: "s1.safetensors" };
    expect(await refused({ weight_map: swapped }, SHARDS)).toBe(
      "INDEX_TENSOR_MISSING: `a` is not in `s2.safetensors`, it is in `s1.safetensors`",
    );
  });

  it("41: a tensor that the index does not know", async () => {
    const both = safetensors(
      `{"b":${entry('"U8"', "[4]", "[0,4]")},"c":${entry('"U8"', "[4]", "[4,8]")}}`,
      8,
    );
    expect(await refused({ weight_map: WEIGHT_MAP }, { ...SHARDS, "s2.safetensors": both })).toBe(
      "INDEX_UNLISTED: `c` is in `s2.safetensors`, but not in `weight_map`",
    );
  });

  it.each([7, 9, 0, -8, 8.5, 1e300])("41: a total_size of %d for 8 bytes", async (size) => {
    const index = { metadata: { total_size: size }, weight_map: WEIGHT_MAP };
    expect(await refused(index, SHARDS)).toBe(
      `INDEX_SIZE: \`total_size\`: got ${size}, expected 8, the bytes of all tensors`,
    );
  });

  it("a total_size that leaves out a tied head, or counts booleans as bits, is Hugging Face's way", async () => {
    const head = safetensors(`{"lm_head.weight":${entry('"F32"', "[2]", "[0,8]")}}`, 8);
    const mask = safetensors(`{"m":${entry('"BOOL"', "[8]", "[0,8]")}}`, 8);
    const files = { h: head, m: mask };
    const map = { "lm_head.weight": "h", m: "m" };
    for (const total of [16, 8, 9, 1]) {
      const file = await open({ metadata: { total_size: total }, weight_map: map }, files);
      expect(file.tensors.size).toBe(2);
      await file.close();
    }
  });

  it("a broken shard is named, not the index", async () => {
    const broken = safetensors(header('"U8"', "[4]", "[0,3]"), 3);
    const message = await refusal(open({ weight_map: WEIGHT_MAP }, { ...SHARDS, "s2.safetensors": broken }));
    expect(message).toMatch(/^SIZE_MISMATCH: .*s2\.safetensors: `w` \[4\] U8 needs 4 bytes, offsets give 3$/);
  });
});
