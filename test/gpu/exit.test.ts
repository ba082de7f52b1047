import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { softwareAdapterMissing, softwareEnvironment } from "../../src/gpu/software-adapter.ts";

// A process that used a GPU must end by itself: Dawn holds it open as long as anything of it is referenced.

const PROJECT = fileURLToPath(new URL("../../", import.meta.url));
const BIN = join(PROJECT, "node_modules/.bin");
/** Beside the packages, so that the built code finds them; shaders lie beside it, as in the published package. */
const BUILD = join(PROJECT, "node_modules/.cache/quire-exit-test");

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(program: string, args: string[], env: Record<string, string> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { env: { ...process.env, ...env }, timeout: 60_000 };
    execFile(program, args, options, (error, stdout, stderr) => {
      // A process killed by the time limit has a signal and no code.
      const code = error ? (typeof error.code === "number" ? error.code : -1) : 0;
      resolve({ code, stdout, stderr });
    });
  });
}

/** `body` between an open and a close. A second after the close it complains, unless the process has ended by then. */
function scenario(source: URL, extension: string, body: string, open: string): string {
  const from = (module: string) => JSON.stringify(new URL(module + extension, source).href);
  return `
    import { Gpu } from ${from("gpu/gpu")};
    import { Tensor } from ${from("tensor")};
    import { add } from ${from("ops/add")};
    const gpu = await Gpu.open(${open});
    try {
      const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
      ${body}
    } finally {
      await gpu.close();
      console.log("closed " + gpu.memory.current);
      const timer = setTimeout(() => console.log("still alive"), 1000);
      globalThis.Deno ? Deno.unrefTimer(timer) : timer.unref();
    }`;
}

const SCENARIOS = {
  "after work": `console.log((await add(a, a).read()).join());`,
  "after nothing": "",
  "with work recorded and never submitted": "add(a, a);",
  "with a read under way": `add(a, a).read().catch((error) => console.log(error.message));`,
  "after an error": `gpu.memory.alloc(2 ** 40, "kv", "k");`,
  "after the device was lost": `const reading = a.read(); gpu.device.destroy(); await reading;`,
};

const EXPECTED: Record<keyof typeof SCENARIOS, { code: number; stdout: RegExp; stderr: RegExp }> = {
  "after work": { code: 0, stdout: /^2,4,6,8\nclosed 0\n$/, stderr: /^/ },
  "after nothing": { code: 0, stdout: /^closed 0\n$/, stderr: /^/ },
  "with work recorded and never submitted": { code: 0, stdout: /^closed 0\n$/, stderr: /^/ },
  "with a read under way": { code: 0, stdout: /^closed 0\nthis Gpu is closed\n$/, stderr: /^/ },
  "after an error": { code: 1, stdout: /^closed 0\n$/, stderr: /LIMIT: k needs a \d+-byte binding/ },
  "after the device was lost": { code: 1, stdout: /^closed 0\n$/, stderr: /DEVICE_LOST/ },
};

const names = Object.keys(SCENARIOS) as (keyof typeof SCENARIOS)[];

describe("Node exits within a second of close", () => {
  beforeAll(() => {
    mkdirSync(BUILD, { recursive: true });
    const flags = ["--noCheck", "--declaration", "false", "--sourceMap", "false"];
    const config = join(PROJECT, "tsconfig.build.json");
    execFileSync(join(BIN, "tsc"), ["-p", config, "--outDir", join(BUILD, "dist"), ...flags]);
    copyFileSync(join(PROJECT, "package.json"), join(BUILD, "package.json"));
    if (!existsSync(join(BUILD, "shaders"))) symlinkSync(join(PROJECT, "shaders"), join(BUILD, "shaders"));
  });

  const source = pathToFileURL(join(BUILD, "dist/"));

  test.each(names)("%s", async (name) => {
    const text = scenario(source, ".js", SCENARIOS[name], "{}");
    const ended = await run(process.execPath, ["--input-type=module", "-e", text]);
    expect(ended).toMatchObject({ code: EXPECTED[name].code });
    expect(ended.stdout).toMatch(EXPECTED[name].stdout);
    expect(ended.stderr).toMatch(EXPECTED[name].stderr);
  });

  test("on the null backend", async () => {
    const text = scenario(source, ".js", SCENARIOS["with a read under way"], '{ backend: "null" }');
    const ended = await run(process.execPath, ["--input-type=module", "-e", text]);
    expect(ended).toMatchObject({ code: 0, stdout: "closed 0\nthis Gpu is closed\n" });
  });
});

describe.skipIf(softwareAdapterMissing())("Deno exits within a second of close", () => {
  test.each(["after work", "after the device was lost"] as const)("%s", async (name) => {
    const text = scenario(pathToFileURL(join(PROJECT, "src/")), ".ts", SCENARIOS[name], "{}");
    // Deno has its own Vulkan loader's choice only from the environment that it starts with.
    const ended = await run(join(BIN, "deno"), ["eval", text], await softwareEnvironment());
    expect(ended).toMatchObject({ code: EXPECTED[name].code });
    expect(ended.stdout).toMatch(EXPECTED[name].stdout);
    expect(ended.stderr).toMatch(EXPECTED[name].stderr);
  });
});
