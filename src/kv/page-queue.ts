/**
 * Pages in the order in which they came. The first leaves by `shift`, any other by `remove`, each in O(1).
 *
 * A doubly linked ring in two arrays. Page 0, the null page, is never queued: its entries are the two ends.
 */
export class PageQueue {
  /** [pageCount]: who comes after each page; of page 0: the first one. */
  readonly #next: Uint32Array;
  /** [pageCount]: who comes before each page; of page 0: the last one. */
  readonly #previous: Uint32Array;
  #size = 0;

  constructor(pageCount: number) {
    this.#next = new Uint32Array(pageCount);
    this.#previous = new Uint32Array(pageCount);
  }

  get size(): number {
    return this.#size;
  }

  /** Add `page`, which is not queued, at the end. */
  push(page: number): void {
    const last = this.#previous[0]!;
    this.#next[last] = page;
    this.#previous[page] = last;
    this.#next[page] = 0;
    this.#previous[0] = page;
    this.#size++;
  }

  /** Take `page` out, which is queued. */
  remove(page: number): void {
    const next = this.#next[page]!;
    const previous = this.#previous[page]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#size--;
  }

  /** Take the first one out; 0 if there is none. */
  shift(): number {
    const first = this.#next[0]!;
    if (first !== 0) this.remove(first);
    return first;
  }
}
