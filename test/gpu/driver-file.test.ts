import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, describe, expect, it } from "vitest";
import { findDeviceNodes } from "../../src/gpu/device-nodes.ts";
import { findStrayDrivers, libraryProblem, loadedFrom, readDriverFile } from "../../src/gpu/driver-file.ts";

const folder = mkdtempSync(join(tmpdir(), "quire-icd-"));
afterAll(() => rmSync(folder, { recursive: true }));

function written(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

const icd = (library: string) =>
  JSON.stringify({ file_format_version: "1.0.0", ICD: { library_path: library, api_version: "1.3.242" } });

describe("a driver file", () => {
  it.each([
    ["text that is not JSON", "{", /^cannot be read: /],
    ["null", "null", /names no library/],
    ["a list", "[]", /names no library/],
    ["no library_path", '{"ICD":{}}', /names no library/],
    ["a library_path that is a number", '{"ICD":{"library_path":5}}', /names no library/],
  ])("with %s is a finding, not an error", (_name, text, problem) => {
    expect(readDriverFile(written("broken.json", text)).problem).toMatch(problem);
  });

  it("that is a folder, or not there, is a finding too", () => {
    expect(readDriverFile(folder).problem).toMatch(/^cannot be read: /);
    expect(readDriverFile(join(folder, "nope.json")).problem).toMatch(/^cannot be read: /);
  });

  it("names a library by the linker's search, or by a path from its own folder", () => {
    const searched = readDriverFile(written("a.json", icd("libquire-has-no-such.so")));
    expect(searched).toMatchObject({ library: "libquire-has-no-such.so", apiVersion: "1.3.242" });
    expect(searched.problem).toContain("libquire-has-no-such.so");
    const relative = readDriverFile(written("b.json", icd("./libnope.so")));
    expect(relative.problem).toContain(join(folder, "libnope.so"));
  });

  it.runIf(process.platform === "linux")("is fine when its library loads", () => {
    // The one shared library that every process of glibc or musl has.
    const libc = ["libc.so.6", "libc.so"].find((name) => libraryProblem(name) === undefined);
    expect(libc).toBeDefined();
    expect(readDriverFile(written("c.json", icd(libc!))).problem).toBeNull();
    expect(loadedFrom(libc!)).toMatch(/^\/.*\/libc\.so/);
    expect(loadedFrom("libquire-has-no-such.so")).toBeUndefined();
  });

  it("in a place where the loader does not look is found there", () => {
    const file = written("stray.json", icd("libx.so"));
    const known = ["a.json", "b.json", "c.json", "broken.json"].map((name) => join(folder, name));
    expect(findStrayDrivers(known, [folder, join(folder, "nope")])).toEqual([file]);
  });
});

describe("device nodes", () => {
  it("are those of GPUs, without folders", () => {
    const dev = join(folder, "dev");
    for (const name of ["dri/by-path", "nvidia-caps"]) mkdirSync(join(dev, name), { recursive: true });
    for (const name of ["nvidia0", "nvidiactl", "null", "dri/card0", "dri/renderD128"])
      writeFileSync(join(dev, name), "");
    const nodes = findDeviceNodes(dev);
    const names = nodes.map(({ path }) => path.slice(dev.length + 1));
    expect(names).toEqual(["dri/card0", "dri/renderD128", "nvidia0", "nvidiactl"]);
    expect(nodes.every(({ usable, group }) => usable && group !== "")).toBe(true);
    expect(findDeviceNodes(join(folder, "nope"))).toEqual([]);
  });
});
