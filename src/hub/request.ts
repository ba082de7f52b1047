// One GET to the hub: redirects followed by hand, a watch for servers that fall silent, errors in plain words.
//
// Redirects are followed here because large files live on another host, which must not see the token.

import { BadInput } from "../check.ts";
import { oneLine } from "../formats/quote.ts";
import type { Hub } from "./endpoint.ts";
import { Interrupted } from "./interrupted.ts";
import { refusal, type Wanted } from "./refusal.ts";

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 8;
/** Answers that one question may take. The hub puts 1,000 files on a page. */
const MAX_PAGES = 1_000;
/** Bytes of all those answers. A file takes about 300 bytes of a list. */
const MAX_JSON_BYTES = 64 * 1024 * 1024;

/** What `use` gets to see of an answer; the connection is closed when `use` returns. */
export interface Answer {
  readonly status: number;
  readonly ok: boolean;
  readonly headers: Headers;
  /** The address that answered in the end. */
  readonly url: URL;
  /** The body, piece by piece. Throws Interrupted when it breaks off with an error. */
  chunks(): AsyncGenerator<Uint8Array>;
}

/**
 * GET `address` and hand the answer, whatever its status, to `use`.
 * Throws Interrupted when the network fails or falls silent, and the reason of hub.signal once that is aborted.
 */
export async function get<T>(
  hub: Hub,
  address: URL,
  headers: Record<string, string>,
  use: (answer: Answer) => Promise<T>,
): Promise<T> {
  const watch = startWatch(hub);
  try {
    const { response, url } = await follow(hub, address, headers, watch);
    const chunks = () => readChunks(hub, response, url, watch);
    return await use({ status: response.status, ok: response.ok, headers: response.headers, url, chunks });
  } finally {
    watch.stop();
  }
}

/**
 * A `fetch` for @huggingface/hub's listing functions, so that they too keep the token at home, can be aborted,
 * and fail with one clear line (BadInput). Only GETs of JSON; every page of a listing is asked of the endpoint,
 * because mirrors pass on "next page" links that name the original hub. It serves one question: its pages are
 * counted, and none may be asked for twice.
 */
export function jsonFetch(hub: Hub, wanted: Wanted): typeof fetch {
  const asked = new Set<string>();
  let bytesLeft = MAX_JSON_BYTES;
  return async (input) => {
    const named = new URL(input instanceof Request ? input.url : input);
    const address =
      named.origin === hub.origin ? named : new URL(hub.endpoint + named.pathname + named.search);
    if (asked.has(address.href) || asked.size === MAX_PAGES) {
      const fault =
        asked.size === MAX_PAGES ? `more than ${MAX_PAGES} pages` : "a page that names itself as next";
      throw new BadInput(
        `${hub.endpoint} answered with ${fault} when asked for ${wanted.repo}; try another endpoint (HF_ENDPOINT)`,
      );
    }
    asked.add(address.href);
    return get(hub, address, { accept: "application/json" }, async (answer) => {
      if (!answer.ok) throw refusal(hub, wanted, answer.status, answer.headers, answer.url);
      const pieces: Uint8Array[] = [];
      for await (const piece of answer.chunks()) {
        bytesLeft -= piece.length;
        if (bytesLeft < 0) {
          throw new BadInput(
            `${answer.url.origin} answered more than ${MAX_JSON_BYTES} bytes when asked for ${wanted.repo}; the endpoint must be the hub or a mirror of it`,
          );
        }
        pieces.push(piece);
      }
      const text = Buffer.concat(pieces).toString("utf8");
      if (!isJson(text)) {
        const type = oneLine(answer.headers.get("content-type") ?? "something", 80);
        throw new BadInput(
          `${answer.url.origin} answered ${type} that is not JSON when asked for ${wanted.repo}; the endpoint must be the hub or a mirror of it`,
        );
      }
      const link = answer.headers.get("link");
      return new Response(text, { headers: link === null ? {} : { link } });
    });
  };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

/** Send the request, and again wherever the answer points to. The token goes along only while on hub.origin. */
async function follow(hub: Hub, address: URL, headers: Record<string, string>, watch: Watch) {
  let url = address;
  let trusted = true;
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    trusted &&= url.origin === hub.origin;
    const sent: Record<string, string> = { "user-agent": "quire", ...headers };
    if (trusted && hub.token) sent.authorization = `Bearer ${hub.token}`;
    const response = await send(hub, url, sent, watch);
    if (!REDIRECTS.has(response.status)) return { response, url };
    await response.body?.cancel();
    const location = response.headers.get("location");
    if (
      !location ||
      !URL.canParse(location, url.href) ||
      !/^https?:$/.test(new URL(location, url).protocol)
    ) {
      throw new BadInput(`${url.origin} answered ${response.status} without a usable address to go to`);
    }
    url = new URL(location, url);
  }
  throw new BadInput(`${address.origin} redirected more than ${MAX_REDIRECTS} times; try another endpoint`);
}

async function send(hub: Hub, url: URL, headers: Record<string, string>, watch: Watch): Promise<Response> {
  try {
    const response = await fetch(url, { headers, redirect: "manual", signal: watch.signal });
    watch.reset();
    return response;
  } catch (error) {
    throw networkError(hub, url, error, "cannot reach");
  }
}

async function* readChunks(hub: Hub, response: Response, url: URL, watch: Watch): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  while (reader) {
    let next: Awaited<ReturnType<typeof reader.read>>;
    try {
      next = await reader.read();
    } catch (error) {
      throw networkError(hub, url, error, "lost the connection to");
    }
    watch.reset();
    if (next.done) return;
    yield next.value;
  }
}

/** The caller's abort as it is; everything else as Interrupted, naming the host but not the (signed) address. */
function networkError(hub: Hub, url: URL, error: unknown, what: string): unknown {
  if (hub.signal?.aborted) return hub.signal.reason;
  if (error instanceof Interrupted || !(error instanceof Error)) return error;
  // Node and Deno both say only "fetch failed"; the reason is in the cause. Deno's names the whole address.
  const cause = error.cause instanceof Error && error.cause.message ? error.cause : error;
  const reason = cause.message.replace(/ ?for url \([^)]*\)/, "");
  return new Interrupted(`${what} ${url.origin}: ${reason}`);
}

/** Aborts `signal` when the caller does, or when `reset` was not called for hub.stallMs. */
interface Watch {
  readonly signal: AbortSignal;
  reset(): void;
  stop(): void;
}

function startWatch(hub: Hub): Watch {
  const controller = new AbortController();
  const seconds = hub.stallMs / 1000;
  const silent = () => controller.abort(new Interrupted(`the server sent nothing for ${seconds} s`));
  let timer = setTimeout(silent, hub.stallMs);
  return {
    signal: hub.signal ? AbortSignal.any([hub.signal, controller.signal]) : controller.signal,
    reset() {
      clearTimeout(timer);
      timer = setTimeout(silent, hub.stallMs);
    },
    stop() {
      clearTimeout(timer);
      // Closes the connection of a body that was not read to its end.
      controller.abort();
    },
  };
}
