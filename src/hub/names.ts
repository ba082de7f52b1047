// What a name may look like before it becomes part of an address or of a path on disk.

import { BadInput } from "../check.ts";
import { quote } from "../formats/quote.ts";

/** The hub's own rule for each half of "owner/name": letters, digits, "-", "_" and ".", 96 at most. */
const NAME_PART = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$/;

/** Models that the hub once served without an owner, and where they are now. */
const LEGACY_NAMES: ReadonlyMap<string, string> = new Map([
  ["gpt2", "openai-community/gpt2"],
  ["gpt2-medium", "openai-community/gpt2-medium"],
  ["gpt2-large", "openai-community/gpt2-large"],
  ["gpt2-xl", "openai-community/gpt2-xl"],
  ["distilgpt2", "distilbert/distilgpt2"],
]);

/**
 * The model "owner/name" that `repo` means. A name without owner is one of the five GPT-2s that the hub once
 * had at its top level, and is given its owner. Throws BadInput for anything else.
 */
export function checkRepo(repo: string): string {
  const full = LEGACY_NAMES.get(repo) ?? repo;
  const parts = full.split("/");
  const valid = parts.length === 2 && parts.every((part) => NAME_PART.test(part) && !part.includes(".."));
  if (!valid) {
    throw new BadInput(
      `${quote(repo)} is not the name of a model on the hub; write <owner>/<name>, such as openai-community/gpt2`,
    );
  }
  return full;
}

/** A branch, tag, commit or "refs/pr/<n>". Throws BadInput for what git would not accept as one. */
export function checkRevision(revision: string): string {
  if (!/^[\w][\w./+@=-]{0,254}$/.test(revision) || revision.includes("..") || revision.endsWith("/")) {
    throw new BadInput(
      `${quote(revision)} is not a revision; write a branch, a tag or a commit, such as main`,
    );
  }
  return revision;
}

/**
 * A path in a repository that stays inside the folder it is joined to, under POSIX's rules and under Windows'.
 * `source` says who named it. Throws BadInput: a hub that lists "../x" is not one to download from.
 */
export function checkFilePath(path: string, source: string): string {
  const parts = path.split("/");
  const printable = !/[\p{Cc}\\:]/u.test(path);
  if (!printable || parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new BadInput(
      `${source} names a file ${quote(path)}, which could leave its folder; nothing was written`,
    );
  }
  return path;
}
