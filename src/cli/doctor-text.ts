import { formatBytes, formatCount } from "../bench/units.ts";
import type { Diagnosis } from "../gpu/diagnosis.ts";
import { rowStride } from "../tensor.ts";
import type { DoctorReport } from "./doctor.ts";

/** ok: fine. warn: something is missing or slow. fail: does not work. info: neither good nor bad. */
type Mark = "ok" | "warn" | "fail" | "info";
type Finding = readonly [mark: Mark, text: string];

const SYMBOLS: Record<Mark, string> = { ok: "[ok]", warn: "[!!]", fail: "[XX]", info: "[--]" };

/** What an optional feature is good for; all kernels have a form that needs none. */
const FEATURES: Readonly<Record<string, string>> = {
  "timestamp-query": "times kernels in bench shaders",
  subgroups: "faster reductions",
  "shader-f16": "arithmetic in half precision (f16 storage works without)",
  "chromium-experimental-subgroup-matrix": "tensor cores, for steps of many sequences with f16 weights",
};

/** The token embeddings of the smallest and the largest GPT-2: the largest tensors that must be bound. */
const EMBEDDINGS = [
  { model: "GPT-2 (124M)", channels: 768 },
  { model: "GPT-2 XL", channels: 1600 },
] as const;
const GPT2_VOCABULARY = 50_257;

/** The report for people: sections of findings, each with a mark, then what to do. Lines of at most `width` columns. */
export function doctorText(report: DoctorReport, width = 100): string {
  const { diagnosis } = report;
  const sections: [title: string, findings: readonly Finding[]][] = [
    ["Runtime", runtime(diagnosis)],
    ["Vulkan", vulkan(diagnosis)],
    ["Devices", devices(diagnosis)],
    ["Adapter", adapter(diagnosis)],
    ["Features", features(report)],
    ["Limits", limits(report)],
    ["Dawn's toggles", toggles(report)],
    ["Self-test", selfTest(report)],
  ];
  const columns = Math.max(60, Math.min(width, 100));
  const blocks = sections
    .filter(([, findings]) => findings.length > 0)
    .map(([title, findings]) => {
      const lines = findings.map(([mark, text]) => wrapped(`  ${SYMBOLS[mark]} `, text, columns));
      return [title, ...lines].join("\n");
    });
  const advice = report.advice.map((text, i) => wrapped(`  ${i + 1}. `, text, columns));
  if (advice.length > 0) blocks.push(["What to do", ...advice].join("\n"));
  return `${[...blocks, verdict(report)].join("\n\n")}\n`;
}

function verdict({ verdict, diagnosis }: DoctorReport): string {
  if (verdict === "no-adapter") return "No adapter works here.";
  const name = diagnosis.chosen!.description;
  return verdict === "ok" ? `${name} works.` : `${name} computes wrong: do not trust its results.`;
}

function runtime(d: Diagnosis): Finding[] {
  const { name, version, platform, arch, system, cpus, memoryBytes } = d.runtime;
  const title = name === "deno" ? "Deno" : "Node";
  const machine = `${title} ${version} on ${platform} ${arch}, ${system}, ${cpus} CPUs, ${formatBytes(memoryBytes)}`;
  const { quire, webgpu, swiftshader } = d.packages;
  const dawn: Finding =
    d.dawnProblem === null
      ? ["ok", `quire ${quire}, webgpu ${webgpu ?? "not installed"}`]
      : ["fail", `quire ${quire}, webgpu ${webgpu ?? "not installed"}: ${d.dawnProblem}`];
  const software: Finding =
    d.softwareMissing === null
      ? ["ok", `software adapter: SwiftShader of @sparticuz/chromium ${swiftshader}`]
      : ["warn", `no software adapter: ${d.softwareMissing}`];
  const inside = d.container.length > 0 ? `container: ${d.container.join(", ")}` : "no signs of a container";
  const variables = Object.entries(d.environment).map(
    ([variable, value]): Finding => ["info", `${variable}=${value}`],
  );
  return [
    ["ok", machine],
    dawn,
    software,
    ["info", d.wsl ? `${inside}; Windows' subsystem for Linux` : inside],
    ...variables,
  ];
}

function vulkan(d: Diagnosis): Finding[] {
  if (d.runtime.platform !== "linux") return [];
  const { kind, path, problem } = d.loader;
  const where = path ? ` (${path})` : "";
  const loader: Record<typeof kind, Finding> = {
    system: ["ok", `loader: the system's${where}`],
    bundled: ["ok", `loader: none on the system, so the one that came with npm${where}`],
    none: ["fail", `loader: none${problem ? ` (${problem})` : ""}`],
  };
  const drivers = d.drivers.map(({ file, library, apiVersion, problem }): Finding => {
    const speaks = apiVersion ? `, Vulkan ${apiVersion}` : "";
    return problem === null
      ? ["ok", `driver ${file}: ${library}${speaks}`]
      : ["warn", `driver ${file}: ${library === null ? "" : `${library}: `}${problem}`];
  });
  return [
    loader[kind],
    ...(drivers.length > 0
      ? drivers
      : [["warn", "drivers: no driver file (ICD) where the loader looks"] as const]),
    ...d.missingDriverFiles.map(
      (file): Finding => ["warn", `named by the environment but not there: ${file}`],
    ),
    ...d.strayDrivers.map(
      ({ file }): Finding => ["info", `driver file where the loader does not look: ${file}`],
    ),
  ];
}

function devices(d: Diagnosis): Finding[] {
  if (d.runtime.platform !== "linux") return [];
  const nodes = d.devices.map(
    ({ path, usable, group }): Finding =>
      usable ? ["ok", path] : ["warn", `${path}: no permission (group ${group})`],
  );
  const { kernelVersion, libraryProblem } = d.nvidia;
  const nvidia: Finding[] = [];
  if (kernelVersion !== null) nvidia.push(["ok", `NVIDIA kernel driver ${kernelVersion}`]);
  if (kernelVersion !== null || d.devices.some(({ path }) => path.includes("nvidia")))
    nvidia.push(
      libraryProblem === null
        ? ["ok", "NVIDIA Vulkan driver library loads"]
        : ["warn", `NVIDIA Vulkan driver: ${libraryProblem}`],
    );
  return nodes.length + nvidia.length > 0
    ? [...nodes, ...nvidia]
    : [["info", "no /dev/nvidia*, no /dev/dri"]];
}

function adapter(d: Diagnosis): Finding[] {
  const listed: Finding =
    d.runtime.name === "deno"
      ? ["info", "Deno does not list its adapters"]
      : ["info", `Dawn finds: ${d.adapters.join(", ") || "none besides the software adapter"}`];
  if (d.chosen === null) return [listed, ["fail", d.openProblem ?? "none could be opened"]];
  const { description, vendor, architecture, driver, implementation, software, subgroupSize } = d.chosen;
  const details = [vendor, architecture, driver, subgroupSize && `subgroups of ${subgroupSize}`].filter(
    Boolean,
  );
  return [
    ...(d.adapters.length > 0 || !software ? [listed] : []),
    [
      software && d.choice === "auto" ? "warn" : "ok",
      `--adapter ${d.choice} gives ${description} (${details.join(", ")}) through ${implementation}`,
    ],
    ...(software ? [["warn", "software: a CPU plays GPU; correct, slow, no benchmark"] as const] : []),
  ];
}

function features({ device }: DoctorReport): Finding[] {
  if (device === null) return [];
  return Object.entries(FEATURES).map(([name, use]) =>
    device.features.includes(name) ? ["ok", `${name}: ${use}`] : ["info", `no ${name}: ${use}`],
  );
}

function limits({ device }: DoctorReport): Finding[] {
  if (device === null) return [];
  const values = device.limits;
  const plain = Object.entries(values).map(([name, value]): Finding => {
    const isBytes = name.endsWith("Size");
    return ["info", `${name} ${isBytes ? formatBytes(value) : formatCount(value)}`];
  });
  const binding = Math.min(values.maxStorageBufferBindingSize!, values.maxBufferSize!);
  const needs = EMBEDDINGS.map(({ model, channels }): Finding => {
    const bytes = GPT2_VOCABULARY * rowStride(channels) * 4;
    const blocks = Math.ceil(bytes / binding);
    const fits = blocks === 1 ? "fits one binding" : `is split into ${blocks} bindings`;
    return ["ok", `${model}: the token embedding in f32, ${formatBytes(bytes)}, ${fits}`];
  });
  return [...plain, ...needs];
}

function toggles({ toggles }: DoctorReport): Finding[] {
  if (toggles === null) return [];
  return (["safe", "fast"] as const).map((profile) => {
    const { enable, disable } = toggles[profile];
    return ["info", `--gpu-profile ${profile} enables ${enable.join(", ")}; disables ${disable.join(", ")}`];
  });
}

function selfTest({ selfTest, ledger, diagnosis }: DoctorReport): Finding[] {
  if (ledger === null) return [];
  const tests = (selfTest ?? []).map(({ op, shape, maxError, allowed, passed, problem }): Finding => {
    const error = maxError === null ? (problem ?? "not a number") : `error ${maxError.toExponential(1)}`;
    return [
      passed ? "ok" : "fail",
      `${passed ? "PASS" : "FAIL"} ${op}, ${shape}: ${error}, allowed ${allowed.toExponential(1)}`,
    ];
  });
  const { afterTest, afterClose } = ledger;
  const clean = afterTest === 0 && afterClose === 0;
  const text = clean
    ? "PASS ledger: 0 B left"
    : `FAIL ledger: ${diagnosis.openProblem ?? `${afterTest} B after the test, ${afterClose} B after close`}`;
  return [...tests, [clean ? "ok" : "fail", text]];
}

/** `text` after `prefix`, broken at spaces into lines of at most `columns`, aligned under the first. */
function wrapped(prefix: string, text: string, columns: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && prefix.length + line.length + 1 + word.length > columns) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return prefix + [...lines, line].join(`\n${" ".repeat(prefix.length)}`);
}
