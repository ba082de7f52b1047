import { check } from "../check.ts";
import { PADDING } from "./attention.ts";

/**
 * The tiles of a ragged batch: up to `tileRows` neighbouring rows of one sequence each, as pairs (sequence, first row). A tile
 * ends where its sequence does. With `count` there are that many pairs, PADDING behind the last one.
 *
 * The new tokens of sequence s are rows queryStarts[s] … queryStarts[s + 1] - 1. The last rows of a sequence come first: they see
 * the most, and a GPU that begins with what takes longest is done sooner. Throws when `count` is too small.
 */
export function attentionTiles(
  queryStarts: ArrayLike<number>,
  tileRows: number,
  count?: number,
): Uint32Array {
  const tiles: number[] = [];
  for (let s = 0; s + 1 < queryStarts.length; s++) {
    const begin = queryStarts[s]!;
    const fresh = queryStarts[s + 1]! - begin;
    for (let tile = Math.ceil(fresh / tileRows) - 1; tile >= 0; tile--)
      tiles.push(s, begin + tile * tileRows);
  }
  if (count === undefined) return Uint32Array.from(tiles);
  check(
    tiles.length <= 2 * count,
    () => `attention tiles: ${tiles.length / 2} tiles of up to ${tileRows} rows; there is room for ${count}`,
  );
  const padded = new Uint32Array(2 * count).fill(PADDING);
  padded.set(tiles);
  return padded;
}

/** Which tiles there are: of up to FEW_ROWS rows, of more. */
export interface TileSizes {
  readonly few: boolean;
  readonly many: boolean;
}

/** A tile of up to so many rows is computed in a form of its own by tensor cores. */
const FEW_ROWS = 16;

/** What sizes the tiles have into which sequences with so many new tokens each are cut. */
export function tileSizes(fresh: Iterable<number>, tileRows: number): TileSizes {
  let few = false;
  let many = false;
  for (const count of fresh) {
    const last = count % tileRows;
    if (last > 0 && last <= FEW_ROWS) few = true;
    if (last > FEW_ROWS || count >= tileRows) many = true;
  }
  return { few, many };
}

/** The most tiles that `rows` rows of at most `sequences` sequences can have: every sequence but one begins a tile it hardly fills. */
export function maxAttentionTiles(rows: number, sequences: number, tileRows: number): number {
  return Math.min(rows, sequences + Math.floor(Math.max(0, rows - sequences) / tileRows));
}
