import { BadInput } from "../check.ts";

const REASONS: ReadonlyMap<string, string> = new Map([
  ["ENOSPC", "no space left on the disk"],
  ["EDQUOT", "the disk quota is used up"],
  ["EFBIG", "the file system takes no file of this size"],
  ["EACCES", "no permission"],
  ["EPERM", "no permission"],
  ["EROFS", "the file system is read-only"],
  ["ENOENT", "no folder can be made there"],
  ["ENOTDIR", "a file stands where a folder should be"],
  ["EEXIST", "a file stands where a folder should be"],
  ["EISDIR", "a folder stands where the file should be"],
  ["EIO", "the disk reports an error"],
]);

/** A file system's error about `path` as one line (BadInput); any other error as it is. */
export function diskError(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !("code" in error) || !("syscall" in error)) return error;
  const reason = REASONS.get(String(error.code)) ?? String(error.code);
  return new BadInput(`cannot write ${path}: ${reason}; choose another folder (--into), or repair this one`);
}
