import { attention } from "../ops/attention.ts";
import { attentionTiles } from "../ops/attention-tiles.ts";
import {
  FLASH_TILES,
  type FlashTile,
  firstFit,
  flashAttentionWith,
  flashBytes,
} from "../ops/flash-attention.ts";
import { kvWrite } from "../ops/kv-write.ts";
import { pagedAttention } from "../ops/paged-attention.ts";
import { ELEMENT_BYTES, Tensor } from "../tensor.ts";
import type { BenchShape, ShaderCase } from "./shader-case.ts";
import { STORED_AS_HALF, toleranceOf } from "./shader-check.ts";
import { shuffledIntegers } from "./shader-inputs.ts";
import { attentionOf } from "./shader-reference.ts";

// Cases of the kernels that know keys and values.

/** Slots in a page, as `--page-size` has it by default. */
const PAGE_SIZE = 16;

const DTYPES = ["f32", "f16"] as const;
type Storage = (typeof DTYPES)[number];

/** `sequences` sequences of `context` tokens each, of which the last `fresh` are new. */
interface Situation {
  readonly name: "decode" | "prefill";
  readonly sequences: number;
  readonly context: number;
  readonly fresh: number;
}

export function attentionCases(shape: BenchShape): ShaderCase[] {
  const [short, long] = shape.contexts;
  const [one, batch] = shape.fewRows;
  const prefill = shape.manyRows[1];
  const situations: Situation[] = [
    { name: "decode", sequences: one, context: short, fresh: 1 },
    { name: "decode", sequences: one, context: long, fresh: 1 },
    { name: "decode", sequences: batch, context: long, fresh: 1 },
    { name: "prefill", sequences: 1, context: prefill, fresh: prefill },
  ];
  const byRow = (["attention", "paged-attention"] as const).flatMap((kernel) =>
    DTYPES.flatMap((dtype) => situations.map((situation) => attentionCase(shape, situation, dtype, kernel))),
  );
  return [...byRow, ...flashCases(shape)];
}

/** A long prompt, and several of them: with the tile that the op has, and with others. */
function flashCases(shape: BenchShape): ShaderCase[] {
  const tokens = 2 * shape.manyRows[1];
  const prompts = (sequences: number): Situation => ({
    name: "prefill",
    sequences,
    context: tokens,
    fresh: tokens,
  });
  const flash = (sequences: number, dtype: Storage, tile?: FlashTile) =>
    attentionCase(shape, prompts(sequences), dtype, "flash-attention", tile);
  return [
    ...DTYPES.flatMap((dtype) => [flash(1, dtype), flash(8, dtype)]),
    ...FLASH_TILES.slice(1).map((tile) => flash(8, "f32", tile)),
  ];
}

function attentionCase(
  shape: BenchShape,
  situation: Situation,
  dtype: Storage,
  kernel: "attention" | "paged-attention" | "flash-attention",
  tile?: FlashTile,
): ShaderCase {
  const paged = kernel !== "attention";
  const { channels: C, heads } = shape;
  const { name, sequences, context, fresh } = situation;
  const headSize = C / heads;
  const rows = sequences * fresh;
  const visible = (row: number) => context - (fresh - 1 - (row % fresh));
  const positionsSeen = Array.from({ length: rows }, (_, row) => visible(row)).reduce((a, b) => a + b, 0);
  return {
    kernel,
    variant: tile ? `${dtype} kv, tiles ${tile.rows}×${tile.keys} by ${tile.lanes}` : `${dtype} kv`,
    shape:
      name === "decode"
        ? `decode ${sequences}×${context}`
        : `prefill ${sequences > 1 ? `${sequences}×` : ""}${fresh}`,
    suits: ({ limits }) =>
      !tile || flashBytes(tile, Math.ceil(headSize / 4)) <= limits.maxComputeWorkgroupStorageSize,
    readBytes: rows * C * 4 + 2 * sequences * context * C * ELEMENT_BYTES[dtype],
    writeBytes: rows * C * 4,
    // A multiplication and an addition for each channel of a position's key, and again of its value.
    flops: 4 * C * positionsSeen,
    tolerance: toleranceOf("attention", dtype),
    prepare(inputs) {
      // Pages in random order, as they are after a server has run for a while.
      const pages = Math.ceil(context / PAGE_SIZE);
      const order = paged ? shuffledIntegers(sequences * pages) : [];
      const count = paged ? sequences * pages * PAGE_SIZE : sequences * context;
      const qkv = inputs.random([rows, 3 * C]);
      const k = inputs.random([count, heads, headSize], dtype);
      const v = inputs.random([count, heads, headSize], dtype);
      const bySequence = <T>(make: (sequence: number) => T) =>
        Array.from({ length: sequences }, (_, s) => make(s));
      const starts = Array.from({ length: sequences + 1 }, (_, s) => s * fresh);
      const batch = {
        contextLens: inputs.integers([bySequence(() => context)]),
        queryStarts: inputs.integers([starts]),
        sequenceOf: inputs.integers([Array.from({ length: rows }, (_, row) => Math.floor(row / fresh))]),
      };
      const places = inputs.integers(
        paged ? bySequence((s) => order.slice(s * pages, (s + 1) * pages)) : [bySequence((s) => s * context)],
      );
      const slot = (row: number, position: number) => {
        const s = Math.floor(row / fresh);
        if (!paged) return s * context + position;
        return order[s * pages + Math.floor(position / PAGE_SIZE)]! * PAGE_SIZE + (position % PAGE_SIZE);
      };
      const scale = 1 / Math.sqrt(headSize);
      const tensors = [qkv.tensor, k.tensor, v.tensor] as const;
      const own = tile ?? firstFit(k.tensor) ?? FLASH_TILES.at(-1)!;
      const tiled = kernel === "flash-attention" && {
        ...batch,
        tiles: inputs.integers(pairs(attentionTiles(starts, own.rows))),
        tileRows: own.rows,
      };
      const slots = { part: "slots-paged", table: places, pageSize: PAGE_SIZE } as const;
      return {
        run() {
          if (tiled) return [flashAttentionWith(own, ...tensors, slots, tiled, scale)];
          if (paged) return [pagedAttention(...tensors, places, PAGE_SIZE, batch, scale)];
          return [attention(...tensors, places, batch, scale)];
        },
        expected: [attentionOf({ qkv: qkv.at, k: k.at, v: v.at, heads, headSize, scale, visible, slot })],
      };
    },
  };
}

const pairs = (list: Uint32Array): number[][] =>
  Array.from({ length: list.length / 2 }, (_, i) => [list[2 * i]!, list[2 * i + 1]!]);

export function kvWriteCases(shape: BenchShape): ShaderCase[] {
  const rows = [...shape.fewRows, shape.manyRows[1]];
  return DTYPES.flatMap((dtype) => rows.map((tokens) => kvWriteCase(shape, tokens, dtype)));
}

function kvWriteCase({ channels: C, heads }: BenchShape, tokens: number, dtype: Storage): ShaderCase {
  return {
    kernel: "kv-write",
    variant: `${dtype} kv`,
    shape: `${tokens}×${C}`,
    readBytes: tokens * (2 * C * 4 + 4),
    writeBytes: tokens * 2 * C * ELEMENT_BYTES[dtype],
    flops: 0,
    tolerance: dtype === "f32" ? toleranceOf("copy") : STORED_AS_HALF,
    prepare(inputs) {
      const qkv = inputs.random([tokens, 3 * C]);
      const slots = shuffledIntegers(tokens);
      const slotMapping = inputs.integers([slots]);
      const tokenIn = slots.map((_, slot) => slots.indexOf(slot));
      const stored = (part: number) => (index: number) =>
        qkv.at(tokenIn[Math.floor(index / C)]! * 3 * C + part * C + (index % C));
      return {
        run() {
          const make = () =>
            Tensor.empty(inputs.gpu, [tokens, heads, C / heads], { dtype, label: "kv-write" });
          const [k, v] = [make(), make()];
          kvWrite(qkv.tensor, slotMapping, k, v);
          return [k, v];
        },
        expected: [stored(1), stored(2)],
      };
    },
  };
}
