import { unpickleAll } from "../../src/formats/pickle.ts";
import type { PickleValue } from "../../src/formats/pickle-values.ts";
import { bytes, type Part, pickle } from "./pickle-assembler.ts";
import { messageOf } from "./torch-files.ts";

/** The value of the protocol 2 pickle that the parts make. */
export function load(...parts: readonly Part[]): PickleValue {
  return unpickleAll("f.bin", pickle(...parts)).value;
}

/** What the reader says to exactly these bytes. */
export function refusal(...parts: readonly Part[]): Promise<string> {
  return messageOf(() => unpickleAll("f.bin", bytes(...parts)));
}

/** What the reader says to the protocol 2 pickle that the parts make. */
export function refusalOf(...parts: readonly Part[]): Promise<string> {
  return refusal(pickle(...parts));
}
