import process from "node:process";
import { Presets, SingleBar } from "cli-progress";

export interface Progress {
  show(done: number, total: number, note?: string): void;
  stop(): void;
}

/** A bar on stderr when that is a terminal; nothing in a pipe. `stop` may be called twice. */
export function progressBar(unit: string): Progress {
  if (!process.stderr.isTTY) return { show() {}, stop() {} };
  const format = `{bar} {value}/{total} ${unit} | {eta_formatted} left | {note}`;
  const bar = new SingleBar(
    { format, stream: process.stderr, hideCursor: true, clearOnComplete: true, barsize: 30 },
    Presets.shades_classic,
  );
  let started = false;
  return {
    show(done, total, note = "") {
      if (!started) bar.start(total, done, { note });
      started = true;
      bar.update(done, { note });
    },
    stop() {
      if (started) bar.stop();
      started = false;
    },
  };
}
