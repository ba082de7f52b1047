/**
 * A model file that cannot be used. `code` is stable (docs: HEADER_TOO_SMALL, PICKLE_GLOBAL, …); the message reads
 * `<CODE>: <file>: <what> (<tensor or field>): got <x>, expected <y>`.
 */
export class CheckpointError extends Error {
  override name = "CheckpointError";
  readonly code: string;
  readonly file: string;

  constructor(code: string, file: string, detail: string) {
    super(`${code}: ${file}: ${detail}`);
    this.code = code;
    this.file = file;
  }
}
