import { execFile } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { softwareAdapterMissing, softwareEnvironment } from "../../src/gpu/software-adapter.ts";
import { CACHE_MODES } from "../../src/kv/cache.ts";
import { packageFile } from "../../src/packages.ts";
import type { Difference, IdDifference } from "../golden-file.ts";

// tour.ts on Deno's own WebGPU, on the software adapter. Deno finds its Vulkan driver by the environment it starts with.

const SCRIPT = fileURLToPath(new URL("tour.ts", import.meta.url));
/** Compiling every kernel, and 16 steps without a cache, on a CPU. */
const SLOW = { timeout: 300_000 };

/** Deno's binary, which npm brought in a package for the platform and links into `deno` itself. */
const deno = packageFile("@deno/linux-x64-glibc", "deno") ?? packageFile("deno", "deno");
const missing = deno === undefined ? "npm brought no Deno for this platform" : softwareAdapterMissing();

type PerMode<T> = Record<(typeof CACHE_MODES)[number], T>;

/** What tour.ts prints. */
interface Report {
  readonly runtime: string;
  readonly software: boolean;
  readonly tiny: {
    readonly op: Difference;
    readonly logits: PerMode<Difference>;
    readonly greedy: PerMode<number[]>;
    readonly engine: number[][];
  };
  readonly novels: {
    readonly ids: (IdDifference | null)[];
    readonly logits: PerMode<Difference[]>;
    readonly greedy: PerMode<(IdDifference | null)[]>;
  };
  readonly ledger: { readonly bytesBeforeClose: number; readonly bytesAfterClose: number };
}

async function runTour(): Promise<Report> {
  const { stdout } = await promisify(execFile)(deno!, ["run", "-A", "--no-lock", SCRIPT], {
    env: { ...process.env, ...(await softwareEnvironment()), QUIRE_TEST_ADAPTER: "software" },
  });
  return JSON.parse(stdout);
}

describe.skipIf(missing)(`the tour on Deno${missing ? ` (skipped: ${missing})` : ""}`, () => {
  it(
    "gives the golden figures of the tiny model and of novels-en, and gives all memory back",
    SLOW,
    async () => {
      const { runtime, software, tiny, novels, ledger } = await runTour();
      expect({ runtime, software }).toEqual({ runtime: "deno", software: true });

      expect(tiny.op.maxAbs).toBeLessThanOrEqual(1e-6);
      expect(tiny.greedy.none).toHaveLength(16);
      expect(tiny.engine).toEqual([tiny.greedy.none, tiny.greedy.none]);
      expect(novels.ids).toEqual([null, null]);
      for (const mode of CACHE_MODES) {
        expect(tiny.logits[mode].maxAbs).toBeLessThanOrEqual(2e-4);
        expect(tiny.greedy[mode]).toEqual(tiny.greedy.none);
        expect(novels.logits[mode]).toHaveLength(2);
        for (const { maxAbs } of novels.logits[mode]) expect(maxAbs).toBeLessThanOrEqual(1e-3);
        expect(novels.greedy[mode]).toEqual([null]);
      }
      expect(ledger.bytesAfterClose).toBe(0);
    },
  );
});
