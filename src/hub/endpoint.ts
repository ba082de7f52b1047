// Which hub is asked, and with which token.

import { BadInput } from "../check.ts";
import { quote } from "../formats/quote.ts";

const DEFAULT_ENDPOINT = "https://huggingface.co";

/** A server that sends nothing for this long, in milliseconds, is taken for dead. */
const STALL_MS = 60_000;

/** Where requests go and what they carry. */
export interface Hub {
  /** Base address without a slash at its end; a mirror may have a path, as in "https://mirror.example/hf". */
  readonly endpoint: string;
  /** Scheme, host and port of the endpoint: the only place that the token is sent to. */
  readonly origin: string;
  readonly token: string | undefined;
  /** Milliseconds without a byte after which a request counts as interrupted. */
  readonly stallMs: number;
  readonly signal: AbortSignal | undefined;
}

export interface HubOptions {
  /** Default: HF_ENDPOINT, else https://huggingface.co. */
  readonly endpoint?: string;
  /** Default: HF_TOKEN, else none. */
  readonly token?: string;
  readonly stallMs?: number;
  readonly signal?: AbortSignal;
}

/** Check endpoint and token, from `options` or the environment. Throws BadInput; no message shows the token. */
export function openHub(options: HubOptions, env: NodeJS.ProcessEnv = process.env): Hub {
  const endpoint = checkEndpoint(options.endpoint ?? env.HF_ENDPOINT ?? "");
  const token = checkToken(options.token ?? env.HF_TOKEN ?? "");
  const { stallMs = STALL_MS, signal } = options;
  return { endpoint, origin: new URL(endpoint).origin, token, stallMs, signal };
}

function checkEndpoint(given: string): string {
  const text = given.trim() || DEFAULT_ENDPOINT;
  const wanted = "wanted an address such as https://huggingface.co (from --endpoint or HF_ENDPOINT)";
  if (!URL.canParse(text)) throw new BadInput(`endpoint ${quote(text)} is not a URL; ${wanted}`);
  const url = new URL(text);
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new BadInput(`endpoint ${quote(text)} is neither https:// nor http://; ${wanted}`);
  }
  // Not shown: what stands before the "@" or after the "?" may be a secret.
  if (url.username || url.password || url.search || url.hash) {
    throw new BadInput(`the endpoint at ${url.host} has a user, a password, a "?" or a "#" in it; ${wanted}`);
  }
  return `${url.origin}${url.pathname}`.replace(/\/+$/, "");
}

function checkToken(given: string): string | undefined {
  const token = given.trim();
  if (token === "") return undefined;
  // Anything but visible ASCII cannot stand in a header; the hub's tokens all begin with "hf_".
  if (!/^hf_[\x21-\x7e]+$/.test(token)) {
    throw new BadInput(
      "HF_TOKEN is not an access token of the hub: it must begin with hf_ and have no spaces (not shown here); unset it to go without",
    );
  }
  return token;
}
