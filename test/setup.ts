import { expect } from "vitest";

// vitest compares arrays element by element, at a microsecond or more each: seconds for the logits of a prompt. Typed arrays
// of one kind with the same bytes are equal at once; all others are left to vitest, which also says where they differ.

const bytesOf = (x: unknown): Buffer | undefined =>
  ArrayBuffer.isView(x) ? Buffer.from(x.buffer, x.byteOffset, x.byteLength) : undefined;

expect.addEqualityTesters([
  (a, b) => {
    const [left, right] = [bytesOf(a), bytesOf(b)];
    if (!left || !right || (a as object).constructor !== (b as object).constructor) return undefined;
    return left.equals(right) ? true : undefined;
  },
]);
