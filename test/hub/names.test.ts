import { posix, win32 } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BadInput } from "../../src/check.ts";
import { checkFilePath, checkRepo } from "../../src/hub/names.ts";

function accepted(check: () => string): string | undefined {
  try {
    return check();
  } catch (error) {
    expect(error).toBeInstanceOf(BadInput);
    return undefined;
  }
}

// Pieces that a hostile path is made of; whole random strings would hardly ever form one.
const PIECES = fc.constantFrom("..", ".", "/", "\\", "a", "C:", "%2e", " ", "\0", "model.safetensors", "~");

describe("checkFilePath", () => {
  it("accepts only what stays below the folder it is joined to, on POSIX and on Windows", () => {
    let inside = 0;
    fc.assert(
      fc.property(fc.array(PIECES, { maxLength: 6 }), (pieces) => {
        const path = accepted(() => checkFilePath(pieces.join(""), "the list"));
        if (path === undefined) return;
        inside++;
        expect(posix.resolve("/base", path).startsWith("/base/")).toBe(true);
        expect(win32.resolve("D:\\base", path).startsWith("D:\\base\\")).toBe(true);
      }),
      { numRuns: 5_000 },
    );
    expect(inside).toBeGreaterThan(100);
  });

  it.each(["model.safetensors", "onnx/model.onnx", ".gitattributes", "a..b", "a b.txt"])(
    "accepts %s",
    (path) => {
      expect(checkFilePath(path, "the list")).toBe(path);
    },
  );
});

describe("checkRepo", () => {
  it.each(["openai-community/gpt2", "uer/gpt2-chinese-cluecorpussmall", "a/b.c_d", "0/1"])(
    "accepts %s",
    (repo) => {
      expect(checkRepo(repo)).toBe(repo);
    },
  );

  it("accepts only two names that are safe in a path and in an address", () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(PIECES, fc.string()), { maxLength: 6 }), (pieces) => {
        const repo = accepted(() => checkRepo(pieces.join("")));
        if (repo !== undefined) expect(encodeURI(posix.join("/base", repo))).toBe(`/base/${repo}`);
      }),
      { numRuns: 5_000 },
    );
  });

  it.each([
    ["gpt2", "openai-community/gpt2"],
    ["gpt2-xl", "openai-community/gpt2-xl"],
    ["distilgpt2", "distilbert/distilgpt2"],
  ])("gives %s its owner", (legacy, full) => expect(checkRepo(legacy)).toBe(full));
});
