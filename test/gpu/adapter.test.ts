import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { type AdapterChoice, openAdapter } from "../../src/gpu/adapter.ts";
import { NoAdapter } from "../../src/gpu/errors.ts";
import {
  softwareAdapterMissing,
  softwareEnvironment,
  unpackSoftwareAdapter,
} from "../../src/gpu/software-adapter.ts";

const LOADER_VARIABLES = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "LD_LIBRARY_PATH"];
const missing = softwareAdapterMissing();
const folder = mkdtempSync(join(tmpdir(), "quire-adapter-test-"));

afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const open = async (choice: AdapterChoice) => (await openAdapter(choice, "safe")).info;

async function refusal(choice: AdapterChoice): Promise<string> {
  const error = await openAdapter(choice, "safe").then(
    () => new Error(`${choice} was found`),
    (thrown: Error) => thrown,
  );
  expect(error).toBeInstanceOf(NoAdapter);
  expect(error.message).not.toContain("\n");
  return error.message;
}

describe("which adapter", () => {
  test("auto: any, described for people and result files", async () => {
    const info = await open("auto");
    expect(info).toMatchObject({ runtime: "node", profile: "safe" });
    expect(info.implementation).toMatch(/^webgpu \d+\.\d+\.\d+ \(Dawn\)$/);
    expect(info.description).not.toBe("");
    expect(info.features).toEqual([...info.features].sort());
    expect(["system", "bundled"]).toContain(info.loader);
  });

  test.skipIf(missing)("software: SwiftShader, and it says so", async () => {
    expect(await open("software")).toMatchObject({ software: true });
    expect((await open("software")).description).toMatch(/swiftshader/i);
  });

  test.skipIf(missing).each(["swiftshader", "SwiftSHADER", "subzero"])("part of a name: %s", async (part) => {
    expect((await open(part)).software).toBe(true);
  });

  test("a name that nothing has: what was wanted, what is there, what to do", async () => {
    expect(await refusal("no such adapter")).toMatch(
      /^NO_ADAPTER: wanted an adapter named like "no such adapter"; (adapters here: .+|no Vulkan driver is installed)\. Run "quire doctor" .*--adapter software$/,
    );
  });

  test.runIf(process.platform === "linux")("gpu, where no driver is installed", async () => {
    vi.stubEnv("VK_DRIVER_FILES", join(folder, "no-such-driver.json"));
    expect(await refusal("gpu")).toMatch(
      /^NO_ADAPTER: wanted a GPU; no Vulkan driver is installed\. Run "quire /,
    );
  });

  test.skipIf(missing)("auto, where no driver is installed: the software adapter", async () => {
    vi.stubEnv("VK_DRIVER_FILES", join(folder, "no-such-driver.json"));
    expect((await open("auto")).software).toBe(true);
  });

  test("gpu: never a software adapter", async () => {
    const found = await openAdapter("gpu", "safe").then(
      ({ info }) => info.software,
      (error: Error) => error.message,
    );
    expect(found === false || /^NO_ADAPTER: wanted a GPU; ./.test(String(found))).toBe(true);
  });

  test("the null backend is there on request alone", async () => {
    expect((await openAdapter("auto", "safe", "null")).info.description).toBe("null-backend");
    expect(await refusal("null")).toContain('named like "null"');
  });
});

describe.skipIf(missing)("the environment", () => {
  test("variables that point the loader at SwiftShader are gone afterwards", async () => {
    const before = LOADER_VARIABLES.map((name) => process.env[name]);
    await open("software");
    expect(LOADER_VARIABLES.map((name) => process.env[name])).toEqual(before);
  });

  test("variables that the user had set are as they were, after an error too", async () => {
    for (const name of LOADER_VARIABLES) vi.stubEnv(name, join(folder, `my ${name}`));
    await open("software");
    await refusal("no such adapter");
    expect(LOADER_VARIABLES.map((name) => process.env[name])).toEqual(
      LOADER_VARIABLES.map((name) => join(folder, `my ${name}`)),
    );
  });

  test("what it would take to start a process on SwiftShader", async () => {
    vi.stubEnv("LD_LIBRARY_PATH", "/mine");
    const unpacked = await unpackSoftwareAdapter();
    const { LD_LIBRARY_PATH, VK_DRIVER_FILES, VK_ICD_FILENAMES, XDG_RUNTIME_DIR } =
      await softwareEnvironment();
    expect(LD_LIBRARY_PATH).toBe(`${unpacked}:/mine`);
    expect(VK_DRIVER_FILES).toBe(VK_ICD_FILENAMES);
    expect(existsSync(VK_DRIVER_FILES!)).toBe(true);
    expect(XDG_RUNTIME_DIR).toBeTruthy();
  });
});

describe.skipIf(missing)("unpacking the software adapter", () => {
  const FILES = ["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"];

  test("two processes at once find one whole folder; later ones leave it as it is", async () => {
    vi.stubEnv("QUIRE_CACHE", join(folder, "cache"));
    const [first, second] = await Promise.all([unpackSoftwareAdapter(), unpackSoftwareAdapter()]);
    expect(second).toBe(first);
    expect(first.startsWith(join(folder, "cache", "quire", "swiftshader-"))).toBe(true);
    expect(readdirSync(first)).toEqual(expect.arrayContaining(FILES));
    expect(readdirSync(join(folder, "cache", "quire"))).toHaveLength(1);
    const { ino, mtimeMs } = statSync(join(first, FILES[0]!));
    expect(await unpackSoftwareAdapter()).toBe(first);
    expect(statSync(join(first, FILES[0]!))).toMatchObject({ ino, mtimeMs });
  });

  test("a cache that cannot be written is no reason to give up", async () => {
    const file = join(folder, "a file");
    writeFileSync(file, "");
    vi.stubEnv("QUIRE_CACHE", file);
    vi.stubEnv("TMPDIR", folder);
    const unpacked = await unpackSoftwareAdapter();
    expect(unpacked.startsWith(folder)).toBe(true);
    expect(readdirSync(unpacked)).toEqual(expect.arrayContaining(FILES));
    expect(await unpackSoftwareAdapter()).toBe(unpacked);
  });

  test("libraries that another user may have put into the shared folder are not loaded", async () => {
    vi.stubEnv("QUIRE_CACHE", join(folder, "a file"));
    vi.stubEnv("TMPDIR", folder);
    const stranger = process.getuid!() + 1;
    const shared = join(folder, `quire-${stranger}`);
    mkdirSync(shared);
    // From that user's view the folder, which is ours, is somebody else's.
    vi.spyOn(process, "getuid").mockReturnValue(stranger);
    await expect(unpackSoftwareAdapter()).rejects.toThrow(/^NO_ADAPTER: .* belongs to another user/);
  });
});
