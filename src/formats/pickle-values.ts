import type { CheckpointError } from "./checkpoint-error.ts";
import { LIMITS } from "./pickle-opcodes.ts";
import type { StoredDtype } from "./tensor-file.ts";

/** What the restricted unpickler makes: plain data, no functions, nothing that can act. */
export type PickleValue =
  | null
  | boolean
  | number
  /** Integers beyond 2^53. */
  | bigint
  | string
  | PickleFloat
  | PickleSequence
  | PickleDict
  | PickleGlobal
  | PickleStorage
  | PickleTensor;

/** A float: no part of a model's structure, so its value is not kept; 48.0 shall not pass for 48. */
export interface PickleFloat {
  readonly kind: "float";
}

export interface PickleSequence {
  readonly kind: "tuple" | "list";
  readonly items: PickleValue[];
}

/** A dict with string keys; `ordered` when it is a collections.OrderedDict. */
export interface PickleDict {
  readonly kind: "dict";
  readonly ordered: boolean;
  readonly items: Map<string, PickleValue>;
}

/** The name of something in Python, of those on the list: a tag that REDUCE compares, never a function. */
export interface PickleGlobal {
  readonly kind: "global";
  /** Module and name with a dot between. */
  readonly name: string;
  /** Element type, when it is one of torch's storage classes. */
  readonly dtype?: StoredDtype;
}

/** A block of data outside the pickle. One object per key, however often the key is named. */
export interface PickleStorage {
  readonly kind: "storage";
  readonly key: string;
  readonly dtype: StoredDtype;
  /** Elements. */
  readonly numel: number;
}

/** A view of a storage, inside its bounds; offset and strides count elements. */
export interface PickleTensor {
  readonly kind: "tensor";
  readonly storage: PickleStorage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
  /** True when it was saved as a torch.nn.Parameter. */
  readonly parameter: boolean;
}

type Kind = Extract<PickleValue, object>["kind"];

/** Makes the error for this pickle; the detail follows the file's name. */
export type Refuse = (code: string, detail: string) => CheckpointError;

/** True when the value is an object of this kind. */
export function isKind<K extends Exclude<Kind, "tuple" | "list">>(
  value: PickleValue | undefined,
  kind: K,
): value is Extract<PickleValue, { kind: K }>;
export function isKind(value: PickleValue | undefined, kind: "tuple" | "list"): value is PickleSequence;
export function isKind(value: PickleValue | undefined, kind: string): boolean {
  return typeof value === "object" && value !== null && value.kind === kind;
}

/** How messages name a value: by its kind, never by its content. */
export function describe(value: PickleValue | undefined): string {
  if (value === undefined) return "nothing";
  if (value === null) return "None";
  if (typeof value === "object")
    return value.kind === "global" ? `the name ${value.name}` : `a ${value.kind}`;
  if (typeof value === "string") return "a string";
  return typeof value === "boolean" ? "a boolean" : "a number";
}

interface Visit {
  readonly value: PickleSequence | PickleDict;
  readonly children: PickleValue[];
  next: number;
  height: number;
  size: number;
}

/**
 * Refuse a value that contains itself (PICKLE_CYCLE), is nested too deep, or would grow too large if what it shares
 * were written out (PICKLE_LIMIT), so that everything later may walk it. Every shared part is visited once.
 */
export function requireTree(root: PickleValue, refuse: Refuse): void {
  const done = new Map<PickleValue, { height: number; size: number }>();
  const open = new Set<PickleValue>();
  const path: Visit[] = [];
  const enter = (value: PickleSequence | PickleDict) => {
    open.add(value);
    const children = value.kind === "dict" ? [...value.items.values()] : value.items;
    path.push({ value, children, next: 0, height: 1, size: 1 });
  };
  if (isContainer(root)) enter(root);
  while (path.length > 0) {
    const visit = path.at(-1)!;
    if (visit.next === visit.children.length) {
      path.pop();
      open.delete(visit.value);
      done.set(visit.value, visit);
      const parent = path.at(-1);
      if (parent !== undefined) take(parent, visit, refuse);
      continue;
    }
    const child = visit.children[visit.next++]!;
    const known = isContainer(child) ? done.get(child) : { height: 0, size: 1 };
    if (known !== undefined) take(visit, known, refuse);
    else if (open.has(child)) {
      throw refuse("PICKLE_CYCLE", `value: got a ${visit.value.kind} that contains itself, expected a tree`);
    } else if (path.length === LIMITS.nesting) throw tooDeep(refuse);
    else if (isContainer(child)) enter(child);
  }
}

/** True for a value that holds others. */
export function isContainer(value: PickleValue | undefined): value is PickleSequence | PickleDict {
  if (typeof value !== "object" || value === null) return false;
  return value.kind === "tuple" || value.kind === "list" || value.kind === "dict";
}

function take(parent: Visit, child: { height: number; size: number }, refuse: Refuse): void {
  parent.height = Math.max(parent.height, child.height + 1);
  parent.size += child.size;
  if (parent.height > LIMITS.nesting) throw tooDeep(refuse);
  if (parent.size > LIMITS.expandedValues) {
    const what = `value: got more than ${LIMITS.expandedValues} values when written out, expected fewer`;
    throw refuse("PICKLE_LIMIT", what);
  }
}

function tooDeep(refuse: Refuse): CheckpointError {
  return refuse("PICKLE_LIMIT", `nesting: got more than ${LIMITS.nesting} levels, expected at most that`);
}
