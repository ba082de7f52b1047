import type { EngineEvent } from "./engine-types.ts";

export type EngineListener = (event: EngineEvent) => void;

/** Who listens to an engine. An event is only built when somebody does. */
export class EngineEvents {
  readonly #listeners = new Set<EngineListener>();

  get heard(): boolean {
    return this.#listeners.size > 0;
  }

  /** Call `listener` with every event from now on; the function returned ends that. */
  on(listener: EngineListener): () => void {
    // A listener of its own, so that one function may listen twice.
    const own: EngineListener = (event) => listener(event);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  emit(event: EngineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
