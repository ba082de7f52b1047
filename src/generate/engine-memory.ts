/** What the start of an engine found room for. */
export interface EngineMemory {
  /** Bytes of keys and values, a null page included. */
  readonly kvBytes: number;
  /** Pages that sequences can have; in a space of strips their slots. */
  readonly pages: number;
  /** Tokens that they hold. */
  readonly tokens: number;
  /** Bytes of the model's weights and of what else was there before. */
  readonly before: number;
  /** Bytes of the largest step. */
  readonly stepBytes: number;
  /** How many requests of `maxSeqLen` tokens fit at once. */
  readonly maxConcurrency: number;
}
