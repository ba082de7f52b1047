import type { PickleGlobal, PickleStorage, PickleTensor, PickleValue, Refuse } from "./pickle-values.ts";
import { describe, isKind } from "./pickle-values.ts";
import { quote } from "./quote.ts";
import { DTYPE_BYTES, type StoredDtype } from "./tensor-file.ts";

const STORAGES: readonly (readonly [name: string, dtype: StoredDtype])[] = [
  ["FloatStorage", "F32"],
  ["HalfStorage", "F16"],
  ["BFloat16Storage", "BF16"],
  ["DoubleStorage", "F64"],
  ["LongStorage", "I64"],
  ["IntStorage", "I32"],
  ["ShortStorage", "I16"],
  ["CharStorage", "I8"],
  ["ByteStorage", "U8"],
  ["BoolStorage", "BOOL"],
];

const ORDERED_DICT: PickleGlobal = { kind: "global", name: "collections.OrderedDict" };
const REBUILD_TENSOR: PickleGlobal = { kind: "global", name: "torch._utils._rebuild_tensor" };
const REBUILD_TENSOR_V2: PickleGlobal = { kind: "global", name: "torch._utils._rebuild_tensor_v2" };
const REBUILD_PARAMETER: PickleGlobal = { kind: "global", name: "torch._utils._rebuild_parameter" };

/** Every Python name that a pickle may mention, as "module name". */
export const GLOBALS: ReadonlyMap<string, PickleGlobal> = new Map([
  ["collections OrderedDict", ORDERED_DICT],
  ["torch._utils _rebuild_tensor", REBUILD_TENSOR],
  ["torch._utils _rebuild_tensor_v2", REBUILD_TENSOR_V2],
  ["torch._utils _rebuild_parameter", REBUILD_PARAMETER],
  ...STORAGES.map(([name, dtype]): [string, PickleGlobal] => [
    `torch ${name}`,
    { kind: "global", name: `torch.${name}`, dtype },
  ]),
]);

/** torch numbers storages (zip form) or names them by an address (older form). */
const KEY = /^[0-9]{1,20}$/;
const MAX_RANK = 8;

/**
 * What the pickle means by calling `callee`: a dict or a tensor.
 * Throws PICKLE_REDUCE, or TENSOR_BOUNDS for a tensor that leaves its storage.
 */
export function reduce(callee: PickleValue, args: PickleValue, refuse: Refuse): PickleValue {
  if (!isKind(callee, "global")) {
    throw refuse("PICKLE_REDUCE", `call: got ${describe(callee)}, expected a function on the list`);
  }
  if (!isKind(args, "tuple")) {
    throw refuse("PICKLE_REDUCE", `arguments of ${callee.name}: got ${describe(args)}, expected a tuple`);
  }
  switch (callee) {
    case ORDERED_DICT:
      requireCount(callee, args.items, 0, 0, refuse);
      return { kind: "dict", ordered: true, items: new Map() };
    case REBUILD_TENSOR:
      requireCount(callee, args.items, 4, 4, refuse);
      return rebuildTensor(args.items, refuse);
    case REBUILD_TENSOR_V2: {
      // After size and stride: requires_grad, backward hooks and, in newer files, metadata such as "conjugated".
      requireCount(callee, args.items, 6, 7, refuse);
      const metadata = args.items[6] ?? null;
      if (metadata !== null && !(isKind(metadata, "dict") && metadata.items.size === 0)) {
        throw refuse("PICKLE_REDUCE", `metadata of a tensor: got ${describe(metadata)}, expected none`);
      }
      return rebuildTensor(args.items, refuse);
    }
    case REBUILD_PARAMETER: {
      requireCount(callee, args.items, 3, 3, refuse);
      const tensor = args.items[0]!;
      if (isKind(tensor, "tensor")) return { ...tensor, parameter: true };
      throw refuse("PICKLE_REDUCE", `data of a parameter: got ${describe(tensor)}, expected a tensor`);
    }
    default:
      throw refuse("PICKLE_REDUCE", `call: got ${callee.name}, which is not a function, expected one`);
  }
}

/**
 * The storage that a persistent id names: ('storage', class, key, location, numel), and None after it in the older
 * form. `known` keeps one object per key, so that tensors that share data share it here too.
 * Throws PICKLE_STORAGE, or STORAGE_SIZE when two ids with one key disagree.
 */
export function loadStorage(
  id: PickleValue,
  known: Map<string, PickleStorage>,
  refuse: Refuse,
): PickleStorage {
  if (!isKind(id, "tuple")) {
    throw refuse("PICKLE_STORAGE", `persistent id: got ${describe(id)}, expected a tuple`);
  }
  const [tag, type = null, key = null, location = null, numel = null, view = null] = id.items;
  if (tag !== "storage" || id.items.length < 5 || id.items.length > 6) {
    const got = `${id.items.length} items, first ${typeof tag === "string" ? quote(tag) : describe(tag)}`;
    throw refuse("PICKLE_STORAGE", `persistent id: got ${got}, expected 5 items, first \`storage\``);
  }
  if (!isKind(type, "global") || type.dtype === undefined) {
    throw refuse(
      "PICKLE_STORAGE",
      `type of a storage: got ${describe(type)}, expected torch.FloatStorage or alike`,
    );
  }
  if (typeof key !== "string" || !KEY.test(key)) {
    const got = typeof key === "string" ? quote(key) : describe(key);
    throw refuse("PICKLE_STORAGE", `key of a storage: got ${got}, expected decimal digits`);
  }
  const what = `storage ${quote(key)}`;
  if (typeof location !== "string") {
    throw refuse("PICKLE_STORAGE", `location of ${what}: got ${describe(location)}, expected a string`);
  }
  if (!isCount(numel) || !Number.isSafeInteger(numel * DTYPE_BYTES[type.dtype])) {
    const got = typeof numel === "number" || typeof numel === "bigint" ? numel : describe(numel);
    throw refuse("PICKLE_STORAGE", `elements of ${what}: got ${got}, expected a count from 0 to 2^53 bytes`);
  }
  if (view !== null) {
    throw refuse("PICKLE_STORAGE", `${what}: got a view of another storage, expected a whole one`);
  }
  const before = known.get(key);
  if (before === undefined) {
    const storage: PickleStorage = { kind: "storage", key, dtype: type.dtype, numel };
    known.set(key, storage);
    return storage;
  }
  if (before.dtype !== type.dtype || before.numel !== numel) {
    const got = `${numel} elements of ${type.dtype}`;
    throw refuse(
      "STORAGE_SIZE",
      `${what}: got ${got}, expected ${before.numel} of ${before.dtype} as before`,
    );
  }
  return before;
}

/** BUILD: hand an object its attributes. Those of a dict and of a parameter are dropped; nothing else may have any. */
export function build(target: PickleValue, state: PickleValue, refuse: Refuse): void {
  const allowed =
    (isKind(target, "dict") && target.ordered) || (isKind(target, "tensor") && target.parameter);
  if (!allowed) {
    throw refuse(
      "PICKLE_BUILD",
      `attributes: got ${describe(target)} as owner, expected an OrderedDict or parameter`,
    );
  }
  if (!isKind(state, "dict")) {
    throw refuse("PICKLE_BUILD", `attributes: got ${describe(state)}, expected a dict`);
  }
  for (const name of state.items.keys()) {
    if (name.startsWith("__")) {
      throw refuse(
        "PICKLE_BUILD",
        `attributes: got ${quote(name)}, expected plain ones; this file may be malicious`,
      );
    }
  }
}

function rebuildTensor(args: readonly PickleValue[], refuse: Refuse): PickleTensor {
  const [storage, offset = null, size = null, stride = null] = args;
  if (!isKind(storage, "storage")) {
    throw refuse("PICKLE_REDUCE", `data of a tensor: got ${describe(storage)}, expected a storage`);
  }
  const shape = counts(size, "size", storage, refuse);
  const strides = counts(stride, "stride", storage, refuse);
  const view = `tensor in storage ${quote(storage.key)}`;
  if (shape.length !== strides.length) {
    const what = `${view}: got ${shape.length} sizes and ${strides.length} strides, expected as many`;
    throw refuse("TENSOR_BOUNDS", what);
  }
  if (!isCount(offset))
    throw refuse("TENSOR_BOUNDS", `offset of ${view}: got ${shown(offset)}, expected a count`);
  const empty = shape.includes(0);
  // One past the last element that the view reaches; BigInt, because a product of two counts may pass 2^53.
  let end = BigInt(offset) + (empty ? 0n : 1n);
  for (const [axis, length] of shape.entries()) {
    if (!empty && length > 1 && strides[axis] === 0) {
      const what = `stride of ${view}: got 0 on an axis of ${length}, expected at least 1`;
      throw refuse("TENSOR_BOUNDS", what);
    }
    if (!empty) end += BigInt(length - 1) * BigInt(strides[axis]!);
  }
  const elements = shape.reduce((product, length) => product * BigInt(length), 1n);
  if (end > BigInt(storage.numel) || elements > BigInt(storage.numel)) {
    const got = `elements [${offset}, ${end}) as [${shape.join(",")}]`;
    throw refuse("TENSOR_BOUNDS", `${view}: got ${got}, expected at most ${storage.numel}`);
  }
  return { kind: "tensor", storage, offset, shape, stride: strides, parameter: false };
}

function counts(value: PickleValue, what: string, storage: PickleStorage, refuse: Refuse): number[] {
  if (!isKind(value, "tuple")) {
    throw refuse("PICKLE_REDUCE", `${what} of a tensor: got ${describe(value)}, expected a tuple`);
  }
  const where = `${what} of a tensor in storage ${quote(storage.key)}`;
  if (value.items.length > MAX_RANK) {
    throw refuse("TENSOR_BOUNDS", `${where}: got ${value.items.length} axes, expected at most ${MAX_RANK}`);
  }
  return value.items.map((item) => {
    if (isCount(item)) return item;
    throw refuse("TENSOR_BOUNDS", `${where}: got ${shown(item)}, expected counts`);
  });
}

function isCount(value: PickleValue): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function shown(value: PickleValue): string {
  return typeof value === "number" || typeof value === "bigint" ? String(value) : describe(value);
}

function requireCount(
  callee: PickleGlobal,
  args: readonly PickleValue[],
  least: number,
  most: number,
  refuse: Refuse,
): void {
  if (args.length >= least && args.length <= most) return;
  const expected = least === most ? least : `${least} or ${most}`;
  throw refuse("PICKLE_REDUCE", `arguments of ${callee.name}: got ${args.length}, expected ${expected}`);
}
