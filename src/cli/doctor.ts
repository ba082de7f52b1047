import process from "node:process";
import { type Command, Option } from "commander";
import { dawnToggles, isDeno } from "../gpu/adapter.ts";
import { advise } from "../gpu/advice.ts";
import { type Diagnosis, examineMachine, type Machine } from "../gpu/diagnosis.ts";
import type { Gpu, OpenOptions } from "../gpu/gpu.ts";
import { doctorText } from "./doctor-text.ts";
import { EXIT_FAILURE, EXIT_NO_GPU } from "./exit.ts";
import { addGpuOptions, type GpuFlags, openOptions } from "./options.ts";
import { ledgerRest, type SelfTestResult, selfTest } from "./self-test.ts";
import { withGpu } from "./with-gpu.ts";

/** Changes whenever a field of `quire doctor --json` changes its meaning. */
export const DOCTOR_SCHEMA = "quire-doctor/1";

/** What `quire doctor --json` prints. */
export interface DoctorReport {
  readonly schema: typeof DOCTOR_SCHEMA;
  readonly diagnosis: Diagnosis;
  /** Of the opened device; null when none was opened, as is all below. */
  readonly device: {
    readonly features: readonly string[];
    readonly limits: Readonly<Record<string, number>>;
  } | null;
  /** Dawn's toggles by profile; null on Deno, which has none. */
  readonly toggles: Readonly<Record<"safe" | "fast", ReturnType<typeof dawnToggles>>> | null;
  readonly selfTest: readonly SelfTestResult[] | null;
  /** Bytes that the self-test left in the ledger (null: it broke off), and what is in it after closing; should be 0. */
  readonly ledger: { readonly afterTest: number | null; readonly afterClose: number } | null;
  readonly advice: readonly string[];
  /** "ok": an adapter works and computes right. Exit codes 0, 1, 3. */
  readonly verdict: "ok" | "self-test-failed" | "no-adapter";
}

/** Limits that bound which models run and how. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Carries the machine's findings to the process that Deno is started anew as: there the environment is ours. */
const INHERITED = "QUIRE_DOCTOR_MACHINE";

const EXIT_CODES = { ok: 0, "self-test-failed": EXIT_FAILURE, "no-adapter": EXIT_NO_GPU } as const;

interface DoctorFlags extends GpuFlags {
  readonly json?: boolean;
}

/** Add `quire doctor` to `program`. Its action sets the exit code: 1 when the self-test fails, 3 without an adapter. */
export function doctorCommand(program: Command): void {
  const command = program
    .command("doctor")
    .summary("explain what this machine offers, and what to do about what is missing")
    .description(
      "Look at the runtime, the Vulkan loader and its drivers, devices, adapters, features and limits; compute with\n" +
        "the adapter and compare with float64; say what to do when something is missing.\n" +
        "Exit code: 0 when an adapter works, 1 when it computes wrong, 3 when there is none.",
    )
    // Before the hook of addGpuOptions, which may start Deno anew.
    .hook("preAction", inheritMachine);
  addGpuOptions(command)
    .addOption(new Option("--json", "print the findings as JSON"))
    .action(async (flags: DoctorFlags) => {
      const report = await diagnose(openOptions(flags));
      const width = process.stdout.columns ?? 100;
      process.stdout.write(flags.json ? `${JSON.stringify(report, null, 2)}\n` : doctorText(report, width));
      process.exitCode = EXIT_CODES[report.verdict];
    });
}

/** Examine the machine, open the adapter and test it. Never throws for what is wrong with the machine. */
export async function diagnose(options: OpenOptions): Promise<DoctorReport> {
  const inherited = process.env[INHERITED];
  const machine: Machine = inherited ? JSON.parse(inherited) : await examineMachine();
  const opened = await examineAdapter(options);
  const diagnosis: Diagnosis = {
    ...machine,
    choice: options.adapter ?? "auto",
    chosen: opened.gpu?.info ?? null,
    openProblem: opened.problem,
  };
  const computes = opened.selfTest?.every((result) => result.passed) && opened.problem === null;
  const passed = computes && opened.ledger?.afterTest === 0 && opened.ledger.afterClose === 0;
  return {
    schema: DOCTOR_SCHEMA,
    diagnosis,
    device: opened.gpu ? deviceOf(opened.gpu) : null,
    toggles: isDeno ? null : { safe: dawnToggles("safe"), fast: dawnToggles("fast") },
    selfTest: opened.selfTest,
    ledger: opened.ledger,
    advice: advise(diagnosis),
    verdict: opened.gpu === null ? "no-adapter" : passed ? "ok" : "self-test-failed",
  };
}

async function inheritMachine(): Promise<void> {
  if (isDeno) process.env[INHERITED] ??= JSON.stringify(await examineMachine());
}

interface Opened {
  readonly gpu: Gpu | null;
  readonly problem: string | null;
  readonly selfTest: readonly SelfTestResult[] | null;
  readonly ledger: DoctorReport["ledger"];
}

/** Open, test and close. What it throws before there is a Gpu is a problem of the adapter, afterwards of the test. */
async function examineAdapter(options: OpenOptions): Promise<Opened> {
  let gpu: Gpu | null = null;
  let results: SelfTestResult[] | null = null;
  let afterTest: number | null = null;
  let problem: string | null = null;
  try {
    await withGpu(options, async (opened) => {
      gpu = opened;
      results = await selfTest(opened);
      afterTest = await ledgerRest(opened);
    });
  } catch (error) {
    problem = (error as Error).message;
  }
  return finished(gpu, results, afterTest, problem);
}

function finished(
  gpu: Gpu | null,
  selfTest: SelfTestResult[] | null,
  afterTest: number | null,
  problem: string | null,
): Opened {
  const ledger = gpu && { afterTest, afterClose: gpu.memory.current };
  return { gpu, problem, selfTest, ledger };
}

/** A closed Gpu still tells what its device could. */
function deviceOf({ features, limits }: Gpu): NonNullable<DoctorReport["device"]> {
  return {
    features: [...features].sort(),
    limits: Object.fromEntries(LIMITS.map((name) => [name, limits[name]])),
  };
}
