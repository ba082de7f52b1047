import { CheckpointError } from "./checkpoint-error.ts";
import {
  type Budget,
  get,
  type Machine,
  mark,
  newBudget,
  newMachine,
  pop,
  popSome,
  popToMark,
  push,
  put,
  refuse,
  requireLeft,
  spend,
  take,
  top,
} from "./pickle-machine.ts";
import { DUP, LIMITS, OP, REFUSED_NAMES } from "./pickle-opcodes.ts";
import { build, GLOBALS, loadStorage, reduce } from "./pickle-torch.ts";
import {
  describe,
  isContainer,
  isKind,
  type PickleFloat,
  type PickleGlobal,
  type PickleStorage,
  type PickleValue,
  requireTree,
} from "./pickle-values.ts";
import { quote } from "./quote.ts";
import { firstInvalidUtf8 } from "./utf8.ts";

/** A pickle that has been read: its value, the byte after its STOP, the storages that it names by key. */
export interface Pickle {
  readonly value: PickleValue;
  readonly end: number;
  readonly storages: ReadonlyMap<string, PickleStorage>;
}

const FLOAT: PickleFloat = { kind: "float" };
const LINE_FEED = 0x0a;
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Read the pickle that begins at byte `begin`, allowing only what torch.save writes for a dict of tensors. Nothing is
 * ever called: the few names on the list become tags. Bounded by LIMITS, without recursion, and no length in the
 * file is believed before as many bytes are there. Throws CheckpointError PICKLE_*, TENSOR_BOUNDS, STORAGE_SIZE.
 */
export function unpickle(file: string, bytes: Uint8Array, begin = 0, budget: Budget = newBudget()): Pickle {
  const machine = newMachine(file, bytes, begin, budget);
  for (;;) {
    machine.opcodeAt = machine.at;
    spend(machine, "opcodes");
    requireLeft(machine, 1, "opcode");
    const opcode = machine.bytes[machine.at++]!;
    if (opcode === OP.STOP) break;
    step(machine, opcode);
  }
  const value = pop(machine);
  if (machine.stack.length > 0 || machine.marks.length > 0) {
    throw refuse(machine, "PICKLE_STACK", "STOP: got more than one value on the stack, expected one");
  }
  requireTree(value, (code, detail) => refuse(machine, code, detail));
  return { value, end: begin + machine.at, storages: machine.storages };
}

/** As unpickle, and nothing may follow. Throws PICKLE_TRAILING and what unpickle throws. */
export function unpickleAll(file: string, bytes: Uint8Array): Pickle {
  if (bytes.length > LIMITS.pickleBytes) {
    const what = `pickle: got ${bytes.length} bytes, expected at most ${LIMITS.pickleBytes}`;
    throw new CheckpointError("PICKLE_LIMIT", file, what);
  }
  const pickle = unpickle(file, bytes);
  requireEnd(file, pickle.end, bytes.length);
  return pickle;
}

/** Throw PICKLE_TRAILING unless a pickle that ends at `end` fills its `size` bytes. */
export function requireEnd(file: string, end: number, size: number): void {
  if (end === size) return;
  const what = `end of pickle: got ${size - end} bytes after STOP at byte ${end - 1}, expected none`;
  throw new CheckpointError("PICKLE_TRAILING", file, what);
}

/** Do what one opcode says: put a value on the stack, or change what is there. */
function step(m: Machine, opcode: number): void {
  const value = made(m, opcode);
  if (isContainer(value)) spend(m, "containers");
  if (value !== undefined) push(m, value);
  else change(m, opcode);
}

/** The value that the opcode puts on the stack; undefined for an opcode that puts none. */
function made(m: Machine, opcode: number): PickleValue | undefined {
  switch (opcode) {
    case OP.NONE:
      return null;
    case OP.NEWTRUE:
      return true;
    case OP.NEWFALSE:
      return false;
    case OP.BININT:
      return take(m, 4, "BININT").getInt32(0, true);
    case OP.BININT1:
      return take(m, 1, "BININT1").getUint8(0);
    case OP.BININT2:
      return take(m, 2, "BININT2").getUint16(0, true);
    case OP.LONG1:
      return readLong(m);
    case OP.BINFLOAT:
      take(m, 8, "BINFLOAT");
      return FLOAT;
    case OP.BINUNICODE:
      return readString(m);
    case OP.EMPTY_DICT:
      return { kind: "dict", ordered: false, items: new Map() };
    case OP.EMPTY_LIST:
      return { kind: "list", items: [] };
    case OP.EMPTY_TUPLE:
      return { kind: "tuple", items: [] };
    case OP.TUPLE1:
    case OP.TUPLE2:
    case OP.TUPLE3:
      return { kind: "tuple", items: popSome(m, opcode - OP.TUPLE1 + 1) };
    case OP.TUPLE:
      return { kind: "tuple", items: popToMark(m) };
    case OP.BINGET:
      return get(m, take(m, 1, "BINGET").getUint8(0));
    case OP.LONG_BINGET:
      return get(m, take(m, 4, "LONG_BINGET").getUint32(0, true));
    case OP.GLOBAL:
      return readGlobal(m);
    case OP.BINPERSID:
      return loadStorage(pop(m), m.storages, (code, detail) => refuse(m, code, detail));
    case OP.REDUCE: {
      const [callee, args] = popSome(m, 2);
      return reduce(callee!, args!, (code, detail) => refuse(m, code, detail));
    }
    default:
      return undefined;
  }
}

/** Opcodes that put no value on the stack; any that is not listed ends the reading. */
function change(m: Machine, opcode: number): void {
  switch (opcode) {
    case OP.PROTO:
      requireProtocol(m);
      break;
    case OP.MARK:
      mark(m);
      break;
    case OP.BINPUT:
      put(m, take(m, 1, "BINPUT").getUint8(0));
      break;
    case OP.LONG_BINPUT:
      put(m, take(m, 4, "LONG_BINPUT").getUint32(0, true));
      break;
    case OP.APPEND:
      append(m, popSome(m, 1));
      break;
    case OP.APPENDS:
      append(m, popToMark(m));
      break;
    case OP.SETITEM:
      setItems(m, popSome(m, 2));
      break;
    case OP.SETITEMS:
      setItems(m, popToMark(m));
      break;
    case OP.BUILD: {
      const state = pop(m);
      build(top(m), state, (code, detail) => refuse(m, code, detail));
      break;
    }
    case DUP:
      throw refuse(m, "PICKLE_LIMIT", "copies by DUP (0x32): got one, expected at most 0");
    default:
      throw refusedOpcode(m, opcode);
  }
}

/** The version only announces opcodes; which ones are allowed is decided one by one. */
function requireProtocol(m: Machine): void {
  if (m.opcodeAt !== 0) throw refusedOpcode(m, OP.PROTO);
  const version = take(m, 1, "PROTO").getUint8(0);
  if (version >= 2 && version <= 5) return;
  throw refuse(m, "PICKLE_PROTOCOL", `protocol: got ${version}, expected 2`);
}

function readGlobal(m: Machine): PickleGlobal {
  const text = `${readLine(m)} ${readLine(m)}`;
  const found = GLOBALS.get(text);
  if (found !== undefined) return found;
  const what = `${quote(text)} at byte ${m.opcodeAt} is not allowed; this file may be malicious`;
  const expected = "expected only torch's tensors and storages";
  throw new CheckpointError("PICKLE_GLOBAL", m.file, `${what}: got a foreign name, ${expected}`);
}

/** A line of Latin-1 text up to a line feed; a name in UTF-8 is on no list, so it only has to be shown. */
function readLine(m: Machine): string {
  const begin = m.at;
  const limit = Math.min(m.bytes.length, begin + LIMITS.globalLineBytes + 1);
  const end = m.bytes.subarray(begin, limit).indexOf(LINE_FEED);
  if (end >= 0) {
    m.at = begin + end + 1;
    return String.fromCharCode(...m.bytes.subarray(begin, begin + end));
  }
  if (limit === m.bytes.length) {
    throw refuse(m, "PICKLE_TRUNCATED", "name of a GLOBAL: got the end of the pickle, expected a line feed");
  }
  const what = `name of a GLOBAL: got more than ${LIMITS.globalLineBytes} bytes, expected at most that`;
  throw refuse(m, "PICKLE_LIMIT", what);
}

function readString(m: Machine): string {
  const length = take(m, 4, "BINUNICODE").getUint32(0, true);
  requireLeft(m, length, "string");
  if (length > LIMITS.stringBytes) {
    throw refuse(m, "PICKLE_LIMIT", `string: got ${length} bytes, expected at most ${LIMITS.stringBytes}`);
  }
  const bytes = m.bytes.subarray(m.at, m.at + length);
  const invalid = firstInvalidUtf8(bytes);
  if (invalid >= 0) {
    throw refuse(
      m,
      "PICKLE_UTF8",
      `string: got a byte at ${m.at + invalid} that is not UTF-8, expected UTF-8`,
    );
  }
  m.at += length;
  return UTF8.decode(bytes);
}

/** A little-endian two's complement integer; beyond 2^53 it stays a bigint, which no count accepts. */
function readLong(m: Machine): number | bigint {
  const length = take(m, 1, "LONG1").getUint8(0);
  if (length > LIMITS.long1Bytes) {
    throw refuse(m, "PICKLE_LIMIT", `LONG1: got ${length} bytes, expected at most ${LIMITS.long1Bytes}`);
  }
  const bytes = take(m, length, "LONG1");
  let value = 0n;
  for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes.getUint8(i));
  value = BigInt.asIntN(8 * length, value);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

function append(m: Machine, items: readonly PickleValue[]): void {
  const target = top(m);
  if (!isKind(target, "list")) {
    throw refuse(m, "PICKLE_STACK", `append: got ${describe(target)}, expected a list`);
  }
  for (const item of items) target.items.push(item);
}

/** Keys and values in turn. A Map takes `__proto__` as the plain name that it is. */
function setItems(m: Machine, items: readonly PickleValue[]): void {
  const target = top(m);
  if (!isKind(target, "dict")) {
    throw refuse(m, "PICKLE_SETITEMS", `set item: got ${describe(target)}, expected a dict`);
  }
  if (items.length % 2 !== 0) {
    throw refuse(m, "PICKLE_SETITEMS", `keys and values: got ${items.length} in all, expected pairs`);
  }
  for (let i = 0; i < items.length; i += 2) {
    const key = items[i]!;
    if (typeof key !== "string") {
      throw refuse(m, "PICKLE_SETITEMS", `key: got ${describe(key)}, expected a string`);
    }
    if (target.items.has(key)) {
      throw refuse(m, "PICKLE_SETITEMS", `key ${quote(key)}: got it twice in one dict, expected once`);
    }
    target.items.set(key, items[i + 1]!);
  }
}

function refusedOpcode(m: Machine, opcode: number): CheckpointError {
  const name = REFUSED_NAMES.get(opcode) ?? "(no opcode)";
  const hex = `0x${opcode.toString(16).padStart(2, "0")}`;
  const what = `${hex} ${name} not allowed at byte ${m.opcodeAt}`;
  return new CheckpointError(
    "PICKLE_OPCODE",
    m.file,
    `${what}: got a foreign opcode, expected only those of torch.save`,
  );
}
