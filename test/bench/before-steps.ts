import { vi } from "vitest";
import { BatchRunner } from "../../src/generate/batch-runner.ts";
import type { CacheMode, KvCache } from "../../src/kv/cache.ts";

/** Call `before` with the mode and the number of each step that generate takes, from 1 in each mode. */
export function beforeSteps(before: (mode: CacheMode, step: number) => void): void {
  const next = BatchRunner.prototype.next;
  const steps = { none: 0, contiguous: 0, paged: 0 };
  vi.spyOn(BatchRunner.prototype, "next").mockImplementation(function (this: BatchRunner, mayLaunch) {
    const { mode } = (this as unknown as { readonly cache: KvCache }).cache;
    before(mode, ++steps[mode]);
    return next.call(this, mayLaunch);
  });
}
