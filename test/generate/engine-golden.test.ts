import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { modelFolder } from "../../src/cli/options.ts";
import { Engine } from "../../src/generate/engine.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { loadTokenizer } from "../../src/tokenizer.ts";
import { openTestGpu } from "../gpu-fixture.ts";
import { golden } from "../model/tiny.ts";

interface GoldenPrompt {
  readonly prompt: string;
  readonly add_special_tokens: boolean;
  readonly ids: number[];
  readonly greedy: number[];
  readonly beam4?: { readonly sequences: number[][]; readonly scores: number[] };
}

const GREEDY = { temperature: 0, seed: 0 };
const NEW_TOKENS = 24;
const BEAMS = 4;

const gpu = await openTestGpu();

describe.each(["en", "zh"])("novels-%s", (language) => {
  const { prompts } = JSON.parse(readFileSync(golden(`novels-${language}.json`), "utf8")) as {
    prompts: GoldenPrompt[];
  };

  test("the golden beams and the golden greedy tokens, all at once", async () => {
    const model = await Gpt2.load(gpu, modelFolder(`novels-${language}`));
    const tokenizer = await loadTokenizer(modelFolder(`novels-${language}`));
    const engine = await Engine.open(model, { kvPages: 40, tokenizer });
    try {
      const beams = engine.generate([prompts[0]!.ids], { ...GREEDY, maxNewTokens: NEW_TOKENS, beams: BEAMS });
      const greedy = engine.generate(
        prompts.slice(0, 2).map(({ ids }) => ids),
        { ...GREEDY, maxNewTokens: NEW_TOKENS, ignoreEos: true },
      );
      const searching = beams.next();
      for await (const { promptIndex, completions } of greedy)
        expect(completions[0]!.tokens).toEqual(prompts[promptIndex]!.greedy.slice(0, NEW_TOKENS));
      const { completions } = (await searching).value!;
      const { sequences, scores } = prompts[0]!.beam4!;
      expect(completions.map(({ tokens }) => tokens)).toEqual(sequences);
      // f32 logits, and the reference adds up in f32.
      for (const [i, { score, text, tokens }] of completions.entries()) {
        expect(Math.abs(score! - scores[i]!)).toBeLessThanOrEqual(1e-4);
        const { ids } = prompts[0]!;
        expect(tokenizer.decode(ids) + text).toBe(tokenizer.decode([...ids, ...tokens]));
      }
      expect(engine.metrics()).toMatchObject({ finished: 3, running: 0, kvUsage: 0 });
    } finally {
      await engine.close();
      model.free();
    }
  });
});
