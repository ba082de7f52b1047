import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { embedding } from "../src/ops/embedding.ts";
import { type Channel, dequantize, quantize, raiseScales } from "../src/quantize.ts";
import { Tensor } from "../src/tensor.ts";
import { openTestGpu } from "./gpu-fixture.ts";
import { tableOf } from "./ops/table-of.ts";

const float = fc.float({ noNaN: true, noDefaultInfinity: true });
/** Up to 6 rows of up to 6 floats of any size. */
const matrices = fc
  .tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 }))
  .chain(([rows, cols]) =>
    fc.record({
      cols: fc.constant(cols),
      values: fc
        .array(float, { minLength: rows * cols, maxLength: rows * cols })
        .map((numbers) => Float32Array.from(numbers)),
      channel: fc.constantFrom<Channel>("row", "column"),
    }),
  );

function quantized(values: Float32Array, cols: number, channel: Channel) {
  const scales = new Float32Array(channel === "row" ? values.length / cols : cols);
  raiseScales(values, cols, channel, scales);
  return { scales, bytes: quantize(values, cols, channel, scales) };
}

const scaleAt = (scales: Float32Array, i: number, cols: number, channel: Channel) =>
  scales[channel === "row" ? Math.floor(i / cols) : i % cols]!;

describe("bytes with a scale for each channel", () => {
  it("are at most half a step of their channel from the weights", () => {
    fc.assert(
      fc.property(matrices, ({ values, cols, channel }) => {
        const { scales, bytes } = quantized(values, cols, channel);
        const back = dequantize(bytes, cols, channel, scales);
        values.forEach((w, i) => {
          const scale = scaleAt(scales, i, cols, channel);
          // A little more for the rounding of float64.
          expect(Math.abs(w - back[i]!)).toBeLessThanOrEqual((scale / 254) * (1 + 1e-12));
        });
      }),
    );
  });

  it("give the largest weight of a channel exactly, and its sign", () => {
    fc.assert(
      fc.property(matrices, ({ values, cols, channel }) => {
        const { scales, bytes } = quantized(values, cols, channel);
        values.forEach((w, i) => {
          const scale = scaleAt(scales, i, cols, channel);
          if (Math.abs(w) === scale && w !== 0) expect(bytes[i]).toBe(Math.sign(w) * 127);
          expect(Math.abs(bytes[i]!)).toBeLessThanOrEqual(127);
        });
      }),
    );
  });

  it("of what they stand for are the same bytes", () => {
    fc.assert(
      fc.property(matrices, ({ values, cols, channel }) => {
        const { scales, bytes } = quantized(values, cols, channel);
        const again = quantized(Float32Array.from(dequantize(bytes, cols, channel, scales)), cols, channel);
        // Below 2^-126 floats have fewer digits than a step needs.
        const normal = (i: number) => scaleAt(scales, i, cols, channel) > 2 ** -110;
        expect(again.scales).toEqual(scales);
        bytes.forEach((q, i) => {
          if (normal(i)) expect(again.bytes[i]).toBe(q);
        });
      }),
    );
  });

  it("of negated weights are the negated bytes", () => {
    fc.assert(
      fc.property(matrices, ({ values, cols, channel }) => {
        const { bytes } = quantized(values, cols, channel);
        const negated = quantized(
          values.map((w) => -w),
          cols,
          channel,
        );
        expect([...negated.bytes]).toEqual([...bytes].map((q) => (q === 0 ? 0 : -q)));
      }),
    );
  });

  it("keep zeros, and a channel of zeros has scale 0", () => {
    const values = Float32Array.of(0, 2, 0, 0, -4, 0);
    const columns = quantized(values, 3, "column");
    expect([...columns.scales]).toEqual([0, 4, 0]);
    expect([...columns.bytes]).toEqual([0, 64, 0, 0, -127, 0]);
    const rows = quantized(Float32Array.of(0, 0, 3, 0), 2, "row");
    expect([...rows.scales]).toEqual([0, 3]);
    expect([...rows.bytes]).toEqual([0, 0, 127, 0]);
  });

  it("take a value that is not finite as one that spoils its channel and no other", () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const { scales, bytes } = quantized(Float32Array.of(1, bad, 2, 3), 2, "column");
      expect(scales[0]).toBe(2);
      expect(Number.isFinite(scales[1])).toBe(false);
      expect([...bytes]).toEqual([64, 0, 127, 0]);
    }
  });

  it("may have their scales raised piece by piece", () => {
    fc.assert(
      fc.property(matrices, ({ values, cols }) => {
        const scales = new Float32Array(cols);
        for (let first = 0; first < values.length; first += cols)
          raiseScales(values.subarray(first, first + cols), cols, "column", scales);
        expect(scales).toEqual(quantized(values, cols, "column").scales);
      }),
    );
  });
});

it("every byte is on the GPU what it is here", async () => {
  const gpu = await openTestGpu();
  const bytes = Int8Array.from({ length: 255 }, (_, i) => i - 127);
  const word = tableOf(
    gpu,
    Float32Array.from(bytes, (q) => q * 3),
    255,
    "i8",
  );
  const nothing = tableOf(gpu, new Float32Array(255), 255, "i8");
  const first = Tensor.from(gpu, [1], [0], { dtype: "u32" });
  const values = await embedding(first, first, word, nothing).read();
  const wanted = dequantize(bytes, 255, "row", Float32Array.of(381));
  values.forEach((value, i) => {
    expect(Math.abs(value - wanted[i]!)).toBeLessThanOrEqual(Math.abs(wanted[i]!) * 2 ** -22);
  });
});
