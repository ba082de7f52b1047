import { BadInput } from "../check.ts";

/** What a push sets free: text that may be shown, and whether a stop string has been found. */
export interface Emitted {
  emit: string;
  stopped: boolean;
}

/**
 * Finds stop strings in text that comes in pieces. What it emits, all pieces joined, is the text up to the stop
 * string that begins first, or the whole text; how the text was split makes no difference.
 *
 * Text that may be the beginning of a stop string is held back until later text decides. With stops "abcd" and "bc",
 * "abc" is not yet a stop: a "d" would make the one that begins earlier.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  #held = "";
  #stopped = false;

  /** Throws BadInput on an empty stop string, which would be found everywhere. */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) throw new BadInput("a stop string is empty; it must have at least one character");
    this.#stops = stops;
  }

  /** Text that was pushed and is not emitted yet. */
  get held(): string {
    return this.#held;
  }

  /** The next piece. After a stop string nothing more is emitted. */
  push(text: string): Emitted {
    return this.#scan(text, true);
  }

  /** No more text will come: what is held back is emitted, up to a stop string in it. */
  end(): Emitted {
    return this.#scan("", false);
  }

  #scan(text: string, moreToCome: boolean): Emitted {
    if (this.#stopped) return { emit: "", stopped: true };
    const pending = this.#held + text;
    this.#held = "";
    for (let begin = 0; begin < pending.length; begin++) {
      const found = this.#stops.some((stop) => pending.startsWith(stop, begin));
      const rest = pending.length - begin;
      const undecided =
        moreToCome && this.#stops.some((stop) => stop.length > rest && stop.startsWith(pending.slice(begin)));
      if (!found && !undecided) continue;
      if (found) this.#stopped = true;
      else this.#held = pending.slice(begin);
      return { emit: pending.slice(0, begin), stopped: found };
    }
    return { emit: pending, stopped: false };
  }
}
