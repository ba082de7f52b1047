import { execFileSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bytesOf, type FileBytes, openBytes } from "../../src/formats/file-bytes.ts";
import { openSafetensors, readSafetensors } from "../../src/formats/safetensors.ts";
import { DTYPE_BYTES, type StoredDtype } from "../../src/formats/tensor-file.ts";
import { entry, header, openAs, refusal, safetensors } from "./safetensors-file.ts";

let folder = "";
const WINDOWS = process.platform === "win32";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "quire-files-"));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

describe("safetensors: files that are something else", () => {
  const pointer =
    "version https://git-lfs.github.com/spec/v1\n" +
    `oid sha256:${"0123456789abcdef".repeat(4)}\nsize 548105171\n`;

  it("37: a Git LFS pointer", async () => {
    const message = await refusal(openAs(latin1(pointer)));
    expect(message).toBe("LFS_POINTER: f: this is a Git LFS pointer, run git lfs pull");
  });

  it.each([
    ["a zip/pytorch file", "PK\x03\x04\x14\0\0\0\0\0archive/data.pkl"],
    ["a zip/pytorch file (empty)", "PK\x05\x06\0\0\0\0\0\0\0\0"],
    ["a pickle/pytorch file", "\x80\x02}q\0X\x05\0\0\0wte.w"],
    ["a pickle/pytorch file", "\x80\x04\x95\x10\0\0\0\0\0\0\0}."],
    ["a GGUF file (llama.cpp)", "GGUF\x03\0\0\0\x94\0\0\0\0\0\0\0"],
    ["a gzip file; unpack it first", "\x1f\x8b\x08\0\0\0\0\0\0\x03abc"],
    ["a bzip2 file; unpack it first", "BZh91AY&SY"],
    ["an xz file; unpack it first", "\xfd7zXZ\0\0\x04"],
    ["a zstd file; unpack it first", "\x28\xb5\x2f\xfd\x24\x05\0\0"],
    ["an HDF5 file (TensorFlow/Keras)", "\x89HDF\r\n\x1a\n\0\0"],
    ["a NumPy file", "\x93NUMPY\x01\0v\0{'descr'"],
    ["an HTML page (a failed download?)", "<!DOCTYPE html><html>"],
    ["an HTML page (a failed download?)", "\n <HTML lang=en>"],
    ["JSON text", '{"weights":"Repository not found"}'],
    ["JSON text with an error (a failed download?)", '{"error":"Repository not found"}'],
    ["a server's refusal in plain text (a failed download?)", "Not Found"],
    ["a server's refusal in plain text (a failed download?)", "Entry not found\n"],
    ["a server's refusal in plain text (a failed download?)", "Access denied."],
    [
      "a tar file (or PyTorch's oldest format)",
      `${"sys_info".padEnd(257, "\0")}ustar\0${"00".padEnd(249, "\0")}`,
    ],
  ])("38: %s", async (looksLike, content) => {
    const message = await refusal(openAs(latin1(content)));
    expect(message).toBe(`WRONG_FORMAT: f: looks like ${looksLike}, expected a safetensors file`);
  });

  it.each([0x8b1f, 0x088b1f, 0x0280, 0x7b, 0x6850])(
    "a header length of 0x%s that looks like a magic number is still a length",
    async (length) => {
      const text = header('"U8"', "[0]", "[0,0]").padEnd(length);
      expect((await openAs(safetensors(text))).tensors.size).toBe(1);
    },
  );
});

describe("safetensors: paths that are no readable file", () => {
  it("39: a directory", async () => {
    expect(await refusal(openSafetensors(folder))).toBe(
      `IO: ${folder}: not a regular file: got a directory, expected a model file`,
    );
  });

  it("39: a path that does not exist, or goes through a file", async () => {
    const file = join(folder, "plain");
    await writeFile(file, "x");
    expect(await refusal(openSafetensors(join(folder, "nothing")))).toMatch(/^IO: .*: cannot read: ENOENT/);
    expect(await refusal(openSafetensors(join(file, "below")))).toMatch(/^IO: .*: cannot read: E/);
    expect(await refusal(openSafetensors("a\0b"))).toMatch(/^IO: .*: cannot read: /);
  });

  // Windows has neither FIFOs nor device files, and links need a privilege there.
  it.skipIf(WINDOWS)("39: a FIFO without a writer, which must not be waited for", async () => {
    const fifo = join(folder, "fifo");
    execFileSync("mkfifo", [fifo]);
    expect(await refusal(openSafetensors(fifo))).toBe(
      `IO: ${fifo}: not a regular file: got a FIFO, expected a model file`,
    );
  });

  it.skipIf(WINDOWS)("39: /dev/zero, which never ends", async () => {
    const expected = "IO: /dev/zero: not a regular file: got a device, expected a model file";
    expect(await refusal(openSafetensors("/dev/zero"))).toBe(expected);
    const link = join(folder, "zero");
    await symlink("/dev/zero", link);
    expect(await refusal(openSafetensors(link))).toContain("not a regular file: got a device");
  });

  it.skipIf(WINDOWS)("39: a dangling link, and one that points to itself", async () => {
    const dangling = join(folder, "dangling");
    await symlink(join(folder, "gone"), dangling);
    expect(await refusal(openSafetensors(dangling))).toMatch(/^IO: .*: cannot read: ENOENT/);
    const circle = join(folder, "circle");
    await symlink(circle, circle);
    expect(await refusal(openSafetensors(circle))).toMatch(/^IO: .*: cannot read: ELOOP/);
  });

  // The superuser may read every file.
  it.skipIf(WINDOWS || process.getuid?.() === 0)("39: a file that may not be read", async () => {
    const secret = join(folder, "secret");
    await writeFile(secret, safetensors("{}"));
    await chmod(secret, 0);
    expect(await refusal(openSafetensors(secret))).toMatch(/^IO: .*: cannot read: EACCES/);
  });

  it("40: a file that shrinks after it was opened", async () => {
    const path = join(folder, "shrinking.safetensors");
    await writeFile(path, safetensors(header('"U8"', "[1000]", "[0,1000]"), 1000));
    const file = await openSafetensors(path);
    const tensor = file.tensors.get("w");
    expect((await tensor?.read())?.length).toBe(1000);
    await truncate(path, 500);
    expect(await refusal(tensor?.read() ?? Promise.resolve())).toMatch(
      /^IO_TRUNCATED: .*: file ended at byte 500, expected \d+ bytes$/,
    );
    await file.close();
  });

  it("40: a file that shrinks between its length and its header", async () => {
    const whole = safetensors(header('"U8"', "[4]", "[0,4]"), 4);
    const shrunk = bytesOf("f", whole.subarray(0, 20));
    const message = await refusal(readSafetensors({ ...shrunk, size: whole.length }));
    expect(message).toMatch(/^IO_TRUNCATED: f: bytes \[0, \d+\) wanted, file has 20$/);
  });

  it("a failed open leaves no file open", async () => {
    const path = join(folder, "bad.safetensors");
    await writeFile(path, safetensors("{"));
    // More often than a process may have files open, were they left.
    for (let round = 0; round < 200; round++)
      expect(await refusal(openSafetensors(path))).toContain("HEADER_JSON");
    if (process.platform === "linux") {
      const open = execFileSync("ls", ["-l", `/proc/${process.pid}/fd`], { encoding: "utf8" });
      expect(open).not.toContain("bad.safetensors");
    }
  });

  it("a closed file cannot be read", async () => {
    const path = join(folder, "closed");
    await writeFile(path, "0123456789");
    const file = await openBytes(path);
    expect(await file.read(2, 5)).toEqual(latin1("234"));
    expect((await file.read(10, 10)).length).toBe(0);
    await file.close();
    await file.close();
    expect(await refusal(file.read(0, 1))).toBe(`IO: ${path}: the file is closed already`);
  });
});

describe("safetensors: reading", () => {
  it("only the header is read on opening, and of a tensor only the range that is asked for", async () => {
    const path = join(folder, "ranges.safetensors");
    const data = Uint8Array.from({ length: 100_000 }, (_, index) => index % 251);
    const bytes = safetensors(
      `{"a":${entry('"U8"', "[60000]", "[0,60000]")},"b":${entry('"I32"', "[100,100]", "[60000,100000]")}}`,
      data,
    );
    await writeFile(path, bytes);
    const ranges: number[] = [];
    const source = await openBytes(path);
    const counted: FileBytes = {
      ...source,
      read: (begin, end) => {
        ranges.push(end - begin);
        return source.read(begin, end);
      },
    };
    const file = await readSafetensors(counted);
    expect(ranges.reduce((sum, length) => sum + length)).toBeLessThan(1000);
    ranges.length = 0;
    const b = file.tensors.get("b");
    expect(await b?.read(4, 12)).toEqual(data.slice(60_004, 60_012));
    expect(await b?.read(39_990)).toEqual(data.slice(99_990));
    expect(await b?.read()).toEqual(data.slice(60_000));
    expect(ranges).toEqual([8, 10, 40_000]);
    await expect(b?.read(-1, 4)).rejects.toThrow("bytes [-1, 4) of tensor `b`, which has 40000");
    await expect(b?.read(0, 40_001)).rejects.toThrow("bytes [0, 40001) of tensor `b`");
    await file.close();
  });

  it("what is written comes back: names, shapes, dtypes, metadata, bytes", async () => {
    const dtypes = Object.keys(DTYPE_BYTES) as StoredDtype[];
    const tensor = fc.record({
      name: fc.string({ unit: "binary", maxLength: 20 }).filter((name) => name !== "__metadata__"),
      dtype: fc.constantFrom(...dtypes),
      shape: fc.array(fc.nat(4), { maxLength: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 6 }),
        fc.dictionary(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), { maxKeys: 3 }),
        async (wanted, metadata) => {
          let end = 0;
          const entries = wanted.map(({ name, dtype, shape }) => {
            const begin = end;
            end += shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
            return { name, dtype, shape, begin, end };
          });
          const data = Uint8Array.from({ length: end }, (_, index) => index * 7);
          // From the last tensor to the first: the order of the header need not be that of the data.
          const members = [...entries].reverse().map(({ name, dtype, shape, begin, end }) => {
            return `${JSON.stringify(name)}:${entry(`"${dtype}"`, JSON.stringify(shape), `[${begin},${end}]`)}`;
          });
          const text = `{"__metadata__":${JSON.stringify(metadata)}${members.map((member) => `,${member}`).join("")}}`;
          const file = await openAs(safetensors(text, data));
          expect(new Map(file.metadata)).toEqual(new Map(Object.entries(metadata)));
          expect(file.tensors.size).toBe(entries.length);
          for (const { name, dtype, shape, begin, end } of entries) {
            const stored = file.tensors.get(name);
            expect(stored).toMatchObject({ name, dtype, shape, byteLength: end - begin });
            expect(await stored?.read()).toEqual(data.slice(begin, end));
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it("a header of nine megabytes with 100,000 tensors is read from a file", async () => {
    const path = join(folder, "many.safetensors");
    await mkdir(folder, { recursive: true });
    const names = Array.from({ length: 100_000 }, (_, index) => `transformer.h.${index}.attn.c_attn.weight`);
    const members = names.map(
      (name, index) => `"${name}":${entry('"U8"', "[1]", `[${index},${index + 1}]`)}`,
    );
    await writeFile(path, safetensors(`{${members.join(",")}}`, 100_000));
    expect((await readFile(path)).length).toBeGreaterThan(9_000_000);
    const file = await openSafetensors(path);
    expect(file.tensors.size).toBe(100_000);
    expect(await file.tensors.get(names[99_999] ?? "")?.read()).toEqual(new Uint8Array(1));
    await file.close();
  });
});
