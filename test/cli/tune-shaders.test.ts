import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { benchCommand } from "../../src/cli/bench.ts";
import { runCommand, TEST_ADAPTER } from "./run-command.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "quire-tune-"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const tune = (...args: string[]) =>
  runCommand(benchCommand, "bench", "shaders", "--tune", "--repeat", "1", ...TEST_ADAPTER, ...args);

it("bench shaders --tune on the software adapter says that there is nothing to tune, and writes nothing", async () => {
  const { out, error } = await tune("--adapter", "software", "--json", "--out", join(folder, "tune.json"));
  expect(error).toBeUndefined();
  const results = JSON.parse(out);
  expect(results).toMatchObject({ schema: "quire-bench-tune/1", file: null });
  for (const { missing, points } of results.families)
    expect([missing, points]).toEqual([expect.any(String), []]);
  expect(JSON.parse(readFileSync(join(folder, "tune.json"), "utf8"))).toEqual(results);
  expect((await tune("--adapter", "software")).out).toContain("registers: nothing to tune: ");
});

it("--tune and --filter are refused before a device is opened", async () => {
  const { error, exitCode } = await tune("--filter", "matmul");
  expect([error?.message, exitCode]).toEqual([
    expect.stringMatching(/^--filter chooses cases, and --tune/),
    2,
  ]);
  expect(existsSync(join(folder, "tune.json"))).toBe(false);
});
