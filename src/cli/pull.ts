// quire pull <repo>: download a GPT-2 from the Hugging Face hub.
//
// stdout gets the result, stderr the progress: a bar on a terminal, else one line for each file.

import { SingleBar } from "cli-progress";
import type { Command } from "commander";
import { formatBytes } from "../bench/units.ts";
import { type PullProgress, type PullResult, pullModel } from "../hub.ts";

/** What a shell reports for a command that Ctrl-C ended: 128 + SIGINT's number. */
const EXIT_SIGINT = 130;

interface PullFlags {
  readonly revision?: string;
  readonly into: string;
  readonly endpoint?: string;
  readonly json?: boolean;
}

/** Add `quire pull` to `program`. Its action rejects with BadInput; Ctrl-C sets the exit code to 130. */
export function pullCommand(program: Command): void {
  program
    .command("pull")
    .summary("download a GPT-2 from the Hugging Face hub")
    .description(
      "Download configuration, tokenizer and weights of a GPT-2 from the Hugging Face hub into <into>/<owner>/<name>.\n" +
        "What is there already and right is not fetched again; an interrupted download is continued.\n" +
        "HF_ENDPOINT names a mirror, HF_TOKEN gives access to gated and private models.",
    )
    .argument("<repo>", "model on the hub as <owner>/<name>, such as openai-community/gpt2")
    .option("--revision <name>", "branch, tag or commit (default: main)")
    .option("--into <folder>", "folder that holds the models", "weights")
    .option(
      "--endpoint <url>",
      "the hub or a mirror of it (default: HF_ENDPOINT, else https://huggingface.co)",
    )
    .option("--json", "print the result as JSON")
    .action(pull);
}

async function pull(repo: string, flags: PullFlags): Promise<void> {
  const interrupt = new AbortController();
  const onSigint = () => interrupt.abort(new Error("SIGINT"));
  // Once: a second Ctrl-C ends the process at once, as it would without this.
  process.once("SIGINT", onSigint);
  const display = process.stderr.isTTY ? progressBar() : fileLines();
  try {
    const { revision, into, endpoint, json } = flags;
    const { signal } = interrupt;
    const result = await pullModel({ repo, revision, into, endpoint, signal, onProgress: display.show });
    display.stop();
    process.stdout.write(`${json ? JSON.stringify(result, null, 2) : summary(result)}\n`);
  } catch (error) {
    display.stop();
    if (!interrupt.signal.aborted) throw error;
    process.stderr.write("quire pull: interrupted; the same command continues the download\n");
    process.exitCode = EXIT_SIGINT;
  } finally {
    process.removeListener("SIGINT", onSigint);
  }
}

interface Display {
  show(progress: PullProgress): void;
  stop(): void;
}

/** One bar over all files, with the name of the current one. */
function progressBar(): Display {
  const bar = new SingleBar({
    format: "{bar} {percentage}% | {sizes} | {file}",
    barsize: 30,
    hideCursor: true,
    stream: process.stderr,
  });
  let started = false;
  return {
    show({ file, done, total }) {
      const payload = { file, sizes: `${formatBytes(done)} of ${formatBytes(total)}` };
      if (started) bar.update(done, payload);
      else bar.start(total, done, payload);
      started = true;
    },
    stop() {
      if (started) bar.stop();
    },
  };
}

/** A line when a file is finished; nothing in between. */
function fileLines(): Display {
  return {
    show({ file, fileTotal, state }) {
      if (state === "downloading") return;
      process.stderr.write(
        `${file}: ${formatBytes(fileTotal)}, ${state === "done" ? "downloaded" : "already there"}\n`,
      );
    },
    stop() {},
  };
}

function summary({ repo, commit, folder, files, received }: PullResult): string {
  const size = files.reduce((sum, file) => sum + file.bytes, 0);
  const what = received === 0 ? "everything was there already" : `${formatBytes(received)} downloaded`;
  return `${repo} at commit ${commit.slice(0, 12)} is in ${folder}: ${files.length} files, ${formatBytes(size)}, ${what}`;
}
