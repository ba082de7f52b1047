import { mkdtempSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readText } from "../../src/cli/read-text.ts";

const folder = mkdtempSync(join(tmpdir(), "quire-text-"));
const file = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};

test("UTF-8 as it is", () => {
  expect(readText("--file", file("good", "话说\n"))).toBe("话说\n");
});

test("what is no UTF-8, too large, a folder or not there is refused by name", () => {
  expect(() => readText("--file", file("bad", Uint8Array.of(0x41, 0xff)))).toThrow(
    /^--file: .*bad is not UTF-8/,
  );
  const large = file("large", "");
  truncateSync(large, 65 * 2 ** 20);
  expect(() => readText("--file", large)).toThrow(
    /^--file: .*large has 68157440 bytes; wanted at most 67108864$/,
  );
  expect(() => readText("--file", folder)).toThrow(/^--file cannot be read: EISDIR/);
  expect(() => readText("the prompt", join(folder, "none"))).toThrow(/^the prompt cannot be read: ENOENT/);
});
