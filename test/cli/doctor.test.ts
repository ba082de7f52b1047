import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { type DoctorReport, diagnose, doctorCommand } from "../../src/cli/doctor.ts";
import { doctorText } from "../../src/cli/doctor-text.ts";
import { ledgerRest, selfTest } from "../../src/cli/self-test.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { Tensor } from "../../src/tensor.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { runCommand } from "./run-command.ts";

const doctor = (...args: string[]) => runCommand(doctorCommand, "doctor", ...args);

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** Let every result that comes back from the GPU be changed on its way. */
function tamper(change: (values: Float32Array) => void): void {
  const read = Tensor.prototype.read;
  vi.spyOn(Tensor.prototype, "read").mockImplementation(async function (this: Tensor) {
    const values = await read.call(this);
    change(values);
    return values;
  });
}

describe("quire doctor", () => {
  it("tells in sections what it found, and exits 0 when the adapter computes right", async () => {
    const { out, err, exitCode, error } = await doctor("--adapter", "software");
    expect(error).toBeUndefined();
    expect(exitCode).toBe(0);
    expect(err).toContain("correct, slow, no benchmark");
    const titles = out.split("\n\n").map((block) => block.split("\n")[0]);
    expect(titles.slice(0, 4)).toEqual(["Runtime", "Vulkan", "Devices", "Adapter"]);
    expect(titles).toEqual(
      expect.arrayContaining(["Features", "Limits", "Dawn's toggles", "Self-test", "What to do"]),
    );
    expect(out).toContain(`Node ${process.versions.node} on ${process.platform}`);
    expect(out).toContain("vulkan_enable_f16_on_nvidia");
    expect(out).toMatch(/GPT-2 XL: the token embedding in f32, 306\.7 MiB, (fits|is split)/);
    expect(out.match(/\[ok\] PASS/g)!.length).toBe(8);
    expect(out).toContain("PASS ledger: 0 B left");
    expect(out.trimEnd()).toMatch(/SwiftShader.* works\.$/);
  });

  it("--json prints one object of a stable form, and nothing is undefined in it", async () => {
    const { out } = await doctor("--adapter", "software", "--json");
    const report = JSON.parse(out) as DoctorReport;
    expect(Object.keys(report)).toEqual([
      "schema",
      "diagnosis",
      "device",
      "toggles",
      "selfTest",
      "ledger",
      "advice",
      "verdict",
    ]);
    expect(report).toMatchObject({
      schema: "quire-doctor/1",
      verdict: "ok",
      ledger: { afterTest: 0, afterClose: 0 },
    });
    expect(Object.keys(report.diagnosis)).toEqual([
      "runtime",
      "packages",
      "container",
      "wsl",
      "environment",
      "loader",
      "drivers",
      "strayDrivers",
      "missingDriverFiles",
      "devices",
      "nvidia",
      "adapters",
      "dawnProblem",
      "softwareMissing",
      "choice",
      "chosen",
      "openProblem",
    ]);
    expect(report.diagnosis.chosen).toMatchObject({ software: true });
    expect(report.device!.limits.maxStorageBufferBindingSize).toBeGreaterThan(0);
    expect(report.selfTest!.every(({ passed, maxError }) => passed && maxError !== null)).toBe(true);
  });

  it("without an adapter that fits exits 3, and says what was found and what to do", async () => {
    const { out, exitCode, error } = await doctor("--adapter", "no such adapter");
    expect(error).toBeUndefined();
    expect(exitCode).toBe(3);
    expect(out).toContain("NO_ADAPTER");
    expect(out).toMatch(/What to do\n {2}1\. /);
    expect(out.trimEnd()).toMatch(/No adapter works here\.$/);
    expect(out).not.toContain("Self-test");
  });

  it("exits 1 when the adapter computes wrong", async () => {
    tamper((values) => {
      values[0]! += 0.01;
    });
    const { out, exitCode } = await doctor("--adapter", "software");
    expect(exitCode).toBe(1);
    expect(out).toMatch(/\[XX\] FAIL softmax, \[5, 67\]: error 1\.0e-2, allowed 1\.0e-6/);
    expect(out).toContain("computes wrong: do not trust its results.");
  });

  it("exits 1 when the device breaks off", async () => {
    vi.spyOn(Gpu.prototype, "finish").mockRejectedValue(new Error("DEVICE_LOST: gone"));
    const { out, exitCode } = await doctor("--adapter", "software");
    expect(exitCode).toBe(1);
    expect(out).toContain("FAIL ledger: DEVICE_LOST: gone");
  });

  it("reports a broken driver file and one that is not there, and goes on", async () => {
    const folder = mkdtempSync(join(tmpdir(), "quire-doctor-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const broken = join(folder, "broken_icd.json");
    writeFileSync(broken, "{ no json");
    vi.stubEnv("VK_DRIVER_FILES", `${broken}:/nope_icd.json`);
    const report = await diagnose({ adapter: "software" });
    expect(report.verdict).toBe("ok");
    expect(report.diagnosis.missingDriverFiles).toEqual(["/nope_icd.json"]);
    expect(report.diagnosis.drivers).toHaveLength(1);
    expect(report.diagnosis.drivers[0]!.problem).toMatch(/^cannot be read: /);
    expect(doctorText(report)).toContain("[!!] named by the environment but not there: /nope_icd.json");
    expect(process.env.VK_DRIVER_FILES).toBe(`${broken}:/nope_icd.json`);
  });

  it("breaks lines at the width of the terminal, but never a word", async () => {
    const report = await diagnose({ adapter: "software" });
    for (const width of [80, 100]) {
      const long = doctorText(report, width)
        .split("\n")
        .filter((line) => line.length > width);
      for (const line of long) expect(line.trim().split(" ")).toHaveLength(1);
    }
  });
});

describe("the self-test", async () => {
  const gpu = await openTestGpu();

  it("passes and leaves nothing in the ledger", async () => {
    const results = await selfTest(gpu);
    expect(results.map(({ op }) => op)).toEqual([
      "matmul, weights f32",
      "matvec, weights f16",
      "matmul-transposed",
      "softmax",
      "layernorm",
      "attention",
      "paged-attention",
    ]);
    expect(results.filter(({ passed }) => !passed)).toEqual([]);
    expect(await ledgerRest(gpu)).toBe(0);
  });

  it("fails on a result that is not a number, and on one that never comes", async () => {
    tamper((values) => {
      values[values.length - 1] = Number.NaN;
    });
    const nan = await selfTest(gpu);
    expect(nan.every(({ passed, maxError }) => !passed && maxError === null)).toBe(true);
    vi.restoreAllMocks();
    vi.spyOn(Tensor.prototype, "read").mockRejectedValue(new Error("no result"));
    const failed = await selfTest(gpu);
    expect(failed.every(({ passed, problem }) => !passed && problem === "no result")).toBe(true);
    expect(await ledgerRest(gpu)).toBe(0);
  });
});
