import { CheckpointError } from "./checkpoint-error.ts";
import type { FileBytes } from "./file-bytes.ts";
import { type Pickle, requireEnd, unpickle } from "./pickle.ts";
import { type Budget, newBudget } from "./pickle-machine.ts";
import { LIMITS, OP } from "./pickle-opcodes.ts";
import { describe, isKind, type PickleStorage } from "./pickle-values.ts";
import { tensorFile } from "./pytorch-tensors.ts";
import { quote } from "./quote.ts";
import { DTYPE_BYTES, type TensorFile } from "./tensor-file.ts";

/**
 * The first pickle is the number 0x1950a86a20f9469cfc6c, as every Python writes it: PROTO 2, LONG1 of ten bytes, STOP.
 * Compared as bytes, because no other integer in these files may be so long.
 */
const MAGIC = Uint8Array.of(
  0x80,
  2,
  0x8a,
  10,
  0x6c,
  0xfc,
  0x9c,
  0x46,
  0xf9,
  0x20,
  0x6a,
  0xa8,
  0x50,
  0x19,
  0x2e,
);
const PROTOCOL = 1001;
/** The second pickle as every Python writes it: PROTO 2, BININT2 1001, STOP. Tells a file of this form by itself. */
const PROTOCOL_PICKLE = "\x80\x02M\xe9\x03.";
/** Before each storage's data stands its number of elements, a 64-bit integer. */
const NUMEL_BYTES = 8;
/** How far from the start the second pickle is looked for when the first is not the magic number. */
const SEARCHED_BYTES = 4096;
/** Bytes read at first; a pickle that does not end in them is read again with four times as many. */
const FIRST_WINDOW = 1 << 18;

/**
 * Read the form of torch.save before PyTorch 1.6: five pickles in a row (magic number, protocol, system, the state
 * dict, the storages' keys), then for each key its number of elements and its raw data.
 * Throws CheckpointError LEGACY_*, PICKLE_*, STORAGE_*, TENSOR_*.
 */
export async function readPytorchLegacy(file: FileBytes): Promise<TensorFile> {
  await requireMagic(file);
  const budget = newBudget();
  const protocol = await readPickle(file, MAGIC.length, budget);
  if (protocol.value !== PROTOCOL) {
    const got = typeof protocol.value === "number" ? protocol.value : describe(protocol.value);
    throw new CheckpointError("LEGACY_PROTOCOL", file.path, `protocol: got ${got}, expected ${PROTOCOL}`);
  }
  const model = await readPickle(file, await skipSystem(file, protocol.end, budget), budget);
  const keys = await readPickle(file, model.end, budget);
  const begins = await findStorages(file, storagesInOrder(file, keys, model), keys.end);
  // This form has no checksums to verify.
  return tensorFile(file, model.value, ({ key }) => ({ begin: begins.get(key)!, verify: async () => {} }));
}

/** A lone pickle that is no number is judged as a pickle: a name that it asks for says more than a wrong number. */
async function requireMagic(file: FileBytes): Promise<void> {
  const head = await file.read(0, Math.min(file.size, SEARCHED_BYTES));
  if (MAGIC.every((byte, i) => head[i] === byte)) return;
  const isNumber = head[0] === MAGIC[0] && head[2] === OP.LONG1;
  if (!isNumber && !String.fromCharCode(...head).includes(PROTOCOL_PICKLE)) {
    const { end } = await readPickle(file, 0, newBudget());
    requireEnd(file.path, end, file.size);
  }
  const what = "magic number: got another first pickle, expected 0x1950a86a20f9469cfc6c";
  throw new CheckpointError("LEGACY_MAGIC", file.path, `${what}; torch.save did not write this`);
}

/** The pickle at `begin` of the file; its `end` counts from the file's start. Reads more only when it is cut off. */
async function readPickle(file: FileBytes, begin: number, budget: Budget): Promise<Pickle> {
  const most = Math.min(file.size - begin, LIMITS.pickleBytes);
  for (let window = FIRST_WINDOW; ; window *= 4) {
    const length = Math.min(window, most);
    // A reading that is cut off is done anew, so only the last one counts.
    const spent = { ...budget };
    try {
      const pickle = unpickle(file.path, await file.read(begin, begin + length), 0, spent);
      Object.assign(budget, spent);
      return { ...pickle, end: begin + pickle.end };
    } catch (error) {
      const cut = error instanceof CheckpointError && error.code === "PICKLE_TRUNCATED";
      if (!cut || length === most) throw error;
    }
  }
}

/** Check the third pickle, of which nothing is kept; where it ends. */
async function skipSystem(file: FileBytes, begin: number, budget: Budget): Promise<number> {
  const system = await readPickle(file, begin, budget);
  requireLittleEndian(file, system);
  return system.end;
}

function requireLittleEndian(file: FileBytes, { value }: Pickle): void {
  const little = isKind(value, "dict") ? value.items.get("little_endian") : undefined;
  if (little === true) return;
  const got = little === false ? "big-endian" : describe(little);
  throw new CheckpointError("LEGACY_ENDIAN", file.path, `byte order: got ${got}, expected little-endian`);
}

/** The storages in the order of their data: each that the state dict uses exactly once, and no other. */
function storagesInOrder(file: FileBytes, keys: Pickle, model: Pickle): PickleStorage[] {
  if (!isKind(keys.value, "list")) {
    const what = `list of keys: got ${describe(keys.value)}, expected a list of strings`;
    throw new CheckpointError("LEGACY_KEYS", file.path, what);
  }
  const storages = new Set<PickleStorage>();
  for (const key of keys.value.items) {
    const shown = typeof key === "string" ? quote(key) : describe(key);
    const storage = typeof key === "string" ? model.storages.get(key) : undefined;
    if (storage === undefined || storages.has(storage)) {
      const got = storage === undefined ? `${shown}, which no tensor uses` : `${shown} twice`;
      throw new CheckpointError("LEGACY_KEYS", file.path, `list of keys: got ${got}, expected the storages`);
    }
    storages.add(storage);
  }
  if (storages.size !== model.storages.size) {
    const what = `list of keys: got ${storages.size}, expected the ${model.storages.size} storages`;
    throw new CheckpointError("LEGACY_KEYS", file.path, what);
  }
  return [...storages];
}

/** Where each storage's data begins; they follow one another to the last byte of the file. */
async function findStorages(
  file: FileBytes,
  storages: readonly PickleStorage[],
  begin: number,
): Promise<ReadonlyMap<string, number>> {
  const begins = new Map<string, number>();
  let at = begin;
  for (const storage of storages) {
    const what = `storage ${quote(storage.key)}`;
    const data = at + NUMEL_BYTES;
    const end = data + storage.numel * DTYPE_BYTES[storage.dtype];
    if (data <= file.size) {
      const bytes = await file.read(at, data);
      const numel = new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true);
      if (numel !== BigInt(storage.numel)) {
        const got = `${numel} elements before its data`;
        throw new CheckpointError(
          "LEGACY_NUMEL",
          file.path,
          `${what}: got ${got}, expected ${storage.numel}`,
        );
      }
    }
    if (end > file.size) {
      const got = `the end of the file at ${file.size}`;
      throw new CheckpointError(
        "LEGACY_TRUNCATED",
        file.path,
        `${what}: got ${got}, expected data to ${end}`,
      );
    }
    begins.set(storage.key, data);
    at = end;
  }
  if (at === file.size) return begins;
  const got = `${file.size - at} bytes`;
  throw new CheckpointError(
    "LEGACY_TRAILING",
    file.path,
    `after the last storage: got ${got}, expected none`,
  );
}
