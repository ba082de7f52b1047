import { CheckpointError } from "./checkpoint-error.ts";
import { LIMITS } from "./pickle-opcodes.ts";
import type { PickleStorage, PickleValue } from "./pickle-values.ts";

/** What may still be done: one for all pickles of a file. */
export interface Budget {
  opcodes: number;
  containers: number;
}

/** A whole file's budget. */
export function newBudget(): Budget {
  return { opcodes: LIMITS.opcodes, containers: LIMITS.containers };
}

/** The state of one reading. Positions count from the pickle's first byte. */
export interface Machine {
  readonly file: string;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly stack: PickleValue[];
  /** Stack heights at the open MARKs: nothing below the last of them may be popped. */
  readonly marks: number[];
  readonly memo: Map<number, PickleValue>;
  readonly storages: Map<string, PickleStorage>;
  readonly budget: Budget;
  /** Next byte to read. */
  at: number;
  /** First byte of the opcode in hand. */
  opcodeAt: number;
}

/** Spend one of the budget. Throws PICKLE_LIMIT when none is left. */
export function spend(m: Machine, what: keyof Budget): void {
  if (m.budget[what]-- > 0) return;
  throw refuse(m, "PICKLE_LIMIT", `${what}: got more than ${LIMITS[what]}, expected fewer`);
}

/** A machine before the first opcode of the pickle that begins at byte `begin`. */
export function newMachine(file: string, bytes: Uint8Array, begin: number, budget: Budget): Machine {
  const pickle = bytes.subarray(begin);
  return {
    file,
    bytes: pickle,
    view: new DataView(pickle.buffer, pickle.byteOffset, pickle.length),
    stack: [],
    marks: [],
    memo: new Map(),
    storages: new Map(),
    budget,
    at: 0,
    opcodeAt: 0,
  };
}

/** The next bytes, which are there. */
export function take(m: Machine, count: number, what: string): DataView {
  requireLeft(m, count, what);
  const at = m.view.byteOffset + m.at;
  m.at += count;
  return new DataView(m.view.buffer, at, count);
}

/** Throw PICKLE_TRUNCATED unless `count` more bytes are there: called before anything of that size is made. */
export function requireLeft(m: Machine, count: number, what: string): void {
  const left = m.bytes.length - m.at;
  if (count <= left) return;
  throw refuse(m, "PICKLE_TRUNCATED", `${what}: got ${left} bytes to the end, expected ${count}`);
}

/** Open a group: what follows until its end is popped together. */
export function mark(m: Machine): void {
  m.marks.push(m.stack.length);
  requireHeight(m);
}

export function push(m: Machine, value: PickleValue): void {
  m.stack.push(value);
  requireHeight(m);
}

function requireHeight(m: Machine): void {
  if (m.stack.length + m.marks.length <= LIMITS.stack) return;
  throw refuse(m, "PICKLE_LIMIT", `stack: got more than ${LIMITS.stack} values, expected at most that`);
}

/** The value on top, not below the last MARK. */
export function top(m: Machine): PickleValue {
  if (m.stack.length > (m.marks.at(-1) ?? 0)) return m.stack.at(-1)!;
  throw refuse(m, "PICKLE_STACK", "stack: got no value, expected one");
}

export function pop(m: Machine): PickleValue {
  const value = top(m);
  m.stack.pop();
  return value;
}

/** The last `count` values, in the order in which they were pushed. */
export function popSome(m: Machine, count: number): PickleValue[] {
  const values: PickleValue[] = [];
  for (let i = 0; i < count; i++) values.push(pop(m));
  return values.reverse();
}

/** Everything above the last MARK, which goes too. */
export function popToMark(m: Machine): PickleValue[] {
  const height = m.marks.pop();
  if (height === undefined) throw refuse(m, "PICKLE_STACK", "stack: got no MARK, expected one");
  return m.stack.splice(height);
}

export function put(m: Machine, index: number): void {
  m.memo.set(index, top(m));
  if (m.memo.size <= LIMITS.memo) return;
  throw refuse(m, "PICKLE_LIMIT", `memo: got more than ${LIMITS.memo} values, expected at most that`);
}

export function get(m: Machine, index: number): PickleValue {
  const value = m.memo.get(index);
  if (value !== undefined) return value;
  throw refuse(m, "PICKLE_MEMO", `memo ${index}: got nothing, expected a value put there before`);
}

/** An error about this pickle, with the opcode's place. */
export function refuse(m: Machine, code: string, detail: string): CheckpointError {
  return new CheckpointError(code, m.file, `${detail} (at byte ${m.opcodeAt} of the pickle)`);
}
