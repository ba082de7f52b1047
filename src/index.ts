// The public names of Quire. Everything else may change without notice.

export { BadInput, check } from "./check.ts";
export { openCheckpoint } from "./formats/checkpoint.ts";
export { CheckpointError } from "./formats/checkpoint-error.ts";
export type { StoredTensor, TensorFile } from "./formats/tensor-file.ts";
export { Engine } from "./generate/engine.ts";
export type { EngineListener } from "./generate/engine-events.ts";
export type { EngineMemory } from "./generate/engine-memory.ts";
export type { EngineSettings } from "./generate/engine-settings.ts";
export type {
  Completion,
  Distribution,
  EngineEvent,
  EngineMetrics,
  EngineOptions,
  GenerationOptions,
  KvLayout,
  Preemption,
  PromptOutput,
  RequestOptions,
  RequestOutput,
  RequestTimes,
  StepRecord,
} from "./generate/engine-types.ts";
export { type GeneratedStep, type GeneratedToken, generate } from "./generate/generate.ts";
export { type PerplexityOptions, type PerplexityResult, perplexity } from "./generate/perplexity.ts";
export { probabilities, type SamplingOptions, sample } from "./generate/sampler.ts";
export { type FinishReason, Sequence, type SequenceOptions } from "./generate/sequence.ts";
export { DeviceLost, GpuError, NoAdapter, OutOfMemory } from "./gpu/errors.ts";
export { Gpu, type OpenOptions } from "./gpu/gpu.ts";
export { foldWorkgroups, Kernel, type RunOptions } from "./gpu/kernel.ts";
export type { ByPurpose, Memory, Purpose } from "./gpu/memory.ts";
export { type PullOptions, type PullResult, pullModel } from "./hub.ts";
export { CACHE_MODES, type CacheMode, type KvCache, type KvUsage } from "./kv/cache.ts";
export type { KvSpace, Region, SpaceUsage } from "./kv/kv-space.ts";
export { type CacheOptions, makeCache } from "./kv/make-cache.ts";
export { OutOfPages, PageAllocator } from "./kv/page-allocator.ts";
export { PageTable } from "./kv/page-table.ts";
export { loadConfig, type ModelConfig, parameterCount } from "./model/config.ts";
export type { WeightDtype } from "./model/expected-tensors.ts";
export { Gpt2 } from "./model/gpt2.ts";
export type { LoadOptions } from "./model/tensor-loader.ts";
export { add } from "./ops/add.ts";
export { argmax } from "./ops/argmax.ts";
export { attention } from "./ops/attention.ts";
export { embedding } from "./ops/embedding.ts";
export { gatherRows } from "./ops/gather-rows.ts";
export { gelu } from "./ops/gelu.ts";
export { kvWrite } from "./ops/kv-write.ts";
export { layernorm } from "./ops/layernorm.ts";
export { matmul } from "./ops/matmul.ts";
export { matmulTransposed } from "./ops/matmul-transposed.ts";
export { matvec } from "./ops/matvec.ts";
export { pagedAttention } from "./ops/paged-attention.ts";
export { softmax } from "./ops/softmax.ts";
export type { Table } from "./ops/storage.ts";
export { scope, Tensor } from "./tensor.ts";
export { loadTokenizer, streamDecoder, type Tokenizer } from "./tokenizer.ts";
