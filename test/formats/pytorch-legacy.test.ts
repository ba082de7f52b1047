import { describe, expect, it } from "vitest";
import type { StoredTensor } from "../../src/formats/tensor-file.ts";
import { bytes, dict, global, int, list, type Part, pickle, str, tensor, u32 } from "./pickle-assembler.ts";
import { messageOf, openBin, SIX, torchLegacy } from "./torch-files.ts";

/** The values of a float32 tensor. */
async function floats(tensor: StoredTensor): Promise<number[]> {
  return [...new Float32Array((await tensor.read()).slice().buffer)];
}

function refusal(...file: readonly Part[]): Promise<string> {
  return messageOf(() => openBin(...file));
}

describe("what a file's pickles may ask for together", () => {
  it("is one budget", async () => {
    const lists = (count: number) => list(...Array.from({ length: count }, () => list()));
    const many = list(...Array.from({ length: 13 }, () => lists(8_000)));
    const system = pickle(dict({ little_endian: 0x88, many }));
    expect((await openBin(torchLegacy({ system }))).tensors.size).toBe(1);
    const model = pickle(dict({ w: tensor({ legacy: true }), many }));
    expect(await messageOf(() => openBin(torchLegacy({ system, model })))).toMatch(
      /^PICKLE_LIMIT: f\.bin: containers: got more than 200000, expected fewer/,
    );
  });
});

describe("bad-inputs section 2: the older form", () => {
  it("is read", async () => {
    const { tensors } = await openBin(torchLegacy());
    expect(await floats(tensors.get("w")!)).toEqual([0, 1, 2, 3, 4, 5]);
  });
  it("with a state dict longer than the first window", async () => {
    const notes = Array.from({ length: 10 }, (_, i) => [`note ${i}`, str("x".repeat(60_000))] as const);
    const file = await openBin(
      torchLegacy({ model: pickle(dict([...notes, ["w", tensor({ legacy: true })]])) }),
    );
    expect(await floats(file.tensors.get("w")!)).toEqual([0, 1, 2, 3, 4, 5]);
  });
  const bypass = pickle(global("builtins", "eval"), "(", str("0x1950a86a20f9469cfc6c"), "tR");
  it.each<[string, Part, RegExp]>([
    [
      "wrong magic",
      torchLegacy({ magic: pickle(0x8a, 10, "\x6d\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") }),
      /^LEGACY_MAGIC: f\.bin: magic number/,
    ],
    ["a magic that is computed (pytorch_magic_bypass.pt)", torchLegacy({ magic: bypass }), /^LEGACY_MAGIC: /],
    [
      "protocol 1002",
      torchLegacy({ protocol: pickle(int(1002)) }),
      /^LEGACY_PROTOCOL: f\.bin: protocol: got 1002, expected 1001/,
    ],
    ["no protocol", torchLegacy({ protocol: pickle("N") }), /^LEGACY_PROTOCOL: f\.bin: protocol: got None/],
    [
      "big endian",
      torchLegacy({ system: pickle(dict({ little_endian: 0x89 })) }),
      /^LEGACY_ENDIAN: f\.bin: byte order: got big-endian/,
    ],
    [
      "no byte order",
      torchLegacy({ system: pickle(dict({})) }),
      /^LEGACY_ENDIAN: f\.bin: byte order: got nothing/,
    ],
    [
      "a key that no tensor uses",
      torchLegacy({ keys: pickle(list(str("0"), str("1"))) }),
      /^LEGACY_KEYS: f\.bin: list of keys: got `1`, which no tensor uses/,
    ],
    ["a key twice", torchLegacy({ keys: pickle(list(str("0"), str("0"))) }), /^LEGACY_KEYS: .*got `0` twice/],
    [
      "a key missing",
      torchLegacy({ keys: pickle(list()) }),
      /^LEGACY_KEYS: f\.bin: list of keys: got 0, expected the 1/,
    ],
    ["a key that is a number", torchLegacy({ keys: pickle(list(int(0))) }), /^LEGACY_KEYS: .*got a number/],
    ["no list of keys", torchLegacy({ keys: pickle("N") }), /^LEGACY_KEYS: f\.bin: list of keys: got None/],
    [
      "another number of elements",
      torchLegacy({ data: bytes(u32(7), u32(0), SIX, u32(0)) }),
      /^LEGACY_NUMEL: f\.bin: storage `0`: got 7 elements before its data, expected 6/,
    ],
    [
      "minus one element",
      torchLegacy({ data: bytes("\xff".repeat(8), SIX) }),
      /^LEGACY_NUMEL: .*got -1 elements/,
    ],
    [
      "data cut off",
      torchLegacy({ data: bytes(u32(6), u32(0), SIX.subarray(1)) }),
      /^LEGACY_TRUNCATED: f\.bin: storage `0`/,
    ],
    ["no data", torchLegacy({ data: bytes() }), /^LEGACY_TRUNCATED: /],
    [
      "bytes after the data",
      torchLegacy({ data: bytes(u32(6), u32(0), SIX, "PK") }),
      /^LEGACY_TRAILING: f\.bin: after the last storage: got 2 bytes/,
    ],
    [
      "a call in the state dict",
      torchLegacy({ model: pickle(global("posix", "system")) }),
      /^PICKLE_GLOBAL: f\.bin: `posix system` at byte 2 /,
    ],
    ["a call in the keys", torchLegacy({ keys: pickle(global("posix", "system")) }), /^PICKLE_GLOBAL: /],
  ])("62: %s", async (_, file, message) => {
    expect(await refusal(file)).toMatch(message);
  });
  it("62: every cut is refused", async () => {
    const file = torchLegacy();
    for (let length = 0; length < file.length; length++) {
      expect(await refusal(file.subarray(0, length))).toMatch(/^(?:PICKLE_TRUNCATED|LEGACY_\w+): f\.bin: /);
    }
  });
});
