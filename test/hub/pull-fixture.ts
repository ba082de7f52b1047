// Golden files as repositories of a fake hub, and a folder to pull them into.

import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { BadInput } from "../../src/check.ts";
import { pullModel } from "../../src/hub.ts";
import { type FakeHub, type FakeHubOptions, type Files, sha256Of, startFakeHub } from "./fake-hub.ts";

export const WEIGHTS = "model.safetensors";

const GOLDEN = new URL("../golden/", import.meta.url);

export async function golden(path: string): Promise<Uint8Array> {
  return readFile(new URL(path, GOLDEN));
}

/** The files of a golden folder by name, only those that `names` has if it is given. */
export async function goldenFiles(
  folder: string,
  names?: readonly string[],
): Promise<Record<string, Uint8Array>> {
  const all = await readdir(new URL(`${folder}/`, GOLDEN), { withFileTypes: true });
  const files = all.filter((entry) => entry.isFile() && (names?.includes(entry.name) ?? true));
  const pairs = files.map(async ({ name }) => [name, await golden(`${folder}/${name}`)] as const);
  return Object.fromEntries(await Promise.all(pairs));
}

/** golden/tiny as a repository usually is: two formats of the weights, and files that Quire has no use for. */
export async function tinyRepo(): Promise<Record<string, Uint8Array>> {
  const text = (content: string) => new TextEncoder().encode(content);
  return {
    ".gitattributes": text("*.bin filter=lfs\n"),
    "README.md": text("# tiny\n"),
    ...(await goldenFiles("tiny", ["config.json", "model.safetensors", "pytorch_model.bin"])),
    "tf_model.h5": text("not for us"),
    "merges.txt": text("#version: 0.2\na b\n"),
    "vocab.json": text('{"a":0,"b":1}'),
    "generation_config.json": text("{}"),
  };
}

/** A hub and an empty folder that both go away with the test. */
export async function setUp(options: FakeHubOptions): Promise<{ hub: FakeHub; into: string }> {
  const hub = await startFakeHub(options);
  const into = await mkdtemp(join(tmpdir(), "quire-pull-"));
  onTestFinished(async () => {
    await hub.close();
    await rm(into, { recursive: true, force: true });
  });
  return { hub, into };
}

/** golden/tiny on a hub, and a folder with the beginning of its weights as a part, if `partBytes` is given. */
export async function halfDone(options: Omit<FakeHubOptions, "files">, partBytes?: number) {
  const files = await goldenFiles("tiny", ["config.json", WEIGHTS]);
  const { hub, into } = await setUp({ ...options, files });
  const folder = join(into, "someone", "tiny");
  const part = join(folder, `${WEIGHTS}.part`);
  const weights = files[WEIGHTS]!;
  await mkdir(folder, { recursive: true });
  if (partBytes !== undefined) await writeFile(part, weights.subarray(0, partBytes));
  const pull = (extra: Partial<Parameters<typeof pullModel>[0]> = {}) =>
    pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into, ...extra });
  const ranges = () =>
    hub
      .contents()
      .filter(({ from }) => from === "cdn")
      .map(({ range }) => range);
  return { files, weights, hub, into, folder, part, pull, ranges };
}

/** The one line that a pull fails with. */
export async function failure(pull: Promise<unknown>): Promise<string> {
  const error = await pull.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(BadInput);
  const { message } = error as BadInput;
  expect(message).not.toContain("\n");
  return message;
}

/** The sha256 of each file by name: comparing these is much quicker than comparing the bytes with toEqual. */
export function digests(files: Files): Record<string, string> {
  return Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, sha256Of(bytes)]));
}

/** The digests of the files in `folder`. */
export async function digestsIn(folder: string): Promise<Record<string, string>> {
  const names = await readdir(folder);
  const pairs = names.map(async (name) => [name, sha256Of(await readFile(join(folder, name)))] as const);
  return Object.fromEntries(await Promise.all(pairs));
}
