import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import { StopMatcher } from "../../src/generate/stop-strings.ts";

/** All that a matcher emits for these pieces, and whether it stopped. */
function run(stops: readonly string[], pieces: readonly string[]): { text: string; stopped: boolean } {
  const matcher = new StopMatcher(stops);
  const text = pieces.map((piece) => matcher.push(piece).emit).join("");
  const last = matcher.end();
  return { text: text + last.emit, stopped: last.stopped };
}

/** Texts and stops of two or three letters, so that stops begin, overlap and repeat everywhere. */
const fewLetters = (minLength: number, maxLength: number) =>
  fc.string({ unit: fc.constantFrom("a", "b", "é"), minLength, maxLength });
const pieces = fc.array(fewLetters(0, 5), { maxLength: 12 });
const stops = fc.array(fewLetters(1, 5), { maxLength: 4 });

describe("a stop matcher", () => {
  test("emits the text up to the first stop string, however the text is split", () => {
    fc.assert(
      fc.property(stops, pieces, (stopStrings, split) => {
        const whole = split.join("");
        const begins = stopStrings.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0);
        const wanted = {
          text: whole.slice(0, Math.min(whole.length, ...begins)),
          stopped: begins.length > 0,
        };
        expect(run(stopStrings, split)).toEqual(wanted);
        expect(run(stopStrings, [...whole])).toEqual(wanted);
      }),
      { numRuns: 3000, seed: 4 },
    );
  });

  test("holds back only what may become a stop string", () => {
    fc.assert(
      fc.property(stops, pieces, (stopStrings, split) => {
        const matcher = new StopMatcher(stopStrings);
        for (const piece of split) {
          if (matcher.push(piece).stopped) return;
          const { held } = matcher;
          expect(held === "" || stopStrings.some((stop) => stop.startsWith(held) && stop !== held)).toBe(
            true,
          );
        }
      }),
      { numRuns: 500 },
    );
  });

  test("finds a stop string that three pieces make, and holds the beginning back until then", () => {
    const matcher = new StopMatcher(["\n\nEND"]);
    expect(matcher.push("one.\n")).toEqual({ emit: "one.", stopped: false });
    expect(matcher.held).toBe("\n");
    expect(matcher.push("\nE")).toEqual({ emit: "", stopped: false });
    expect(matcher.push("ND and more")).toEqual({ emit: "", stopped: true });
  });

  test("lets go of what turns out to be no stop string", () => {
    const matcher = new StopMatcher(["abcd"]);
    expect(matcher.push("xabc")).toEqual({ emit: "x", stopped: false });
    expect(matcher.push("abce")).toEqual({ emit: "abcabce", stopped: false });
    expect(matcher.push("ab")).toEqual({ emit: "", stopped: false });
    expect(matcher.end()).toEqual({ emit: "ab", stopped: false });
  });

  test("prefers the stop string that begins first, and waits for it", () => {
    const matcher = new StopMatcher(["abcd", "bc"]);
    expect(matcher.push("xabc")).toEqual({ emit: "x", stopped: false });
    expect(matcher.push("d")).toEqual({ emit: "", stopped: true });
    expect(run(["abcd", "bc"], ["abc", "e"])).toEqual({ text: "a", stopped: true });
    expect(run(["abcd", "bc"], ["abc"])).toEqual({ text: "a", stopped: true });
  });

  test("emits nothing after a stop string", () => {
    const matcher = new StopMatcher(["."]);
    expect(matcher.push("a.b")).toEqual({ emit: "a", stopped: true });
    expect(matcher.push("c")).toEqual({ emit: "", stopped: true });
    expect(matcher.end()).toEqual({ emit: "", stopped: true });
  });

  test("without stop strings passes everything on at once", () => {
    const matcher = new StopMatcher([]);
    expect(matcher.push("anything")).toEqual({ emit: "anything", stopped: false });
    expect(matcher.held).toBe("");
  });

  test("refuses an empty stop string", () => {
    expect(() => new StopMatcher(["a", ""])).toThrow(BadInput);
    expect(() => new StopMatcher([""])).toThrow("a stop string is empty");
  });
});
