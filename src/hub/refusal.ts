// What a status that is not success means, and what to do about it.

import { BadInput } from "../check.ts";
import { quote } from "../formats/quote.ts";
import type { Hub } from "./endpoint.ts";
import { Interrupted } from "./interrupted.ts";

/** What was asked for, as the user knows it. */
export interface Wanted {
  readonly repo: string;
  readonly revision: string;
  readonly file?: string;
}

/** The error for an answer with `status` from `url`: Interrupted if trying again may help, else BadInput. */
export function refusal(hub: Hub, wanted: Wanted, status: number, headers: Headers, url: URL): Error {
  // Another host answers for a signed address that the hub hands out; the next attempt gets a new one.
  const elsewhere = url.origin !== hub.origin;
  if (elsewhere || status === 408 || status === 429 || status >= 500) {
    return new Interrupted(`${url.origin} answered ${status}`);
  }
  // The hub gives its reason in a header; mirrors may drop it.
  const code = headers.get("x-error-code");
  if (status === 401 || status === 403) return new BadInput(noAccess(hub, wanted.repo, status, code));
  if (status === 404) return new BadInput(notFound(hub, wanted, code));
  return new BadInput(
    `${hub.endpoint} answered ${status} when asked for ${wanted.file ?? "the files"} of ${wanted.repo}; try another endpoint (HF_ENDPOINT)`,
  );
}

/** For a model that does not exist the hub answers 401 too, unless the token may know better. */
function noAccess(hub: Hub, repo: string, status: number, code: string | null): string {
  const licence = `${hub.endpoint}/${repo}`;
  if (code === "GatedRepo") {
    const then = hub.token
      ? "with the account of this HF_TOKEN"
      : "and set HF_TOKEN to a token of that account";
    return `${repo} is gated (${status}): accept its licence at ${licence} ${then}`;
  }
  if (hub.token) {
    return `${hub.endpoint} refuses ${repo} with this HF_TOKEN (${status}): check the name and the token; if the model is gated, accept its licence at ${licence}`;
  }
  return `${hub.endpoint} refuses ${repo} without a token (${status}): check the name; if the model is private or gated, accept its licence at ${licence} and set HF_TOKEN`;
}

function notFound(hub: Hub, wanted: Wanted, code: string | null): string {
  const { repo, revision, file } = wanted;
  if (file !== undefined)
    return `${repo} has no file ${file} at revision ${quote(revision)} of ${hub.endpoint} (404)`;
  if (code === "RevisionNotFound")
    return `${repo} has no revision ${quote(revision)} at ${hub.endpoint} (404)`;
  const which = code === "RepoNotFound" ? "" : ` with revision ${quote(revision)}`;
  return `${hub.endpoint} has no model ${repo}${which} (404): check the name; a private model needs HF_TOKEN`;
}
