import { readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import * as quire from "../../src/index.ts";
import { Gpu } from "../../src/index.ts";

// The examples of docs/engine.md: what they print is what stands there.

const text = readFileSync(fileURLToPath(new URL("../../docs/engine.md", import.meta.url)), "utf8");

/** The blocks of one language, joined. */
const blocks = (language: string): string =>
  [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .filter(([, name]) => name === language)
    .map(([, , code]) => code!)
    .join("");

/** Names of the one import that the examples have. */
const imported = /^import \{ (.*) \} from "quire";$/m.exec(blocks("ts"))![1]!.split(", ");

test("the examples print what the document says", async () => {
  const adapter = process.env.QUIRE_TEST_ADAPTER ?? "auto";
  // What `import` would bring, with the adapter that the tests use.
  const names: Record<string, unknown> = {
    ...Object.fromEntries(Object.entries(quire).filter(([name]) => imported.includes(name))),
    Gpu: { open: () => Gpu.open({ adapter }) },
  };
  expect(Object.keys(names).sort()).toEqual([...imported].sort());
  const printed: string[] = [];
  names.console = { log: (line: unknown) => printed.push(`${line}\n`) };
  const code = blocks("ts").replace(/^import .*$/m, "");
  const AsyncFunction = (async () => {}).constructor as new (
    ...args: string[]
  ) => (...args: unknown[]) => Promise<void>;
  const run = new AsyncFunction(...Object.keys(names), code);
  await run(...Object.values(names));
  // Bytes depend on the adapter's forms.
  const plain = (lines: string) => lines.replace(/[\d,.]+ (?=MiB|tokens of)/g, "… ");
  expect(plain(printed.join(""))).toBe(plain(blocks("text")));
});
