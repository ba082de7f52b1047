import type { Command } from "commander";
import { addBenchCapacity } from "./bench-capacity.ts";
import { addBenchKv } from "./bench-kv.ts";
import { addBenchLatency } from "./bench-latency.ts";
import { addBenchPrefill } from "./bench-prefill.ts";
import { addBenchShaders } from "./bench-shaders.ts";
import { addBenchThroughput } from "./bench-throughput.ts";

/** `quire bench <experiment>`. */
export function benchCommand(program: Command): void {
  const bench = program
    .command("bench")
    .summary("experiments: kv, latency, prefill, shaders, throughput, capacity")
    .description("Measure.");
  addBenchKv(bench);
  addBenchLatency(bench);
  addBenchPrefill(bench);
  addBenchShaders(bench);
  addBenchThroughput(bench);
  addBenchCapacity(bench);
}
