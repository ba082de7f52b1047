import { join } from "node:path";
import process from "node:process";
import { Engine } from "../../src/generate/engine.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { CACHE_MODES, type CacheMode } from "../../src/kv/cache.ts";
import { Gpt2 } from "../../src/model/gpt2.ts";
import { softmax } from "../../src/ops/softmax.ts";
import { Tensor } from "../../src/tensor.ts";
import {
  allLogits,
  checkTrueSize,
  greedyTokens,
  loadNovels,
  loadTrueSize,
  novelsGreedy,
  novelsIds,
  novelsLogits,
} from "../golden-check.ts";
import { difference, GOLDEN_FOLDER, readGolden } from "../golden-file.ts";

// A tour of Quire on Deno's own WebGPU: an op, the tiny model and a trained one, or a checkpoint of true size. It judges
// nothing and prints one JSON object with the figures.
//
//   deno run -A test/deno/tour.ts            the tiny model, then novels-en
//   deno run -A test/deno/tour.ts FOLDER     a checkpoint that make_gpt2.py wrote, with its golden data
//
// QUIRE_TEST_ADAPTER chooses the adapter, as --adapter does.

const [folder] = process.argv.slice(2);
const gpu = await Gpu.open({ adapter: process.env.QUIRE_TEST_ADAPTER ?? "auto" });
const { runtime, implementation, description, software } = gpu.info;
const figures =
  folder === undefined ? { tiny: await tiny(gpu), novels: await novels(gpu) } : await trueSize(gpu, folder);
const bytesBeforeClose = gpu.memory.current;
await gpu.close();
const ledger = { bytesBeforeClose, bytesAfterClose: gpu.memory.current };
console.log(JSON.stringify({ runtime, implementation, adapter: description, software, ...figures, ledger }));

/** `measure` for each mode of the cache, one after the other. */
async function eachMode<T>(measure: (mode: CacheMode) => Promise<T>): Promise<Record<string, T>> {
  const results: Record<string, T> = {};
  for (const mode of CACHE_MODES) results[mode] = await measure(mode);
  return results;
}

async function tiny(on: Gpu) {
  const x = Tensor.from(on, [2, 2], [0, Math.log(3), 1, 1]);
  const y = softmax(x);
  const op = difference(await y.read(), [0.25, 0.75, 0.5, 0.5]);
  x.free();
  y.free();
  const model = await Gpt2.load(on, join(GOLDEN_FOLDER, "tiny"));
  const golden = await readGolden(join(GOLDEN_FOLDER, "tiny", "golden.safetensors"));
  const ids = golden.integers("input_ids");
  const logits = await eachMode(async (mode) =>
    difference(await allLogits(model, mode, ids), golden.floats("logits")),
  );
  const greedy = await eachMode(async (mode) => (await greedyTokens(model, mode, [ids], 16))[0]!);
  const engine = await engineTokens(model, ids, 16);
  model.free();
  return { op, logits, greedy, engine };
}

/** Greedy tokens from an Engine, of two samples that share the prompt. */
async function engineTokens(model: Gpt2, ids: readonly number[], maxNewTokens: number) {
  const engine = await Engine.open(model, { kvPages: 8 });
  const tokens: (readonly number[])[] = [];
  const options = { temperature: 0, seed: 0, maxNewTokens, n: 2, ignoreEos: true };
  for await (const { completions } of engine.generate([ids], options))
    tokens.push(...completions.map((completion) => completion.tokens));
  await engine.close();
  return tokens;
}

/** Greedy tokens of one prompt alone, and 16 without a cache: more would take the software adapter long. */
async function novels(on: Gpu) {
  const loaded = await loadNovels(on, "en");
  const ids = novelsIds(loaded);
  const logits = await eachMode((mode) => novelsLogits(loaded, mode));
  const greedy = await eachMode((mode) =>
    novelsGreedy(loaded, mode, { prompts: 1, count: mode === "none" ? 16 : 64 }),
  );
  loaded.model.free();
  return { ids, logits, greedy };
}

async function trueSize(on: Gpu, path: string) {
  const checkpoint = await loadTrueSize(on, path);
  const { layers, channels } = checkpoint.model.config;
  const modes = await eachMode((mode) => checkTrueSize(checkpoint, mode));
  checkpoint.model.free();
  const rows = checkpoint.ids.length;
  return { folder: path, layers, channels, rows, minMargin: checkpoint.minMargin, modes };
}
