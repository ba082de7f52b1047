import { OP } from "../../src/formats/pickle-opcodes.ts";

/** Bytes, single bytes, or text in Latin-1. */
export type Part = number | string | Uint8Array;

/** The parts in a row. */
export function bytes(...parts: readonly Part[]): Uint8Array {
  const arrays = parts.map((part) => {
    if (typeof part === "number") return Uint8Array.of(part);
    return typeof part === "string" ? Uint8Array.from(part, (c) => c.charCodeAt(0)) : part;
  });
  const all = new Uint8Array(arrays.reduce((sum, array) => sum + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    all.set(array, at);
    at += array.length;
  }
  return all;
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, value >>> 8);
}

export function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

export function u64(value: bigint | number): Uint8Array {
  return new Uint8Array(new BigUint64Array([BigInt.asUintN(64, BigInt(value))]).buffer);
}

/** A protocol 2 pickle of the value that `parts` leave on the stack. */
export function pickle(...parts: readonly Part[]): Uint8Array {
  return bytes(OP.PROTO, 2, ...parts, OP.STOP);
}

export function str(text: string): Uint8Array {
  const utf8 = new TextEncoder().encode(text);
  return bytes(OP.BINUNICODE, u32(utf8.length), utf8);
}

/** Any 64-bit integer, in the form that Python chooses. */
export function int(value: number | bigint): Uint8Array {
  const big = BigInt(value);
  if (BigInt.asIntN(32, big) === big) return bytes(OP.BININT, u32(Number(BigInt.asUintN(32, big))));
  return bytes(OP.LONG1, 8, u64(big));
}

export function global(module: string, name: string): Uint8Array {
  return bytes("c", module, "\n", name, "\n");
}

export function tuple(...items: readonly Part[]): Uint8Array {
  return bytes(OP.MARK, ...items, OP.TUPLE);
}

export function list(...items: readonly Part[]): Uint8Array {
  return bytes(OP.EMPTY_LIST, OP.MARK, ...items, OP.APPENDS);
}

/** Keys are given as text; values as the parts that push them. */
export function dict(
  items: Readonly<Record<string, Part>> | readonly (readonly [string, Part])[],
): Uint8Array {
  const pairs = Array.isArray(items) ? items : Object.entries(items);
  return bytes(OP.EMPTY_DICT, OP.MARK, ...pairs.flatMap(([key, value]) => [str(key), value]), OP.SETITEMS);
}

/** `items` put into a fresh collections.OrderedDict, or nothing. */
export function orderedDict(items: readonly (readonly [string, Part])[] = []): Uint8Array {
  const empty = bytes(global("collections", "OrderedDict"), OP.EMPTY_TUPLE, OP.REDUCE);
  if (items.length === 0) return empty;
  return bytes(empty, OP.MARK, ...items.flatMap(([key, value]) => [str(key), value]), OP.SETITEMS);
}

/** A persistent id as torch.save writes it. */
export interface StorageId {
  readonly type?: string;
  readonly key?: string;
  readonly numel?: number | bigint;
  /** The older form has a sixth item. */
  readonly legacy?: boolean;
}

export function storage({
  type = "FloatStorage",
  key = "0",
  numel = 6,
  legacy = false,
}: StorageId): Uint8Array {
  const id = [str("storage"), global("torch", type), str(key), str("cpu"), int(numel)];
  return bytes(tuple(...id, ...(legacy ? [OP.NONE] : [])), OP.BINPERSID);
}

export interface TensorView extends StorageId {
  readonly offset?: number | bigint;
  readonly shape?: readonly (number | bigint)[];
  readonly stride?: readonly (number | bigint)[];
}

/** A tensor by _rebuild_tensor_v2; [2, 3] float32 unless told. */
export function tensor(view: TensorView = {}): Uint8Array {
  const { offset = 0, shape = [2, 3], stride = [3, 1] } = view;
  const args = [
    storage(view),
    int(offset),
    tuple(...shape.map(int)),
    tuple(...stride.map(int)),
    OP.NEWFALSE,
    orderedDict(),
  ];
  return bytes(global("torch._utils", "_rebuild_tensor_v2"), tuple(...args), OP.REDUCE);
}
