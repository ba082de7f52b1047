import { describe, expect, it } from "vitest";
import { entry, header, openAs, refusal, safetensors } from "./safetensors-file.ts";

function refused(text: string, data: number | Uint8Array = 4): Promise<string> {
  return refusal(openAs(safetensors(text, data)));
}

/** A header of U8 tensors t0, t1, … at the given offsets. */
function ranges(...offsets: [number, number][]): string {
  const entries = offsets.map(([begin, end], index) => {
    return `"t${index}":${entry('"U8"', `[${end - begin}]`, `[${begin},${end}]`)}`;
  });
  return `{${entries.join(",")}}`;
}

describe("safetensors: one tensor's entry", () => {
  it.each(["dtype", "shape", "data_offsets"])("16: no %s", async (field) => {
    const whole = { dtype: "U8", shape: [4], data_offsets: [0, 4] };
    const text = JSON.stringify({ w: { ...whole, [field]: undefined } });
    expect(await refused(text)).toBe(`FIELD_MISSING: f: \`w\` has no ${field}`);
  });

  it.each([
    ['"F31"', "dtype of `w`: got `F31`, expected one like F32"],
    ['"f32"', "dtype of `w`: got `f32`, expected one like F32"],
    ['"constructor"', "dtype of `w`: got `constructor`, expected one like F32"],
    ['""', "dtype of `w`: got ``, expected one like F32"],
    ["5", "dtype of `w` must be a string, got number"],
    ["null", "dtype of `w` must be a string, got null"],
  ])("17: dtype %s is unknown", async (dtype, detail) => {
    expect(await refused(header(dtype, "[1]", "[0,4]"))).toBe(`DTYPE_UNKNOWN: f: ${detail}`);
  });

  it.each([
    ["F8_E4M3", 1],
    ["F8_E5M2", 1],
    ["F8_E8M0", 1],
    ["F4", 0.5],
    ["F6_E2M3", 0.75],
    ["F6_E3M2", 0.75],
    ["C64", 8],
    ["U16", 2],
    ["U32", 4],
    ["U64", 8],
  ])("18: dtype %s is known, but not to this engine", async (dtype, size) => {
    const message = await refused(header(`"${dtype}"`, "[8]", `[0,${8 * size}]`), 8 * size);
    expect(message).toBe(
      `DTYPE_UNSUPPORTED: f: dtype of \`w\`: got ${dtype}, ` +
        "expected one of F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL",
    );
  });

  it.each([
    ["4", "shape of `w` must be an array, got number"],
    ["null", "shape of `w` must be an array, got null"],
    ['"4"', "shape of `w` must be an array, got string"],
    ['["2"]', "shape[0] of `w` must be a whole number, got string"],
    ["[1,null]", "shape[1] of `w` must be a whole number, got null"],
    ["[[4]]", "shape[0] of `w` must be a whole number, got array"],
    ["[-1]", "shape[0] of `w`: got -1, expected a whole number, 0 or more"],
    ["[-0]", "shape[0] of `w`: got -0, expected a whole number, 0 or more"],
    ["[1.5]", "shape[0] of `w`: got 1.5, expected a whole number, 0 or more"],
    ["[4.0]", "shape[0] of `w`: got 4.0, expected a whole number, 0 or more"],
    ["[1e2]", "shape[0] of `w`: got 1e2, expected a whole number, 0 or more"],
    [
      "[18446744073709551616]",
      "shape[0] of `w`: got 18446744073709551616, expected a whole number, 0 or more",
    ],
    ["[9007199254740993]", "shape of `w`: got 9007199254740993, expected at most 9007199254740992"],
    ["[0,9007199254740993]", "shape of `w`: got 9007199254740993, expected at most 9007199254740992"],
  ])("19: shape %s", async (shape, detail) => {
    expect(await refused(header('"U8"', shape, "[0,4]"))).toBe(`SHAPE: f: ${detail}`);
  });

  it("19: a dimension of a million digits is shown cut and costs nothing", async () => {
    const message = await refused(header('"U8"', `[${"9".repeat(1_000_000)}]`, "[0,4]"));
    expect(message).toBe(
      `SHAPE: f: shape[0] of \`w\`: got ${"9".repeat(40)}…, expected a whole number, 0 or more`,
    );
  });

  it("20: rank 9, rank a million, and rank 8 which is the most", async () => {
    const expected = "SHAPE_RANK: f: shape of `w`: got more than 8 values, expected at most 8";
    expect(await refused(header('"U8"', "[1,1,1,1,1,1,1,1,4]", "[0,4]"))).toBe(expected);
    expect(await refused(header('"U8"', `[${"1,".repeat(1_000_000)}4]`, "[0,4]"))).toBe(expected);
    const file = await openAs(safetensors(header('"U8"', "[1,1,1,1,1,1,1,4]", "[0,4]"), 4));
    expect(file.tensors.get("w")?.shape).toEqual([1, 1, 1, 1, 1, 1, 1, 4]);
  });

  it.each([
    ["21", '"U8"', "[2,18446744073709551614]"],
    ["21", '"U8"', "[3,9223372036854775807]"],
    ["21", '"F32"', "[2,9223372036854775807]"],
    ["21: in bits, not in elements:", '"U8"', "[2,9223372036854775807]"],
    ["21: in bits, not in elements:", '"F64"', "[288230376151711744]"],
    ["22: before the zero that would end it:", '"U8"', "[4294967296,4294967296,0]"],
  ])("%s %s %s overflows 64 bits", async (_why, dtype, shape) => {
    const message = await refused(header(dtype, shape, "[0,4]"));
    expect(message).toBe(
      `SIZE_OVERFLOW: f: size of \`w\` ${shape} ${JSON.parse(dtype)} does not fit in 64 bits`,
    );
  });

  it("22: a zero that comes first ends the product, as in the format's own reader", async () => {
    const file = await openAs(safetensors(header('"U8"', "[0,4294967296,4294967296]", "[0,0]")));
    expect(file.tensors.get("w")).toMatchObject({ shape: [0, 2 ** 32, 2 ** 32], byteLength: 0 });
  });

  it.each([
    ["[]", "data_offsets of `w`: got 0 values, expected 2"],
    ["[0]", "data_offsets of `w`: got 1 values, expected 2"],
    ["[0,4,8]", "data_offsets of `w`: got more than 2 values, expected 2"],
    ["[-4,0]", "data_offsets[0] of `w`: got -4, expected a whole number, 0 or more"],
    ["[0,4.0]", "data_offsets[1] of `w`: got 4.0, expected a whole number, 0 or more"],
    ['[0,"4"]', "data_offsets[1] of `w` must be a whole number, got string"],
    ['{"0":0}', "data_offsets of `w` must be an array, got object"],
    ["[0,9007199254740993]", "data_offsets of `w`: got 9007199254740993, expected at most 9007199254740992"],
  ])("23: data_offsets %s", async (offsets, detail) => {
    expect(await refused(header('"U8"', "[4]", offsets))).toBe(`OFFSETS: f: ${detail}`);
  });

  it("24: the end before the begin", async () => {
    const message = await refused(header('"U8"', "[4]", "[4,0]"));
    expect(message).toBe("OFFSETS: f: data_offsets of `w` end at 0, before they begin at 4");
  });
});

describe("safetensors: tensors, data and file", () => {
  it("25: the end beyond the file", async () => {
    const message = await refused(`{"test":${entry('"I32"', "[2,2]", "[0,16]")}}`, 14);
    expect(message).toBe("INCOMPLETE: f: data needs 16 bytes, file has 14");
  });

  it("26: a size that is not shape times dtype", async () => {
    const message = await refused(`{"test":${entry('"I32"', "[2,2]", "[0,4]")}}`, 4);
    expect(message).toBe("SIZE_MISMATCH: f: `test` [2,2] I32 needs 16 bytes, offsets give 4");
  });

  it("27: ten tensors over one range", async () => {
    const same = Array.from(
      { length: 10 },
      (_, index) => `"weight_${index}":${entry('"I32"', "[2,2]", "[0,16]")}`,
    );
    expect(await refused(`{${same.join(",")}}`, 16)).toBe("OVERLAP: f: `weight_1` begins at 0, expected 16");
  });

  it("28: a partial overlap, whatever the order in the header", async () => {
    expect(await refused(ranges([0, 4], [2, 6]), 6)).toBe("OVERLAP: f: `t1` begins at 2, expected 4");
    expect(await refused(ranges([2, 6], [0, 4]), 6)).toBe("OVERLAP: f: `t0` begins at 2, expected 4");
    expect(await refused(ranges([0, 8], [4, 4]), 8)).toBe("OVERLAP: f: `t1` begins at 4, expected 8");
  });

  it("29: a hole between two tensors", async () => {
    expect(await refused(ranges([0, 4], [6, 8]), 8)).toBe("HOLE: f: `t1` begins at 6, expected 4");
  });

  it("30: a hole before the first tensor", async () => {
    expect(await refused(ranges([4, 8]), 8)).toBe("HOLE: f: `t0` begins at 4, expected 0");
  });

  it("31: bytes after the last tensor, as a polyglot with a zip or a pickle has them", async () => {
    const zip = new Uint8Array(38);
    zip.set([0x50, 0x4b, 0x03, 0x04], 4);
    expect(await refused(ranges([0, 4]), zip)).toBe("TRAILING: f: 34 bytes after the last tensor");
    const pickle = Uint8Array.from([0, 0, 0, 0, 0x80, 2, 0x7d, 0x2e]);
    expect(await refused(ranges([0, 4]), pickle)).toBe("TRAILING: f: 4 bytes after the last tensor");
  });

  it("32: two bytes missing", async () => {
    expect(await refused(ranges([0, 4], [4, 8]), 6)).toBe("INCOMPLETE: f: data needs 8 bytes, file has 6");
  });

  it("33: no tensor, but data", async () => {
    expect(await refused("{}", 4)).toBe("TRAILING: f: 4 bytes after the last tensor");
    expect((await openAs(safetensors("{}"))).tensors.size).toBe(0);
  });

  it("34: elements of less than a byte that do not fill the last one", async () => {
    const message = await refused(header('"F4"', "[3]", "[0,2]"), 2);
    expect(message).toBe("MISALIGNED: f: `w` [3] F4 needs 12 bits, which is no whole byte");
    expect(await refused(header('"F6_E2M3"', "[2]", "[0,1]"), 1)).toContain("MISALIGNED: f: `w` [2] F6_E2M3");
  });

  it("35: 100,001 tensors, refused before the rest is read; 100,000 are the most", async () => {
    const zero = entry('"U8"', "[0]", "[0,0]");
    const many = Array.from({ length: 100_000 }, (_, index) => `"${index}":${zero}`).join(",");
    expect((await openAs(safetensors(`{"__metadata__":{},${many}}`))).tensors.size).toBe(100_000);
    expect(await refused(`{${many},"more":${zero},this is never reached`)).toBe(
      "TOO_MANY_TENSORS: f: header has more than 100000 tensors",
    );
  });

  it.each(["a\0b", "../x", "/etc/passwd", "__proto__", "constructor", "", "x".repeat(4096), "重み"])(
    "36: the name %j is a name and nothing else",
    async (name) => {
      const file = await openAs(safetensors(`{${JSON.stringify(name)}:${entry('"U8"', "[1]", "[0,1]")}}`, 1));
      expect([...file.tensors.keys()]).toEqual([name]);
      expect(file.tensors.get(name)?.name).toBe(name);
      expect(file.tensors.get("toString")).toBeUndefined();
    },
  );

  it("36: a name of a megabyte is too long, and shown cut", async () => {
    const message = await refused(`{"${"x".repeat(1 << 20)}":${entry('"U8"', "[1]", "[0,1]")}}`);
    const shown = `\`${"x".repeat(80)}…\``;
    expect(message).toBe(
      `NAME_TOO_LONG: f: tensor name ${shown}: got 1048576 characters, expected at most 4096`,
    );
  });

  it("36: a name cannot break the line of a message or turn its text round", async () => {
    const name = JSON.stringify("a\nb\u202ec\u001b[31m");
    expect(await refused(`{${name}:${entry('"U8"', "[2]", "[0,1]")}}`)).toBe(
      "SIZE_MISMATCH: f: `a\\u{a}b\\u{202e}c\\u{1b}[31m` [2] U8 needs 2 bytes, offsets give 1",
    );
  });

  it("a tensor of no elements may share its offset with another", async () => {
    const text = `{"a":${entry('"U8"', "[4]", "[0,4]")},"b":${entry('"F32"', "[0,3]", "[0,0]")},"c":${entry('"U8"', "[0]", "[4,4]")}}`;
    expect([...(await openAs(safetensors(text, 4))).tensors.keys()]).toEqual(["a", "b", "c"]);
  });

  it("a tensor of rank 0 has one element", async () => {
    const file = await openAs(safetensors(header('"F32"', "[]", "[0,4]"), 4));
    expect(file.tensors.get("w")).toMatchObject({ shape: [], byteLength: 4 });
  });

  it("a field that the format does not know is passed over", async () => {
    const text = `{"w":{"dtype":"U8","shape":[1],"note":{"a":[1.5,true,null,"x"]},"data_offsets":[0,1]}}`;
    expect((await openAs(safetensors(text, 1))).tensors.get("w")?.byteLength).toBe(1);
  });
});
