import type { EngineEvent } from "./engine-types.ts";

export type EngineListener = (event: EngineEvent) => void;

type EventType = EngineEvent["type"];

interface Listener {
  readonly call: EngineListener;
  /** Undefined: all. */
  readonly types: ReadonlySet<EventType> | undefined;
}

/** Who listens to an engine. An event is only built when somebody wants to hear of its type. */
export class EngineEvents {
  readonly #listeners = new Set<Listener>();

  hears(type: EventType): boolean {
    for (const { types } of this.#listeners) if (!types || types.has(type)) return true;
    return false;
  }

  /** Call `listener` with every event from now on, of `types` if given; the function returned ends that. */
  on(listener: EngineListener, types?: readonly EventType[]): () => void {
    // An object of its own, so that one function may listen twice.
    const own = { call: listener, types: types && new Set(types) };
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  emit(event: EngineEvent): void {
    for (const { call, types } of this.#listeners) if (!types || types.has(event.type)) call(event);
  }
}
