import { readFileSync } from "node:fs";
import { bytesOf } from "../../src/formats/file-bytes.ts";
import { unpickleAll } from "../../src/formats/pickle.ts";
import { OP } from "../../src/formats/pickle-opcodes.ts";
import { readPytorchBin } from "../../src/formats/pytorch-bin.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { readShardIndex } from "../../src/formats/shard-index.ts";
import type { TensorFile } from "../../src/formats/tensor-file.ts";
import { readEntry, readZip } from "../../src/formats/zip.ts";
import { parseConfig } from "../../src/model/config.ts";
import {
  bytes,
  dict,
  global,
  int,
  list,
  orderedDict,
  pickle,
  str,
  tensor,
  tuple,
} from "../formats/pickle-assembler.ts";
import { entry, safetensors } from "../formats/safetensors-file.ts";
import { SIX, torchLegacy, torchZip } from "../formats/torch-files.ts";
import { type EntryPlan, writeZip, zip64Extra } from "../formats/zip-writer.ts";
import type { FuzzTarget } from "./harness.ts";
import { mutate } from "./mutate.ts";
import { mutateJson } from "./mutate-json.ts";
import type { Random } from "./random.ts";

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();
/** A mutated shape can ask for more than a test should hold. */
const MAX_READ = 1 << 16;

/** A file of the project, by its path from here. */
function contentOf(path: string): Uint8Array {
  // Copied out of Node's Buffer, whose slices share memory: a mutation would reach the seed.
  return new Uint8Array(readFileSync(new URL(path, import.meta.url)));
}

/** Read a piece of every tensor and close: what a parser accepts must also be there. */
async function readAll(file: TensorFile): Promise<void> {
  for (const stored of file.tensors.values()) {
    const end = Math.min(stored.byteLength, MAX_READ);
    const data = await stored.read(0, end);
    if (data.length !== end) throw new Error(`${stored.name}: ${data.length} bytes for ${end}`);
  }
  await file.close();
}

const SAFETENSORS: FuzzTarget = {
  name: "safetensors",
  minCodes: 12,
  seeds: [
    safetensors(`{"w":${entry('"F32"', "[2,3]", "[0,24]")}}`, 24),
    safetensors(
      `{"__metadata__":{"format":"pt","é":"\\u00e9"},"a.weight":${entry('"F16"', "[2,2]", "[0,8]")},` +
        `"b.bias":${entry('"BF16"', "[]", "[8,10]")},"zero":${entry('"I64"', "[0,4]", "[10,10]")},` +
        `"mask":${entry('"BOOL"', "[1,1,2]", "[10,12]")}}  `,
      12,
    ),
    safetensors(
      `{${Array.from({ length: 12 }, (_, i) => `"h.${i}.ln_1.bias":${entry('"F32"', "[4]", `[${16 * i},${16 * i + 16}]`)}`).join(",")}}`,
      192,
    ),
    safetensors("{}"),
    contentOf("../golden/tiny/golden.bf16.safetensors"),
  ],
  mutateWithin(seed, random) {
    const length = Number(new DataView(seed.buffer, seed.byteOffset).getBigUint64(0, true));
    const header = mutateJson(DECODER.decode(seed.subarray(8, 8 + length)), random);
    const data = seed.slice(8 + length);
    return safetensors(header, random.below(8) === 0 ? data.length + random.pick([-1, 0, 1, 4]) + 1 : data);
  },
  parse: async (input) => readAll(await readSafetensors(bytesOf("f.safetensors", input))),
};

const SHARD_INDEX: FuzzTarget = {
  name: "shard index",
  minCodes: 4,
  seeds: [
    contentOf("../golden/tiny/sharded/model.safetensors.index.json"),
    ENCODER.encode(
      '{"metadata":{"total_size":8},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"s2"}}',
    ),
  ],
  mutateWithin: (seed, random) => ENCODER.encode(mutateJson(DECODER.decode(seed), random)),
  parse: (input) => readShardIndex(bytesOf("model.safetensors.index.json", input)),
};

const CONFIG: FuzzTarget = {
  name: "config.json",
  minCodes: 1,
  seeds: [
    contentOf("../golden/tiny/config.json"),
    contentOf("../golden/tiny-erf-untied/config.json"),
    contentOf("../../weights/novels-zh/config.json"),
  ],
  mutateWithin: (seed, random) => ENCODER.encode(mutateJson(DECODER.decode(seed), random)),
  parse: (input) => parseConfig(DECODER.decode(input), "config.json"),
};

const PICKLES = [
  pickle(dict({ w: tensor() })),
  pickle(orderedDict([["wte.weight", tensor({ shape: [3, 2], stride: [1, 3] })]])),
  pickle(dict({ state_dict: dict({ a: tensor(), b: tensor({ offset: 2, shape: [4], stride: [1] }) }) })),
  pickle(
    dict({
      half: tensor({ type: "HalfStorage", key: "1", numel: 12, shape: [12], stride: [1] }),
      scalar: tensor({ shape: [], stride: [] }),
      epoch: int(3),
      note: list(str("x"), tuple(int(2 ** 40)), OP.NONE, bytes(OP.BINPUT, 1), bytes(OP.BINGET, 1)),
    }),
  ),
];
const PICKLE_WORDS = [
  ...Object.values(OP).map((opcode) => Uint8Array.of(opcode)),
  ...[0x32, 0x30, 0x93, 0x69, 0x6f, 0x92, 0x82, 0x50, 0x95, 0x81].map((opcode) => Uint8Array.of(opcode)),
  global("posix", "system"),
  global("collections", "OrderedDict"),
  global("torch._utils", "_rebuild_tensor_v2"),
  global("torch", "FloatStorage"),
  bytes(OP.BINGET, 0),
  bytes(OP.BINPUT, 0),
  bytes(OP.MARK, OP.TUPLE),
  bytes(OP.BINUNICODE, "\xff\xff\xff\xff"),
  tensor(),
  dict({ w: tensor() }),
];

function mutatePickle(random: Random): Uint8Array {
  return mutate(random.pick(PICKLES), { random, seeds: PICKLES, words: PICKLE_WORDS });
}

const PICKLE: FuzzTarget = {
  name: "pickle",
  minCodes: 9,
  seeds: PICKLES,
  words: PICKLE_WORDS,
  parse: (input) => unpickleAll("data.pkl", input),
};

const ZIP_SEEDS = [
  writeZip([{ name: "a/x", data: "hello" }]),
  writeZip(
    [
      { name: "a/x", data: "hello" },
      { name: "a/data/0", data: SIX, localExtra: zip64Extra(24n, 24n) },
    ],
    { zip64: true, comment: "note" },
  ),
  torchZip(PICKLES[0]!),
];
const ZIP_WORDS = [
  "PK\x01\x02",
  "PK\x03\x04",
  "PK\x05\x06",
  "PK\x06\x06",
  "PK\x06\x07",
  "PK\x07\x08",
  "\x01\0\x10\0",
];
const ZIP_NUMBERS = [0, 1, 5, 8, 0x20, 0x40, 0x809, 0xffff, 0x7fffffff, 0xfffffffe, 0xffffffff];

/** An archive whose entries lie about one field, or that has an odd name, comment or prefix. */
function zipWithLies(random: Random): Uint8Array {
  const number = random.pick(ZIP_NUMBERS);
  const lies: Partial<EntryPlan>[] = [
    { method: number & 0xffff },
    { flags: number & 0xffff },
    { crc: number },
    { size: number },
    { compressed: number },
    { offset: number },
    { localCrc: number },
    { disk: number & 0xffff },
    { extra: zip64Extra(number, random.below(100), -1), size: 0xffffffff },
    { localName: "b" },
    { name: random.pick(["../x", "/x", "a\\b", "a\0b", "", "a/x", "é", "x/"]) },
  ];
  const entries = Array.from({ length: random.below(4) }, (_, index) => {
    const sound = { name: `a/${index}`, data: "x".repeat(random.below(40)) };
    return random.below(3) === 0 ? { ...sound, ...random.pick(lies) } : sound;
  });
  const plans = [
    {},
    { zip64: true },
    { comment: "PK\x05\x06" },
    { prefix: "x" },
    { gap: "gap" },
    { count: number },
    { zip64: true, count: BigInt(number) << 32n },
    { directorySize: number },
    { zip64: true, directoryOffset: BigInt(number) << 31n },
  ];
  return writeZip(entries, random.pick(plans));
}

const ZIP: FuzzTarget = {
  name: "zip",
  minCodes: 9,
  seeds: ZIP_SEEDS,
  words: ZIP_WORDS.map((word) => bytes(word)),
  mutateWithin: (_seed, random) => zipWithLies(random),
  async parse(input) {
    const file = bytesOf("f.bin", input);
    for (const found of (await readZip(file)).values()) await readEntry(file, found, MAX_READ);
  },
};

const STORAGES: readonly Record<string, Uint8Array>[] = [{ 0: SIX }, { 0: SIX, 1: SIX }];

const PYTORCH: FuzzTarget = {
  name: "pytorch_model.bin",
  minCodes: 15,
  seeds: [torchZip(PICKLES[0]!), torchZip(PICKLES[3]!, { 0: SIX, 1: SIX }), torchLegacy()],
  words: [...PICKLE_WORDS, ...ZIP_WORDS.map((word) => bytes(word))],
  mutateWithin(_seed, random) {
    if (random.below(3) > 0) return torchZip(mutatePickle(random), random.pick(STORAGES));
    const model = pickle(dict({ w: tensor({ legacy: true }) }));
    return torchLegacy({ model: mutate(model, { random, seeds: PICKLES, words: PICKLE_WORDS }) });
  },
  parse: async (input) => readAll(await readPytorchBin(bytesOf("f.bin", input))),
};

/** Every parser of files that come from elsewhere. */
export const TARGETS: readonly FuzzTarget[] = [SAFETENSORS, SHARD_INDEX, CONFIG, ZIP, PICKLE, PYTORCH];
