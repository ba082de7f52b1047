import { describe, expect, it } from "vitest";
import { crc32 } from "../../src/formats/crc32.ts";
import { bytes } from "./pickle-assembler.ts";

describe("crc32", () => {
  it("gives the check value of the standard, whole or in pieces", () => {
    const text = bytes("123456789");
    expect(crc32(text)).toBe(0xcbf43926);
    expect(crc32(text.subarray(4), crc32(text.subarray(0, 4)))).toBe(0xcbf43926);
    expect(crc32(new Uint8Array())).toBe(0);
  });
  it("does not depend on where a piece ends, at lengths round the slice of 8 bytes", () => {
    const text = Uint8Array.from({ length: 100 }, (_, i) => (i * 37) & 0xff);
    for (let cut = 0; cut <= 40; cut++) {
      expect(crc32(text.subarray(cut), crc32(text.subarray(0, cut)))).toBe(crc32(text));
    }
  });
});
