import { check } from "../check.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { PADDING } from "../ops/attention.ts";
import { maxAttentionTiles } from "../ops/attention-tiles.ts";
import { LISTED_SETTINGS, NO_TOKEN, type SampleSettings, setListed, settingsWords } from "../ops/sample.ts";
import { KNOWN } from "../ops/take-tokens.ts";
import { Tensor } from "../tensor.ts";
import type { ForwardedToken, RaggedBatch, RaggedPiece } from "./ragged-batch.ts";

/** How many rows and samples the recording has that a batch is padded to. */
export interface Bucket {
  /** T. */
  readonly rows: number;
  /** 0 where nothing is sampled. */
  readonly samples: number;
  /** Does attention take its rows in tiles? */
  readonly tiles?: boolean;
}

/** What the arrays have to know of the step that they are for. */
export interface ArrayLimits {
  readonly maxSequences: number;
  readonly maxSeqLen: number;
  /** Slots of a page; undefined for strips. */
  readonly pageSize: number | undefined;
  /** Entries of a row of the slot table. */
  readonly tableWidth: number;
  /** Where keys and values of padding go. */
  readonly paddingSlot: number;
  readonly vocabSize: number;
  /** Rows of the tiles in which attention takes them; undefined: row by row. */
  readonly tileRows: number | undefined;
}

/** Launches whose tokens the ring on the GPU holds. */
export const RING_LAUNCHES = 4;

/** New tokens of a piece, on average, from which on a step is mostly prompts. */
const PROMPT_ROWS = 16;

/** A binding must begin at a multiple of 256 bytes. */
const ALIGN_WORDS = 64;

const SECTIONS = [
  "settings",
  "lastRows",
  "tokenIds",
  "sources",
  "positions",
  "slotMapping",
  "sequenceOf",
  "queryStarts",
  "contextLens",
  "tiles",
  // Last, since of its rows only those of the batch's sequences are uploaded.
  "slotTable",
] as const;
type Section = (typeof SECTIONS)[number];
type Layout = Readonly<Record<Section | "end", number>>;

/** The first word of every array for a bucket, and of what lies behind the last one. */
function layoutOf({ rows, samples }: Bucket, limits: ArrayLimits): Layout {
  const { maxSequences, tableWidth } = limits;
  const lengths: Record<Section, number> = {
    settings: LISTED_SETTINGS * samples,
    lastRows: samples,
    tokenIds: rows,
    sources: rows,
    positions: rows,
    slotMapping: rows,
    sequenceOf: rows,
    queryStarts: maxSequences + 1,
    contextLens: maxSequences,
    tiles: 2 * tileCount({ rows, samples }, limits),
    slotTable: maxSequences * tableWidth,
  };
  let end = 0;
  const layout = Object.fromEntries(
    SECTIONS.map((name) => {
      const at = end;
      end += Math.ceil(lengths[name] / ALIGN_WORDS) * ALIGN_WORDS;
      return [name, at];
    }),
  ) as Record<Section, number>;
  return { ...layout, end };
}

/** Tiles that the recording of a bucket has room for. */
function tileCount({ rows }: Bucket, { maxSequences, tileRows }: ArrayLimits): number {
  return tileRows === undefined ? 0 : maxAttentionTiles(rows, maxSequences, tileRows);
}

/** Words of the arrays of the largest bucket. */
export function arrayWords(largest: Bucket, limits: ArrayLimits): number {
  return layoutOf(largest, limits).end;
}

/**
 * The integer arrays of a step of many sequences. They lie in one buffer, those of each bucket in places of their own, so that
 * one upload brings them all.
 */
export class RaggedArrays {
  readonly buffer: Tensor;
  private readonly limits: ArrayLimits;
  private readonly words: Uint32Array;
  private readonly layouts = new Map<Bucket, Layout>();
  /** The first 8 words of a row of settings, for the objects that hold them: most steps see the same. */
  private readonly known = new WeakMap<SampleSettings, Uint32Array>();
  /** The bucket that was filled last, and whose settings its rows have: half of the time to fill them went into the same words again. */
  private filled: Bucket | undefined;
  private rowsOf: SampleSettings[] = [];

  /** Room for batches up to the largest bucket. Throws OutOfMemory. */
  constructor(gpu: Gpu, largest: Bucket, limits: ArrayLimits) {
    this.limits = limits;
    const count = arrayWords(largest, limits);
    this.words = new Uint32Array(count);
    this.buffer = Tensor.empty(gpu, [count], { dtype: "u32", purpose: "tables", label: "ragged arrays" });
  }

  /** One array of a bucket as kernels bind it: a view, which the owner of `buffer` keeps alive. */
  view(bucket: Bucket, name: Section): Tensor {
    const { rows, samples } = bucket;
    const { maxSequences, tableWidth, pageSize } = this.limits;
    const shapes: Record<Section, number[]> = {
      settings: [samples, LISTED_SETTINGS],
      lastRows: [samples],
      tokenIds: [rows],
      sources: [rows],
      positions: [rows],
      slotMapping: [rows],
      sequenceOf: [rows],
      queryStarts: [maxSequences + 1],
      contextLens: [maxSequences],
      tiles: [tileCount(bucket, this.limits), 2],
      slotTable: pageSize === undefined ? [maxSequences] : [maxSequences, tableWidth],
    };
    const { gpu, allocation } = this.buffer;
    return new Tensor(gpu, shapes[name], "u32", allocation, 4 * this.layout(bucket)[name]);
  }

  get tileRows(): number | undefined {
    return this.limits.tileRows;
  }

  /**
   * Should a step of so many tokens in so many pieces attend by tiles? They give the bits of rows, load keys and values less often,
   * and take as long for one row as for many: they are for steps that are mostly prompts.
   */
  suitTiles(tokens: number, pieces: number): boolean {
    return this.limits.tileRows !== undefined && tokens >= PROMPT_ROWS * pieces;
  }

  /** Lay a batch out for its bucket. Throws on what the GPU would take without a word, with nothing uploaded. */
  fill(batch: RaggedBatch, bucket: Bucket, launch: number): void {
    const at = this.layout(bucket);
    if (this.filled !== bucket) this.rowsOf = [];
    this.filled = bucket;
    this.fillPieces(batch.pieces, bucket, at, launch);
    this.fillTiles(batch.pieces.length, bucket, at);
    this.fillSamples(batch, bucket, at, launch);
  }

  /** Write what was filled: the arrays of the bucket, and of the slot table the rows of `sequences` sequences. */
  upload(bucket: Bucket, sequences: number): void {
    const end = this.layout(bucket).slotTable + sequences * this.limits.tableWidth;
    this.buffer.gpu.write(this.buffer, this.words.subarray(0, end));
  }

  /** Where the ring has the token of a sample. */
  ringIndex(launch: number, sample: number): number {
    return (launch % RING_LAUNCHES) * this.limits.maxSequences + sample;
  }

  free(): void {
    this.buffer.free();
  }

  private fillPieces(pieces: readonly RaggedPiece[], { rows }: Bucket, at: Layout, launch: number): void {
    const { words } = this;
    const { pageSize, paddingSlot, vocabSize } = this.limits;
    let t = 0;
    for (let s = 0; s < pieces.length; s++) {
      const piece = pieces[s]!;
      const { tokens, position, slotRow } = piece;
      this.fillSlots(piece, at.slotTable + s * this.limits.tableWidth);
      words[at.queryStarts + s] = t;
      words[at.contextLens + s] = position + tokens.length;
      for (let i = 0; i < tokens.length; i++, t++) {
        const token = tokens[i]!;
        const isKnown = typeof token === "number";
        if (isKnown && !(token >>> 0 === token && token < vocabSize))
          check(false, `ragged step: token id ${token} is out of vocabulary (0..${vocabSize - 1})`);
        words[at.tokenIds + t] = isKnown ? token : 0;
        words[at.sources + t] = isKnown ? KNOWN : this.sourceOf(token, launch);
        const p = position + i;
        words[at.positions + t] = p;
        words[at.slotMapping + t] =
          pageSize === undefined
            ? slotRow[0]! + p
            : slotRow[Math.floor(p / pageSize)]! * pageSize + (p % pageSize);
        words[at.sequenceOf + t] = s;
      }
    }
    words[at.queryStarts + pieces.length] = t;
    for (; t < rows; t++) {
      words[at.tokenIds + t] = 0;
      words[at.sources + t] = KNOWN;
      words[at.positions + t] = 0;
      words[at.slotMapping + t] = paddingSlot;
      words[at.sequenceOf + t] = PADDING;
    }
  }

  /** The tiles of attention, as attentionTiles lists them, without an array on the way. */
  private fillTiles(pieces: number, bucket: Bucket, at: Layout): void {
    const { words } = this;
    const { tileRows } = this.limits;
    if (tileRows === undefined) return;
    let word = at.tiles;
    for (let s = 0; s < pieces; s++) {
      const begin = words[at.queryStarts + s]!;
      const fresh = words[at.queryStarts + s + 1]! - begin;
      for (let row = (Math.ceil(fresh / tileRows) - 1) * tileRows; row >= 0; row -= tileRows) {
        words[word++] = s;
        words[word++] = begin + row;
      }
    }
    words.fill(PADDING, word, at.tiles + 2 * tileCount(bucket, this.limits));
  }

  /** A row of the slot table, as far as the sequence reaches. */
  private fillSlots({ tokens, position, slotRow }: RaggedPiece, first: number): void {
    const { maxSeqLen, pageSize } = this.limits;
    const length = position + tokens.length;
    const width = pageSize === undefined ? 1 : Math.ceil(length / pageSize);
    if (tokens.length === 0 || length > maxSeqLen || slotRow.length < width)
      check(
        false,
        `ragged step: ${tokens.length} tokens at position ${position} with ${slotRow.length} entries of the slot table; wanted at least one, up to position ${maxSeqLen - 1}, and ${width} entries`,
      );
    for (let i = 0; i < width; i++) this.words[first + i] = slotRow[i]!;
  }

  private sourceOf({ launch: from, sample }: ForwardedToken, launch: number): number {
    if (from >= launch || launch - from >= RING_LAUNCHES)
      check(false, `ragged step: launch ${launch} wants a token of launch ${from}, which is not in the ring`);
    return this.ringIndex(from, sample);
  }

  private fillSamples({ pieces, samples }: RaggedBatch, bucket: Bucket, at: Layout, launch: number): void {
    const { words } = this;
    for (let i = 0; i < bucket.samples; i++) {
      const row = at.settings + i * LISTED_SETTINGS;
      const sample = samples[i];
      if (!sample) {
        words[at.lastRows + i] = 0;
        setListed(words, row, 0, NO_TOKEN);
        continue;
      }
      const { piece, settings, sequenceId, generated, seen } = sample;
      if (!(piece >= 0 && piece < pieces.length))
        check(false, `ragged step: sample ${i} is of piece ${piece}; there are ${pieces.length}`);
      if (seen === undefined && (settings.repetitionPenalty ?? 1) !== 1)
        check(false, `ragged step: sample ${i} has a repetition penalty but no row of tokens seen`);
      words[at.lastRows + i] = words[at.queryStarts + piece + 1]! - 1;
      if (this.rowsOf[i] !== settings) {
        words.set(this.startOf(settings), row);
        this.rowsOf[i] = settings;
      }
      words[row + 7] = sequenceId;
      setListed(words, row, generated, this.ringIndex(launch, i), seen);
    }
  }

  private startOf(settings: SampleSettings): Uint32Array {
    let start = this.known.get(settings);
    if (!start) {
      start = settingsWords(settings, 0);
      this.known.set(settings, start);
    }
    return start;
  }

  private layout(bucket: Bucket): Layout {
    let layout = this.layouts.get(bucket);
    if (!layout) {
      layout = layoutOf(bucket, this.limits);
      this.layouts.set(bucket, layout);
    }
    return layout;
  }
}
