import { describe, expect, it } from "vitest";
import { crc32 } from "../../src/formats/crc32.ts";
import type { FileBytes } from "../../src/formats/file-bytes.ts";
import { readEntry, readZip, verifyCrc } from "../../src/formats/zip.ts";
import { bytes, dict, pickle, tensor, u16, u32, u64 } from "./pickle-assembler.ts";
import { memory, messageOf, openBin, torchZip } from "./torch-files.ts";
import { type EntryPlan, writeZip, type ZipPlan, zip64Extra } from "./zip-writer.ts";

const GOOD = pickle(dict({ w: tensor() }));

/** Two small entries, the first replaced in part. */
function twoEntries(first: Partial<EntryPlan> = {}, plan: ZipPlan = {}): Uint8Array {
  return writeZip(
    [
      { name: "a/one", data: "first", ...first },
      { name: "a/two", data: "second" },
    ],
    plan,
  );
}

function refusal(zip: Uint8Array): Promise<string> {
  return messageOf(() => readZip(memory(zip)));
}

describe("a sound zip", () => {
  it("gives each entry's place by the local header's own extra field", async () => {
    const zip = twoEntries({ localExtra: bytes("FB", u16(5), "ZZZZZ") });
    const entries = await readZip(memory(zip));
    expect([...entries.keys()]).toEqual(["a/one", "a/two"]);
    expect(new TextDecoder().decode(await readEntry(memory(zip), entries.get("a/one")!, 99))).toBe("first");
    expect(new TextDecoder().decode(await readEntry(memory(zip), entries.get("a/two")!, 99))).toBe("second");
  });
  it("may have the zip64 end record, a comment, a data descriptor", async () => {
    expect((await readZip(memory(twoEntries({}, { zip64: true })))).size).toBe(2);
    expect((await readZip(memory(twoEntries({}, { comment: "made by hand" })))).size).toBe(2);
    expect((await readZip(memory(twoEntries({ flags: 0x0808, localCrc: 0 })))).size).toBe(2);
  });
  it("may keep sizes and offsets in zip64 fields", async () => {
    const zip = twoEntries({
      size: 0xffffffff,
      offset: 0xffffffff,
      extra: bytes("FB", u16(1), "Z", zip64Extra(5, 5, 0)),
    });
    const entry = (await readZip(memory(zip))).get("a/one")!;
    expect(new TextDecoder().decode(await readEntry(memory(zip), entry, 99))).toBe("first");
  });
  it("may be larger than 4 GiB", async () => {
    const size = 5 * 2 ** 30;
    const holeAt = 35;
    // The sound zip of an entry without data, its data moved in between as a hole that reads as zeros.
    const zip = writeZip([
      { name: "a/big", data: "", crc: 7, size: 0xffffffff, extra: zip64Extra(size, size) },
      { name: "a/two", data: "second", offset: 0xffffffff, extra: zip64Extra(holeAt + size) },
    ]);
    const directory = zip.length - 22 - 2 * 51 - 20 - 12;
    const tail = bytes(
      zip.subarray(holeAt, zip.length - 22),
      ...["PK\x06\x06", u64(44), u32(0), u32(0), u32(0), u64(2), u64(2), u64(134), u64(directory + size)],
      ...["PK\x06\x07", u32(0), u64(zip.length - 22 + size), u32(1)],
      ...["PK\x05\x06", u32(0), u16(2), u16(2), u32(134), u32(0xffffffff), u16(0)],
    );
    const file = withHole(bytes(zip.subarray(0, holeAt), tail), holeAt, size);
    const entries = await readZip(file);
    expect(entries.get("a/big")).toEqual({ name: "a/big", begin: holeAt, size, crc: 7 });
    expect(new TextDecoder().decode(await readEntry(file, entries.get("a/two")!, 99))).toBe("second");
  });
});

/** A file with `size` zero bytes put in at `at` that take no memory. */
function withHole(solid: Uint8Array, at: number, size: number): FileBytes {
  return {
    path: "f.bin",
    size: solid.length + size,
    async read(begin, end) {
      const zeros = Math.max(0, Math.min(end, at + size) - Math.max(begin, at));
      const before = solid.subarray(Math.min(begin, at), Math.min(end, at));
      const after = solid.subarray(Math.max(at, begin - size), Math.max(at, end - size));
      return bytes(before, new Uint8Array(zeros), after);
    },
    async close() {},
  };
}

describe("bad-inputs section 3", () => {
  it("1: no end record", async () => {
    const zip = twoEntries();
    expect(await refusal(zip.subarray(0, zip.length - 22))).toMatch(
      /^ZIP_END: f\.bin: no end record: got none/,
    );
  });
  it("2: a comment with a second end record in it", async () => {
    const inner = twoEntries();
    const zip = twoEntries({}, { comment: inner.subarray(inner.length - 22) });
    expect(await refusal(zip)).toMatch(
      /^ZIP_END_TWICE: f\.bin: end record: got a second one inside its comment/,
    );
    const short = twoEntries({}, { comment: "PK\x05\x06 and less than a record" });
    expect(await refusal(short)).toMatch(/^ZIP_END_TWICE: /);
  });
  it("3: the local header has another name than the directory", async () => {
    const message =
      "ZIP_LOCAL_NAME: f.bin: local header of `a/one`: got name `a/0ne`, expected the directory's";
    expect(await refusal(twoEntries({ localName: "a/0ne" }))).toBe(message);
    expect(await refusal(twoEntries({ localName: "a/on" }))).toMatch(/^ZIP_LOCAL_NAME: /);
  });
  it("4: a local offset outside the file, in the directory, or at no header", async () => {
    const second = (offset: number) =>
      writeZip([
        { name: "a/one", data: "first" },
        { name: "a/two", data: "second", offset },
      ]);
    expect(await refusal(second(0x7fffffff))).toMatch(
      /^ZIP_OFFSET: f\.bin: local header of `a\/two`: got byte 2147483647/,
    );
    expect(await refusal(second(90))).toMatch(/^ZIP_OFFSET: /);
    expect(await refusal(second(41))).toMatch(
      /^ZIP_OFFSET: f\.bin: local header of `a\/two`: got no header at byte 41/,
    );
  });
  it("5: two entries of one name", async () => {
    const message = "ZIP_DUPLICATE: f.bin: entry `a/two`: got two of the name, expected one";
    expect(await refusal(twoEntries({ name: "a/two" }))).toBe(message);
  });
  it("6: entries in one another", async () => {
    const inner = writeZip([{ name: "a/two", data: "second" }]);
    const zip = writeZip([
      { name: "a/one", data: inner.subarray(0, 41) },
      { name: "a/two", data: "second", offset: 35 },
    ]);
    const message =
      "ZIP_OVERLAP: f.bin: entry `a/two`: got begin 35, expected at least 71, the end of the entry before it";
    expect(await refusal(zip)).toBe(message);
    const same = writeZip([
      { name: "a/one", data: "first" },
      { name: "a/two", data: "second", offset: 0 },
    ]);
    expect(await refusal(same)).toMatch(/^ZIP_OVERLAP: /);
    // Only the local header's extra field makes these two overlap.
    const hidden = writeZip([
      { name: "a/one", data: "", localExtra: bytes("FB", u16(41), inner.subarray(0, 41)) },
      { name: "a/two", data: "second", offset: 39 },
    ]);
    expect(await refusal(hidden)).toMatch(/^ZIP_OVERLAP: /);
  });
  it("7: DEFLATE or another method", async () => {
    const message =
      "ZIP_METHOD: f.bin: entry `a/one` is compressed; re-save with torch.save: got method 8 (DEFLATE), expected 0 (stored)";
    expect(await refusal(twoEntries({ method: 8 }))).toBe(message);
    expect(await refusal(twoEntries({ method: 77 }))).toMatch(/^ZIP_METHOD: .*got method 77, expected 0/);
    expect(await refusal(twoEntries({ localMethod: 8 }))).toMatch(/^ZIP_LOCAL: /);
  });
  it.each([
    [0x1, "ZIP_ENCRYPTED: f.bin: entry `a/one` is encrypted: got flags 0x1, expected no encryption"],
    [0x20, "ZIP_FLAGS: f.bin: entry `a/one` is patch data: got flags 0x20, expected plain data"],
    [0x40, "ZIP_ENCRYPTED: f.bin: entry `a/one` is encrypted: got flags 0x40, expected no encryption"],
    [0x2000, "ZIP_ENCRYPTED: f.bin: entry `a/one` is encrypted: got flags 0x2000, expected no encryption"],
    [0x10, "ZIP_FLAGS: f.bin: entry `a/one`: got flags 0x10, expected at most 0x80e"],
  ])("8: flag 0x%x", async (flags, message) => {
    expect(await refusal(twoEntries({ flags }))).toBe(message);
  });
  it("9: a wrong checksum, of a storage at its first read and of the pickle at once", async () => {
    const zip = torchZip(GOOD, {}, [{ name: "model/data/0", data: new Uint8Array(24), crc: 1 }]);
    const file = await openBin(zip);
    const read = () => file.tensors.get("w")!.read(0, 4);
    const zeros = crc32(new Uint8Array(24)).toString(16);
    expect(await messageOf(read)).toBe(
      `ZIP_CRC: f.bin: checksum of entry \`model/data/0\`: got ${zeros}, expected 00000001; the file is damaged, fetch it again`,
    );
    expect(await messageOf(read)).toMatch(/^ZIP_CRC: /);
    const damaged = torchZip(GOOD, undefined, [{ name: "model/data.pkl", data: GOOD, crc: 1 }]);
    expect(await messageOf(() => openBin(damaged))).toMatch(
      /^ZIP_CRC: f\.bin: checksum of entry `model\/data\.pkl`/,
    );
  });
  it("10: zip64 sizes of 2^63", async () => {
    const huge = 2n ** 63n;
    const entry = twoEntries({ size: 0xffffffff, extra: zip64Extra(huge, huge) });
    const size = entry.length;
    expect(await refusal(entry)).toBe(
      `ZIP_SIZE: f.bin: entry \`a/one\`: zip64 size: got ${huge}, expected at most the file's size ${size}`,
    );
    expect(await refusal(twoEntries({}, { zip64: true, directorySize: huge }))).toMatch(
      /^ZIP_SIZE: f\.bin: zip64 size of the directory: got 9223372036854775808/,
    );
    expect(await refusal(twoEntries({}, { zip64: true, count: huge }))).toMatch(/^ZIP_SIZE: /);
    expect(await refusal(twoEntries({ size: 0xffffffff }))).toMatch(
      /^ZIP_SIZE: f\.bin: entry `a\/one`: got no zip64 size/,
    );
  });
  it("11: compressed and uncompressed size differ in a stored entry", async () => {
    expect(await refusal(twoEntries({ compressed: 4 }))).toBe(
      "ZIP_SIZE: f.bin: entry `a/one`: got 4 bytes stored of 5, expected the same number",
    );
  });
  it("12: 65,536 entries", async () => {
    const entries = Array.from({ length: 65_536 }, (_, i) => ({ name: `${i}`, data: "" }));
    expect(await refusal(writeZip(entries, { zip64: true }))).toBe(
      "ZIP_ENTRIES: f.bin: entries: got 65536, expected at most 65535",
    );
    // Without zip64 the count wraps round.
    expect(await refusal(writeZip(entries, { count: 0 }))).toMatch(
      /^ZIP_DIRECTORY: f\.bin: directory: got more than the 0/,
    );
  });
  it.each(["../a", "a/../b", "/a", "a\\b", "a\0b", "C:/a", "a//b", "./a", ""])(
    "13: entry name %j",
    async (name) => {
      expect(await refusal(twoEntries({ name }))).toMatch(
        /^ZIP_NAME: f\.bin: entry name: got `.*`, expected a plain relative path$/,
      );
    },
  );
  it("14: two data.pkl, or none", async () => {
    const two = torchZip(GOOD, undefined, [{ name: "other/data.pkl", data: GOOD }]);
    expect(await messageOf(() => openBin(two))).toBe(
      "ZIP_DATA_PKL: f.bin: entries named data.pkl: got 2, expected one",
    );
    expect(await messageOf(() => openBin(twoEntries()))).toBe(
      "ZIP_DATA_PKL: f.bin: entries named data.pkl: got none, expected one",
    );
  });
  it("15: something before the zip", async () => {
    const before = bytes(u64(2), "{}");
    expect(await refusal(twoEntries({}, { prefix: before }))).toMatch(
      /^ZIP_PREFIX: f\.bin: first bytes: got 2 0 0 0/,
    );
    expect(await messageOf(() => openBin(torchZip(GOOD, undefined, [], { prefix: before })))).toMatch(
      /^ZIP_PREFIX: /,
    );
    // A zip's first bytes, and the zip that is meant behind them.
    const decoy = "PK\x03\x04 not the first entry of the directory";
    expect(await refusal(twoEntries({}, { prefix: decoy }))).toMatch(
      /^ZIP_PREFIX: f\.bin: first entry `a\/one`/,
    );
  });
  it.each(["model/constants.pkl", "model/code/__torch__.py"])("16: TorchScript (%s)", async (name) => {
    const zip = torchZip(GOOD, undefined, [{ name, data: "x" }]);
    expect(await messageOf(() => openBin(zip))).toBe(
      `TORCHSCRIPT: f.bin: a TorchScript program, not a state dict: got entry \`${name}\`, expected only tensors; save model.state_dict()`,
    );
  });
  it("17: the last entry is cut off", async () => {
    const zip = twoEntries();
    expect(await refusal(zip.subarray(0, zip.length - 140))).toMatch(/^ZIP_END: f\.bin: no end record/);
    const long = writeZip([
      { name: "a/one", data: "first" },
      { name: "a/two", data: "second", size: 7 },
    ]);
    expect(await refusal(long)).toBe(
      "ZIP_TRUNCATED: f.bin: entry `a/two`: got an end at byte 82, expected at most 81, where the directory begins",
    );
    const longer = writeZip([{ name: "a/one", data: "first", size: 4000 }]);
    expect(await refusal(longer)).toMatch(/^ZIP_TRUNCATED: /);
  });
});

describe("a zip that two readers could see differently", () => {
  it.each<[string, Uint8Array, RegExp]>([
    ["a gap before the end record", twoEntries({}, { gap: "hidden" }), /^ZIP_DIRECTORY: /],
    ["a directory outside the file", twoEntries({}, { directoryOffset: 5000 }), /^ZIP_DIRECTORY: /],
    ["more entries announced than there are", twoEntries({}, { count: 3 }), /^ZIP_DIRECTORY: /],
    ["fewer", twoEntries({}, { count: 1 }), /^ZIP_DIRECTORY: /],
    ["another checksum in the local header", twoEntries({ localCrc: 5 }), /^ZIP_LOCAL: /],
    ["another disk", twoEntries({ disk: 1 }), /^ZIP_DISK: /],
    ["an extra field that is cut", twoEntries({ extra: bytes(u16(1), u16(9), "x") }), /^ZIP_EXTRA: /],
    ["a name of 2,000 bytes", twoEntries({ name: "n".repeat(2000) }), /^ZIP_NAME: .*got 2000 bytes/],
    ["no bytes at all", new Uint8Array(), /^ZIP_PREFIX: f\.bin: first bytes: got nothing/],
  ])("%s is refused", async (_, zip, message) => {
    expect(await refusal(zip)).toMatch(message);
  });
  it("no prefix of a sound zip is a sound zip", async () => {
    const zip = twoEntries({}, { zip64: true });
    for (let length = 0; length < zip.length; length++) {
      expect(await refusal(zip.subarray(0, length))).toMatch(/^ZIP_/);
    }
  });
});

describe("verifyCrc", () => {
  it("never holds more than a few megabytes", async () => {
    const solid = writeZip([{ name: "a", data: "" }]);
    const size = 20_000_000;
    const reads: number[] = [];
    const hole = withHole(solid, 31, size);
    const file: FileBytes = {
      ...hole,
      read(begin, end) {
        reads.push(end - begin);
        return hole.read(begin, end);
      },
    };
    await verifyCrc(file, { name: "a", begin: 31, size, crc: crc32(new Uint8Array(size)) });
    expect(Math.max(...reads)).toBeLessThanOrEqual(4 * 1024 * 1024);
    expect(reads.reduce((sum, length) => sum + length, 0)).toBe(size);
  });
});
