import type { RequestOutput } from "./engine-types.ts";

/** Outputs on their way to one loop of `generate`, in the order in which they were finished. */
export class Outbox {
  readonly #outputs: RequestOutput[] = [];
  #failure: { readonly error: unknown } | undefined;
  /** Tells the loop that waits. */
  #wake: (() => void) | undefined;

  put(output: RequestOutput): void {
    this.#outputs.push(output);
    this.#wake?.();
  }

  /** Nothing more will come: `next` throws this once it has given what came before. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake?.();
  }

  /** The next output, when there is one. For one loop: it waits for each before it asks for another. */
  async next(): Promise<RequestOutput> {
    for (;;) {
      const output = this.#outputs.shift();
      if (output) return output;
      if (this.#failure) throw this.#failure.error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
