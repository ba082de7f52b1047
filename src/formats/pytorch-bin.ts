import { CheckpointError } from "./checkpoint-error.ts";
import { type FileBytes, openBytes } from "./file-bytes.ts";
import { refuseOtherKinds, sniff } from "./magic.ts";
import { unpickleAll } from "./pickle.ts";
import { LIMITS } from "./pickle-opcodes.ts";
import { readPytorchLegacy } from "./pytorch-legacy.ts";
import { tensorFile } from "./pytorch-tensors.ts";
import { quote } from "./quote.ts";
import { DTYPE_BYTES, type TensorFile } from "./tensor-file.ts";
import { readEntry, readZip, verifyCrc, type ZipEntry } from "./zip.ts";
import { hasEndRecord } from "./zip-end.ts";

const PICKLE_NAME = "data.pkl";
/** `byteorder` holds "little" or "big". */
const MAX_BYTEORDER_BYTES = 16;
const EXPECTED = "a PyTorch file (pytorch_model.bin)";

/**
 * Open a file that torch.save wrote: the zip form of PyTorch 1.6 and later, or the older one of pickles in a row.
 * Only the pickle and the zip's directory are read; data stays on disk. Nothing in the file is run.
 * Throws CheckpointError for every file that is not plainly a dict of tensors.
 */
export async function openPytorchBin(path: string): Promise<TensorFile> {
  const file = await openBytes(path);
  try {
    return await readPytorchBin(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** As openPytorchBin, from bytes that are open already; closing the result closes them. */
export async function readPytorchBin(file: FileBytes): Promise<TensorFile> {
  const looks = await sniff(file);
  switch (looks.kind) {
    case "zip":
      return readPytorchZip(file);
    case "tar": {
      const what = "a tar file, PyTorch's format before 0.1.10: got tar, expected zip or pickles";
      const hint = "load it with a PyTorch that can and save it again with torch.save";
      throw new CheckpointError("LEGACY_TAR", file.path, `${what}; ${hint}`);
    }
    case "pickle":
      return readPytorchLegacy(file);
    default:
      // Something before a zip is how one file shows two readers two models.
      if (await hasEndRecord(file)) return readPytorchZip(file);
      refuseOtherKinds(file.path, looks, EXPECTED);
      if (looks.kind === "safetensors") {
        throw new CheckpointError(
          "WRONG_FORMAT",
          file.path,
          `looks like ${looks.looksLike}, expected ${EXPECTED}`,
        );
      }
      return readPytorchLegacy(file);
  }
}

/** `<name>/data.pkl` beside `<name>/data/<key>`, one entry per storage. */
async function readPytorchZip(file: FileBytes): Promise<TensorFile> {
  const entries = await readZip(file);
  const pickleEntry = findPickle(file, entries);
  const folder = pickleEntry.name.slice(0, -PICKLE_NAME.length);
  refuseTorchScript(file, entries, folder);
  await requireLittleEndian(file, entries.get(`${folder}byteorder`));
  if (pickleEntry.size > LIMITS.pickleBytes) {
    const what = `${quote(pickleEntry.name)}: got ${pickleEntry.size} bytes, expected at most ${LIMITS.pickleBytes}`;
    throw new CheckpointError("PICKLE_LIMIT", file.path, what);
  }
  const pickle = await readEntry(file, pickleEntry, LIMITS.pickleBytes);
  const { value, storages } = unpickleAll(file.path, pickle);
  for (const storage of storages.values()) {
    const needed = storage.numel * DTYPE_BYTES[storage.dtype];
    const entry = entries.get(`${folder}data/${storage.key}`);
    if (entry?.size === needed) continue;
    const got = entry === undefined ? "no entry" : `${entry.size} bytes`;
    const expected = `${needed} bytes for ${storage.numel} elements of ${storage.dtype}`;
    throw new CheckpointError(
      "STORAGE_SIZE",
      file.path,
      `storage ${quote(storage.key)}: got ${got}, expected ${expected}`,
    );
  }
  return tensorFile(file, value, (storage) => {
    const entry = entries.get(`${folder}data/${storage.key}`)!;
    let verified: Promise<void> | undefined;
    return {
      begin: entry.begin,
      verify() {
        verified ??= verifyCrc(file, entry);
        return verified;
      },
    };
  });
}

/** A program lies beside its data.pkl. The folder's own name says nothing: torch.save("code.bin") makes it `code/`. */
function refuseTorchScript(file: FileBytes, entries: ReadonlyMap<string, ZipEntry>, folder: string): void {
  for (const name of entries.keys()) {
    if (name !== `${folder}constants.pkl` && !name.startsWith(`${folder}code/`)) continue;
    const what = `a TorchScript program, not a state dict: got entry ${quote(name)}, expected only tensors`;
    throw new CheckpointError("TORCHSCRIPT", file.path, `${what}; save model.state_dict()`);
  }
}

function findPickle(file: FileBytes, entries: ReadonlyMap<string, ZipEntry>): ZipEntry {
  const found = [...entries.values()].filter(
    ({ name }) => name === PICKLE_NAME || name.endsWith(`/${PICKLE_NAME}`),
  );
  if (found.length === 1) return found[0]!;
  const got = found.length === 0 ? "none" : found.length;
  throw new CheckpointError(
    "ZIP_DATA_PKL",
    file.path,
    `entries named ${PICKLE_NAME}: got ${got}, expected one`,
  );
}

async function requireLittleEndian(file: FileBytes, entry: ZipEntry | undefined): Promise<void> {
  // Files of PyTorch before 2.1 do not say it; they were little-endian on every machine that ran it in numbers.
  if (entry === undefined) return;
  const text = new TextDecoder().decode(await readEntry(file, entry, MAX_BYTEORDER_BYTES));
  if (text === "little") return;
  throw new CheckpointError("BYTEORDER", file.path, `byte order: got ${quote(text)}, expected \`little\``);
}
