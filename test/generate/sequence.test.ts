import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BadInput } from "../../src/check.ts";
import type { SequenceOptions, TextStream } from "../../src/generate/sequence.ts";
import { Sequence } from "../../src/generate/sequence.ts";

const EOS = 0;

/** Text of a token is its letter: 1 is "a", 2 is "b"; `tail` is what a decoder holds until the end. */
function letters(tail = ""): TextStream {
  return { push: (id) => String.fromCharCode(96 + id), end: () => tail };
}

function sequence(options: Partial<SequenceOptions> = {}): Sequence {
  return new Sequence({
    prompt: [5, 6],
    maxNewTokens: 10,
    contextLength: 100,
    sampling: { temperature: 1, seed: 0 },
    eosIds: [EOS],
    textStream: letters(),
    ...options,
  });
}

/** Feed ids until the sequence ends or they run out; the pieces it emits. */
function feed(target: Sequence, ids: readonly number[]): string[] {
  const emitted: string[] = [];
  for (const id of ids) {
    if (target.finishReason !== null) break;
    emitted.push(target.accept(id));
  }
  return emitted;
}

describe("a sequence", () => {
  test("starts as its prompt, with nothing computed, generated or said", () => {
    const s = sequence();
    expect([s.tokens, s.promptLength, s.generatedLength, s.computed]).toEqual([[5, 6], 2, 0, 0]);
    expect([s.id, s.text, s.finishReason]).toEqual([0, "", null]);
  });

  test("does not share its prompt and sampling settings with who made it", () => {
    const prompt = [5];
    const sampling = { temperature: 1, seed: 0 };
    const s = sequence({ prompt, sampling });
    prompt.push(7);
    sampling.temperature = 9;
    expect([s.tokens, s.sampling.temperature]).toEqual([[5], 1]);
  });

  test("goes on and emits the text of each token", () => {
    const s = sequence();
    expect(feed(s, [1, 2, 3])).toEqual(["a", "b", "c"]);
    expect([s.tokens, s.generatedLength, s.text, s.finishReason]).toEqual([[5, 6, 1, 2, 3], 3, "abc", null]);
  });

  test("ends at maxNewTokens with reason length", () => {
    const s = sequence({ maxNewTokens: 3 });
    expect(feed(s, [1, 2, 3, 4])).toEqual(["a", "b", "c"]);
    expect([s.finishReason, s.text]).toEqual(["length", "abc"]);
  });

  test("ends when prompt and generated tokens fill the context", () => {
    const s = sequence({ contextLength: 4 });
    feed(s, [1, 2, 3]);
    expect([s.finishReason, s.tokens]).toEqual(["context", [5, 6, 1, 2]]);
  });

  test("says length, not context, when both are reached at once", () => {
    const s = sequence({ contextLength: 4, maxNewTokens: 2 });
    feed(s, [1, 2]);
    expect(s.finishReason).toBe("length");
  });

  test("ends at any eos id, which is its last token and no text", () => {
    const s = sequence({ eosIds: [9, EOS] });
    expect(feed(s, [1, EOS])).toEqual(["a", ""]);
    expect([s.finishReason, s.tokens.at(-1), s.text]).toEqual(["eos", EOS, "a"]);
  });

  test("goes on after eos if told to ignore it", () => {
    const s = sequence({ ignoreEos: true, maxNewTokens: 3 });
    feed(s, [1, EOS, 2]);
    expect([s.finishReason, s.generatedLength]).toEqual(["length", 3]);
  });

  test("does not end at an eos in its prompt", () => {
    expect(sequence({ prompt: [EOS, 5, EOS] }).finishReason).toBeNull();
  });

  test("ends at a stop string that several tokens make, and emits nothing of it", () => {
    const s = sequence({ stops: ["bcd"] });
    expect(feed(s, [1, 2, 3, 4, 5])).toEqual(["a", "", "", ""]);
    expect([s.finishReason, s.text, s.generatedLength]).toEqual(["stop", "a", 4]);
  });

  test("emits what a stop string held back when it ends for another reason", () => {
    for (const [options, ids] of [
      [{ maxNewTokens: 3 }, [1, 2, 3]],
      [{}, [1, 2, 3, EOS]],
      [{ contextLength: 5 }, [1, 2, 3]],
    ] as const) {
      const s = sequence({ stops: ["bcd"], ...options });
      const emitted = feed(s, ids);
      expect([s.text, emitted.join("")]).toEqual(["abc", "abc"]);
    }
  });

  test("emits what the decoder still holds, up to a stop string in it", () => {
    const plain = sequence({ maxNewTokens: 1, textStream: letters("!?") });
    expect(feed(plain, [1])).toEqual(["a!?"]);
    const stopped = sequence({ maxNewTokens: 1, textStream: letters("!?"), stops: ["?"] });
    expect(feed(stopped, [1])).toEqual(["a!"]);
    expect(stopped.finishReason).toBe("stop");
  });

  test("says nothing after a stop string, not even what the decoder holds", () => {
    const s = sequence({ textStream: letters("!?"), stops: ["b"] });
    expect(feed(s, [1, 2])).toEqual(["a", ""]);
    expect(s.text).toBe("a");
  });

  test("without a textStream has tokens and no text", () => {
    const s = sequence({ textStream: undefined, maxNewTokens: 2 });
    expect(feed(s, [1, 2])).toEqual(["", ""]);
    expect([s.finishReason, s.text]).toEqual(["length", ""]);
  });

  test("emits exactly its text, and its text is cut at the first stop string, for any tokens", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 20 }),
        fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 3 })),
        (ids, stops) => {
          const s = sequence({ stops, maxNewTokens: ids.length });
          const emitted = feed(s, ids).join("");
          const whole = ids.map((id) => letters().push(id)).join("");
          const begins = stops.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0);
          expect([s.text, emitted]).toEqual(Array(2).fill(whole.slice(0, Math.min(whole.length, ...begins))));
          expect(s.finishReason).toBe(begins.length > 0 ? "stop" : "length");
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("the computed tokens of a sequence", () => {
  test("are counted up to all tokens", () => {
    const s = sequence();
    s.advance(2);
    s.accept(1);
    expect(s.computed).toBe(2);
    s.advance(1);
    expect(s.computed).toBe(3);
  });

  test("are never more than there are", () => {
    const s = sequence();
    expect(() => s.advance(3)).toThrow("advance(3); 2 of 2 tokens are not computed");
    expect(() => s.advance(-1)).toThrow("advance(-1)");
    expect(s.computed).toBe(0);
  });
});

describe("wrong calls of a sequence", () => {
  test.each([
    [{ prompt: [] }, /the prompt is empty/],
    [{ prompt: [1, 2.5] }, /the prompt has 2.5, which is not a token id/],
    [{ prompt: [-1] }, /the prompt has -1, which is not a token id/],
    [{ prompt: [1, 2, 3], contextLength: 3 }, /3 tokens; a context of 3 leaves no room.*to 2 tokens/],
    [{ maxNewTokens: 0 }, /maxNewTokens is 0; it must be an integer of at least 1/],
    [{ maxNewTokens: 1.5 }, /maxNewTokens is 1.5/],
    [{ id: -1 }, /sequence id is -1/],
    [{ stops: [""] }, /a stop string is empty/],
    [{ stops: ["a"], textStream: undefined }, /stop strings need text/],
    [{ sampling: { temperature: -1, seed: 0 } }, /temperature is -1/],
  ])("%j is refused", (options, message) => {
    expect(() => sequence(options)).toThrow(BadInput);
    expect(() => sequence(options)).toThrow(message);
  });

  test("no token is accepted that is no id, or after the end", () => {
    const s = sequence({ maxNewTokens: 1 });
    expect(() => s.accept(-1)).toThrow("-1 is not a token id");
    s.accept(1);
    expect(() => s.accept(2)).toThrow("token 2 came after its end (length)");
    expect(s.tokens).toEqual([5, 6, 1]);
  });
});
