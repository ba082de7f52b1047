// A server on 127.0.0.1 that answers like the hub: model info, file lists with pages, files with ranges, and a
// second origin, as the hub's CDN, that large (LFS) files are redirected to.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** Files of this size and more are LFS files here. */
const LFS_BYTES = 4_000;

/** Entries on one page of a file list. */
const PAGE = 5;

export type Files = Readonly<Record<string, Uint8Array>>;

export interface Seen {
  readonly from: "hub" | "cdn";
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

export interface FakeHub {
  /** Address to give as HF_ENDPOINT. */
  readonly endpoint: string;
  readonly seen: Seen[];
  /** Requests for the content of files, those that a redirect caused included. */
  contents(): Seen[];
  close(): Promise<void>;
}

export interface FakeHubOptions {
  readonly repo?: string;
  readonly files: Files;
  /** Names of revisions (their commits are COMMIT unless given here as 40 hex digits) and their own files. */
  readonly revisions?: Readonly<Record<string, { commit: string; files: Files }>>;
  /** Path in front of everything, as a mirror may have. */
  readonly prefix?: string;
  /** Host that "next page" links name, as mirrors pass on the original hub's. */
  readonly linkOrigin?: string;
  /** Changes to the list of files. */
  readonly editList?: (entries: Record<string, unknown>[]) => unknown;
  /** Answer instead of the hub: return true if the response was or will be ended. */
  readonly intercept?: (seen: Seen, response: ServerResponse, content: Uint8Array | undefined) => boolean;
}

export async function startFakeHub(options: FakeHubOptions): Promise<FakeHub> {
  const { repo = "someone/tiny", prefix = "" } = options;
  const revisions = { main: { commit: COMMIT, files: options.files }, ...options.revisions };
  const byCommit = (commit: string | undefined) =>
    Object.values(revisions).find((r) => r.commit === commit)?.files;
  const seen: Seen[] = [];
  const note = (from: Seen["from"], request: IncomingMessage): Seen => {
    const { authorization, range } = request.headers;
    const entry = { from, path: request.url ?? "", authorization, range };
    seen.push(entry);
    return entry;
  };

  const cdn = createServer((request, response) => {
    const entry = note("cdn", request);
    const sha256 = /^\/blob\/([0-9a-f]{64})\?/.exec(entry.path)?.[1];
    const all = Object.values(revisions).flatMap(({ files }) => Object.values(files));
    sendContent(
      entry,
      response,
      all.find((bytes) => sha256Of(bytes) === sha256),
    );
  });
  const cdnOrigin = await listen(cdn);

  const hub = createServer((request, response) => {
    const entry = note("hub", request);
    const url = new URL(entry.path, "http://hub");
    if (!url.pathname.startsWith(`${prefix}/`)) return refuse(response, 404);
    const path = url.pathname.slice(prefix.length);
    const [, revision] = match(path, `/api/models/${repo}/revision/`);
    const [, tree] = match(path, `/api/models/${repo}/tree/`);
    const [, file] = match(path, `/${repo}/resolve/`);
    if (revision !== undefined) {
      if (options.intercept?.(entry, response, undefined)) return;
      const commit = Object.entries(revisions).find(
        ([name, r]) => name === revision || r.commit === revision,
      )?.[1].commit;
      if (commit === undefined) return refuse(response, 404, "RevisionNotFound");
      return sendJson(response, {
        _id: "1",
        id: repo,
        sha: commit,
        private: false,
        gated: false,
        likes: 0,
        downloads: 0,
      });
    }
    if (tree !== undefined) {
      if (options.intercept?.(entry, response, undefined)) return;
      const files = byCommit(tree);
      if (files === undefined) return refuse(response, 404, "RevisionNotFound");
      const listed = Object.entries(files).map(listEntry);
      const all =
        options.editList?.([{ type: "directory", path: "onnx", size: 0, oid: "0".repeat(40) }, ...listed]) ??
        listed;
      if (!Array.isArray(all)) return sendJson(response, all);
      const cursor = Number(url.searchParams.get("cursor") ?? 0);
      const origin = options.linkOrigin ?? `http://${request.headers.host}${prefix}`;
      const next = `<${origin}${path}?cursor=${cursor + PAGE}>; rel="next"`;
      return sendJson(
        response,
        all.slice(cursor, cursor + PAGE),
        cursor + PAGE < all.length ? { link: next } : {},
      );
    }
    const [, commit, name] = /^([^/]+)\/([^/]+)$/.exec(file ?? "") ?? [];
    const bytes = byCommit(commit)?.[decodeURIComponent(name ?? "")];
    if (bytes === undefined) {
      if (options.intercept?.(entry, response, undefined)) return;
      return refuse(response, 404, file === undefined ? "RepoNotFound" : "EntryNotFound");
    }
    if (bytes.length < LFS_BYTES) return sendContent(entry, response, bytes);
    const location = `${cdnOrigin}/blob/${sha256Of(bytes)}?signature=secret`;
    response
      .writeHead(302, { location, "x-repo-commit": commit, "x-linked-etag": `"${sha256Of(bytes)}"` })
      .end("Found");
  });
  const origin = await listen(hub);

  function sendContent(entry: Seen, response: ServerResponse, bytes: Uint8Array | undefined) {
    if (options.intercept?.(entry, response, bytes)) return;
    if (bytes === undefined) return refuse(response, 404);
    const start = Number(/^bytes=(\d+)-$/.exec(entry.range ?? "")?.[1] ?? 0);
    if (entry.range === undefined)
      return response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    if (start >= bytes.length) return refuse(response, 416);
    const range = `bytes ${start}-${bytes.length - 1}/${bytes.length}`;
    response
      .writeHead(206, { "content-range": range, "content-length": bytes.length - start })
      .end(bytes.subarray(start));
  }

  return {
    endpoint: `${origin}${prefix}`,
    seen,
    contents: () => seen.filter(({ from, path }) => from === "cdn" || path.includes("/resolve/")),
    close: async () => {
      await Promise.all([hub, cdn].map(close));
    },
  };
}

export function refuse(response: ServerResponse, status: number, code?: string): void {
  response.writeHead(status, {
    "content-type": "application/json",
    ...(code ? { "x-error-code": code } : {}),
  });
  response.end(JSON.stringify({ error: "no" }));
}

/** The beginning of `bytes` under the length of all of them, and then a dead connection. */
export function cutAfter(response: ServerResponse, bytes: Uint8Array, sent: number): void {
  response.writeHead(200, { "content-length": bytes.length });
  response.write(bytes.subarray(0, sent), () => setTimeout(() => response.destroy(), 20));
}

function match(path: string, start: string): [boolean, string | undefined] {
  return path.startsWith(start) ? [true, decodeURIComponent(path.slice(start.length))] : [false, undefined];
}

function listEntry([path, bytes]: [string, Uint8Array]) {
  const blob = `blob ${bytes.length}\0`;
  const oid = createHash("sha1").update(blob).update(bytes).digest("hex");
  if (bytes.length < LFS_BYTES) return { type: "file", path, size: bytes.length, oid };
  const lfs = { oid: sha256Of(bytes), size: bytes.length, pointerSize: 134 };
  return { type: "file", path, size: bytes.length, oid: "f".repeat(40), lfs, xetHash: "e".repeat(64) };
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function sendJson(response: ServerResponse, body: unknown, headers: Record<string, string> = {}): void {
  response
    .writeHead(200, { "content-type": "application/json; charset=utf-8", ...headers })
    .end(JSON.stringify(body));
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}
