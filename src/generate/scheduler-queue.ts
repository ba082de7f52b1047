import { check } from "../check.ts";
import type { Request } from "./request.ts";

/** Lower priorities first, of one priority first come first. */
const before = (a: Request, b: Request): boolean =>
  a.priority === b.priority ? a.arrival < b.arrival : a.priority < b.priority;

/**
 * Requests in the order of their rank: priority, then arrival. A request keeps its arrival, so one that was preempted
 * comes back in front of all those of its priority that have not run yet.
 */
export class RequestQueue {
  readonly #requests: Request[] = [];

  get length(): number {
    return this.#requests.length;
  }

  at(index: number): Request {
    return this.#requests[index]!;
  }

  get first(): Request | undefined {
    return this.#requests[0];
  }

  insert(request: Request): void {
    this.#requests.splice(this.#placeOf(request), 0, request);
  }

  /** Take the last-come out. */
  removeLast(): Request | undefined {
    return this.#requests.pop();
  }

  remove(request: Request): void {
    const at = this.#placeOf(request);
    check(this.#requests[at] === request, () => `scheduler: request ${request.id} is not in this queue`);
    this.#requests.splice(at, 1);
  }

  [Symbol.iterator](): Iterator<Request> {
    return this.#requests[Symbol.iterator]();
  }

  /** How many come before `request`. Most come last, so it is tried there first. */
  #placeOf(request: Request): number {
    let low = 0;
    let high = this.#requests.length;
    if (high > 0 && before(this.#requests[high - 1]!, request)) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (before(this.#requests[middle]!, request)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
