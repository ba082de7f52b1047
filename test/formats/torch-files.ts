import { bytesOf, type FileBytes } from "../../src/formats/file-bytes.ts";
import { readPytorchBin } from "../../src/formats/pytorch-bin.ts";
import type { TensorFile } from "../../src/formats/tensor-file.ts";
import { bytes, dict, int, list, type Part, pickle, str, tensor, u64 } from "./pickle-assembler.ts";
import { type EntryPlan, writeZip, type ZipPlan } from "./zip-writer.ts";

/** The storage that the assembler's default tensor views: 0, 1, 2, 3, 4, 5 in float32. */
export const SIX = new Uint8Array(new Float32Array([0, 1, 2, 3, 4, 5]).buffer);

/** A zip as torch.save writes it: the pickle and the storages by key. */
export function torchZip(
  dataPkl: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = { 0: SIX },
  more: readonly EntryPlan[] = [],
  plan: ZipPlan = {},
): Uint8Array {
  const data = Object.entries(storages).map(([key, data]) => ({ name: `model/data/${key}`, data }));
  const entries = [
    { name: "model/data.pkl", data: dataPkl },
    { name: "model/byteorder", data: "little" },
    ...data,
    { name: "model/version", data: "3\n" },
  ];
  return writeZip([...entries.filter(({ name }) => !more.some((entry) => entry.name === name)), ...more], {
    zip64: true,
    ...plan,
  });
}

/** What the older form consists of; each part may be replaced. */
export interface LegacyPlan {
  readonly magic?: Uint8Array;
  readonly protocol?: Uint8Array;
  readonly system?: Uint8Array;
  readonly model?: Uint8Array;
  readonly keys?: Uint8Array;
  readonly data?: Uint8Array;
}

export const LEGACY_MAGIC = bytes(0x80, 2, 0x8a, 10, "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");

/** A file as torch.save wrote it before the zip form: one tensor `w` [2, 3]. */
export function torchLegacy(plan: LegacyPlan = {}): Uint8Array {
  return bytes(
    plan.magic ?? LEGACY_MAGIC,
    plan.protocol ?? bytes(0x80, 2, "M\xe9\x03."),
    plan.system ??
      pickle(dict({ protocol_version: int(1001), little_endian: 0x88, type_sizes: dict({ int: int(4) }) })),
    plan.model ?? pickle(dict({ w: tensor({ legacy: true }) })),
    plan.keys ?? pickle(list(str("0"))),
    plan.data ?? bytes(u64(6), SIX),
  );
}

/** Open these bytes as a pytorch_model.bin. */
export function openBin(...parts: readonly Part[]): Promise<TensorFile> {
  return readPytorchBin(memory(...parts));
}

/** These bytes as a file called f.bin. */
export function memory(...parts: readonly Part[]): FileBytes {
  return bytesOf("f.bin", bytes(...parts));
}

/** The message of what `work` throws, or why there is none; for `toMatch` and `toBe`. */
export async function messageOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return "nothing was thrown";
  } catch (error) {
    return error instanceof Error && error.name === "CheckpointError"
      ? error.message
      : `not ours: ${String(error)}`;
  }
}
