// Which commit a revision is, and which files it has: @huggingface/hub asks, this checks the answers.

import { listFiles, modelInfo } from "@huggingface/hub";
import { z } from "zod";
import { BadInput } from "../check.ts";
import { oneLine } from "../formats/quote.ts";
import type { Hub } from "./endpoint.ts";
import { Interrupted } from "./interrupted.ts";
import { checkFilePath } from "./names.ts";
import type { Wanted } from "./refusal.ts";
import { jsonFetch } from "./request.ts";

/** How a file's content is checked: sha256 of its bytes (git LFS), or the id that git gives it as a blob. */
export interface Digest {
  readonly algorithm: "sha256" | "git-sha1";
  /** Lower-case hex. */
  readonly hex: string;
}

/** A file at the top of a repository. */
export interface HubFile {
  readonly name: string;
  readonly bytes: number;
  /** Absent where a mirror does not give one; then only the size is checked. */
  readonly digest: Digest | undefined;
}

const ENTRY = z.object({
  type: z.string(),
  path: z.string(),
  size: z.int().nonnegative().default(0),
  oid: z
    .string()
    .regex(/^[0-9a-f]{40}$/)
    .nullish(),
  lfs: z.object({ oid: z.string().regex(/^[0-9a-f]{64}$/), size: z.int().nonnegative() }).nullish(),
});

/** The commit that `wanted.revision` is now, so that every file of one pull comes from the same commit. */
export async function resolveCommit(hub: Hub, wanted: Wanted): Promise<string> {
  return ask(hub, wanted, async () => {
    const info = await modelInfo({
      name: wanted.repo,
      revision: wanted.revision,
      additionalFields: ["sha"],
      hubUrl: hub.endpoint,
      fetch: jsonFetch(hub, wanted),
    });
    return z
      .string()
      .regex(/^[0-9A-Za-z]{1,64}$/)
      .parse(info.sha);
  });
}

/** The files at the top of the repository at `commit`, by name. Throws BadInput, also for a path like "../x". */
export async function listTopFiles(hub: Hub, wanted: Wanted, commit: string): Promise<Map<string, HubFile>> {
  const fetch = jsonFetch(hub, wanted);
  return ask(hub, wanted, async () => {
    const files = new Map<string, HubFile>();
    const entries = listFiles({
      repo: { type: "model", name: wanted.repo },
      revision: commit,
      hubUrl: hub.endpoint,
      fetch,
    });
    for await (const listed of entries) {
      const entry = ENTRY.parse(listed);
      const name = checkFilePath(entry.path, `${hub.endpoint}'s list for ${wanted.repo}`);
      if (entry.type === "file")
        files.set(name, { name, bytes: entry.lfs?.size ?? entry.size, digest: digestOf(entry) });
    }
    return files;
  });
}

/** An LFS file's own oid is that of its pointer, so the LFS entry comes first. */
function digestOf(entry: z.infer<typeof ENTRY>): Digest | undefined {
  if (entry.lfs) return { algorithm: "sha256", hex: entry.lfs.oid };
  return entry.oid ? { algorithm: "git-sha1", hex: entry.oid } : undefined;
}

/** Run questions to the hub and turn whatever goes wrong, except an abort, into one line. */
async function ask<T>(hub: Hub, wanted: Wanted, question: () => Promise<T>): Promise<T> {
  try {
    return await question();
  } catch (error) {
    if (hub.signal?.aborted || error instanceof BadInput || !(error instanceof Error)) throw error;
    if (error instanceof Interrupted) {
      throw new BadInput(
        `cannot ask for ${wanted.repo}: ${error.message}; check the network, or set HF_ENDPOINT to a mirror of the hub`,
      );
    }
    const issue = error instanceof z.ZodError ? error.issues[0] : undefined;
    const detail = issue ? `${issue.path.join(".")}: ${issue.message}` : error.message;
    throw new BadInput(
      `${hub.endpoint} answered about ${wanted.repo} in a form that the hub does not use (${oneLine(detail)}); try another endpoint (HF_ENDPOINT)`,
    );
  }
}
