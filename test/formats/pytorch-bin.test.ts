import { copyFile, mkdtemp, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { FileBytes } from "../../src/formats/file-bytes.ts";
import { openPytorchBin, readPytorchBin } from "../../src/formats/pytorch-bin.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import type { StoredTensor } from "../../src/formats/tensor-file.ts";
import { bytes, dict, global, type Part, pickle, str, tensor, u32 } from "./pickle-assembler.ts";
import { memory, messageOf, openBin, SIX, torchLegacy, torchZip } from "./torch-files.ts";
import { writeZip } from "./zip-writer.ts";

type Tensors = ReadonlyMap<string, StoredTensor>;

const TINY = join(import.meta.dirname, "../golden/tiny");
const WEIGHTS = join(import.meta.dirname, "../../weights");

function refusal(...file: readonly Part[]): Promise<string> {
  return messageOf(() => openBin(...file));
}

/** Every tensor as the reader of safetensors gives it. Both files name the same tensors. */
async function expectEqual(actual: Tensors, expected: Tensors): Promise<void> {
  expect([...actual.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [name, tensor] of actual) {
    const other = expected.get(name)!;
    expect([name, tensor.dtype, tensor.shape]).toEqual([name, other.dtype, other.shape]);
    expect(Buffer.compare(await tensor.read(), await other.read()), name).toBe(0);
  }
}

describe("golden files", () => {
  it.each([
    ["pytorch_model.bin", "model.safetensors"],
    ["pytorch_model.legacy.bin", "model.safetensors"],
    ["pytorch_model.f16.bin", "model.f16.safetensors"],
    ["pytorch_model.bf16.bin", "model.bf16.safetensors"],
  ])("%s holds the tensors of %s", async (bin, safetensors) => {
    const actual = await openPytorchBin(join(TINY, bin));
    const expected = await openSafetensors(join(TINY, safetensors));
    // The tied head has a name of its own in a pickle and none in safetensors.
    const head = expected.tensors.get("transformer.wte.weight")!;
    await expectEqual(actual.tensors, new Map([...expected.tensors, ["lm_head.weight", head]]));
    await actual.close();
    await expected.close();
  });
  it("the three shards together hold the tensors of model.safetensors", async () => {
    const shards = await Promise.all(
      [1, 2, 3].map((n) => openPytorchBin(join(TINY, `sharded-bin/pytorch_model-0000${n}-of-00003.bin`))),
    );
    const expected = await openSafetensors(join(TINY, "model.safetensors"));
    await expectEqual(new Map(shards.flatMap(({ tensors }) => [...tensors])), expected.tensors);
    for (const file of [...shards, expected]) await file.close();
  });
  it("novels-zh is read whole, its checksums hold", async () => {
    const file = await openPytorchBin(join(WEIGHTS, "novels-zh/pytorch_model.bin"));
    expect(file.format).toBe("pytorch");
    expect(file.tensors.size).toBe(77);
    const wte = file.tensors.get("transformer.wte.weight")!;
    expect([wte.dtype, wte.shape, wte.byteLength]).toEqual(["F16", [6743, 192], 6743 * 192 * 2]);
    for (const tensor of file.tensors.values()) expect((await tensor.read()).length).toBe(tensor.byteLength);
    await file.close();
  });
  it("a file that shrinks after it was opened is told from a sound one", async () => {
    const folder = await mkdtemp(join(tmpdir(), "quire-"));
    const path = join(folder, "pytorch_model.bin");
    await copyFile(join(TINY, "pytorch_model.bin"), path);
    const file = await openPytorchBin(path);
    await truncate(path, 100_000);
    expect(await messageOf(() => file.tensors.get("transformer.ln_f.weight")!.read())).toMatch(
      /^IO_TRUNCATED: /,
    );
    await file.close();
    await rm(folder, { recursive: true });
  });
});

describe("data stays on disk", () => {
  it("until it is asked for, and then only the range", async () => {
    const zip = torchZip(pickle(dict({ w: tensor() })));
    const reads: [number, number][] = [];
    const inner = memory(zip);
    const file: FileBytes = {
      ...inner,
      read(begin, end) {
        reads.push([begin, end]);
        return inner.read(begin, end);
      },
    };
    const { tensors } = await readPytorchBin(file);
    const data = Buffer.from(zip).indexOf(SIX);
    const touched = (begin: number, end: number) => begin < data + SIX.length && end > data;
    // The end record is looked for in the last 64 KiB, which is all of this file.
    expect(reads.filter(([begin, end]) => touched(begin, end)).map(([begin]) => begin)).toEqual([0, 0]);
    reads.length = 0;
    expect(await tensors.get("w")!.read(4, 12)).toEqual(SIX.slice(4, 12));
    expect(reads).toEqual([
      [data, data + 24],
      [data + 4, data + 12],
    ]);
    await tensors.get("w")!.read(0, 4);
    expect(reads.slice(2)).toEqual([[data, data + 4]]);
  });
  it("a wrong range is the caller's fault", async () => {
    const { tensors } = await openBin(torchZip(pickle(dict({ w: tensor() }))));
    await expect(tensors.get("w")!.read(0, 25)).rejects.toThrow("bytes [0, 25) of tensor `w`, which has 24");
  });
});

describe("files of other kinds", () => {
  it.each<[string, Part, RegExp]>([
    [
      "a bare pickle that calls",
      pickle(global("posix", "system"), "(", str("id"), "tR"),
      /^PICKLE_GLOBAL: f\.bin: `posix system` at byte 2 is not allowed; this file may be malicious/,
    ],
    [
      "the same as protocol 0",
      bytes("cposix\nsystem\n(tR."),
      /^PICKLE_GLOBAL: f\.bin: `posix system` at byte 0 /,
    ],
    ["a bare pickle", pickle(dict({})), /^LEGACY_MAGIC: /],
    ["a bare pickle with bytes behind it", bytes(pickle(dict({})), "x"), /^PICKLE_TRAILING: /],
    ["nothing", bytes(), /^PICKLE_TRUNCATED: /],
    [
      "big-endian zip",
      torchZip(pickle(dict({ w: tensor() })), undefined, [{ name: "model/byteorder", data: "big" }]),
      /^BYTEORDER: f\.bin: byte order: got `big`, expected `little`/,
    ],
    [
      "tar",
      bytes("sys_info", new Uint8Array(249), "ustar  \0", new Uint8Array(500)),
      /^LEGACY_TAR: f\.bin: a tar file.*save it again with torch\.save/,
    ],
    [
      "Git LFS pointer",
      bytes("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
      /^LFS_POINTER: /,
    ],
    ["GGUF", bytes("GGUF", new Uint8Array(64).fill(3)), /^WRONG_FORMAT: f\.bin: looks like a GGUF file/],
    ["safetensors", bytes(u32(2), u32(0), "{}"), /^WRONG_FORMAT: f\.bin: looks like a safetensors file/],
    ["HTML", bytes("<!DOCTYPE html><html>"), /^WRONG_FORMAT: f\.bin: looks like an HTML page/],
    ["text", bytes("some notes on the model"), /^PICKLE_\w+: /],
  ])("%s", async (_, file, message) => {
    expect(await refusal(file)).toMatch(message);
  });
  it("a folder", async () => {
    expect(await messageOf(() => openPytorchBin(TINY))).toMatch(/^IO: .*not a regular file/);
  });
});

describe("any bytes", () => {
  const seeds = [torchZip(pickle(dict({ w: tensor(), v: tensor({ stride: [1, 2] }) }))), torchLegacy()];
  it("that differ from a sound file in a few places open or give a CheckpointError", async () => {
    const change = fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...seeds),
        fc.array(change, { minLength: 1, maxLength: 4 }),
        async (seed, changes) => {
          const mutant = seed.slice();
          for (const [at, byte] of changes) mutant[at % mutant.length] = byte;
          const message = await messageOf(async () => {
            for (const tensor of (await openBin(mutant)).tensors.values()) await tensor.read();
          });
          expect(message).not.toMatch(/^not ours/);
        },
      ),
      { numRuns: 1000 },
    );
  });
});

it("a file saved as code.bin has a folder code/, which makes it no program", async () => {
  const file = writeZip(
    [
      { name: "code/data.pkl", data: pickle(dict({ w: tensor() })) },
      { name: "code/data/0", data: SIX },
      { name: "code/version", data: "3\n" },
    ],
    { zip64: true },
  );
  expect([...(await openBin(file)).tensors.keys()]).toEqual(["w"]);
});
