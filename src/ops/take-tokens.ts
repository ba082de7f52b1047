import { check } from "../check.ts";
import { Kernel } from "../gpu/kernel.ts";
import { shapeText, Tensor } from "../tensor.ts";

const kernel = new Kernel("take-tokens");

/** A source that says: the host knows the id. */
export const KNOWN = 0xffffffff;

/**
 * Token ids of a step: ids[t] where sources[t] is KNOWN, else tokens[sources[t]]; a new tensor [T] u32. ids and sources are [T]
 * u32, tokens is what the sampler wrote, u32; its NO_TOKEN becomes token 0. Sources must lie within tokens.
 */
export function takeTokens(ids: Tensor, sources: Tensor, tokens: Tensor): Tensor {
  const count = ids.cols;
  check(
    sources.cols === count,
    () => `take-tokens: ids are ${shapeText(ids.shape)} but sources ${shapeText(sources.shape)}`,
  );
  const y = Tensor.empty(ids.gpu, [count], { dtype: "u32", label: "take-tokens" });
  kernel.run(ids.gpu, { ids, sources, tokens, y }, { count }, [Math.ceil(count / 64)], {
    work: () => ({ shape: `${count}`, bytes: 12 * count, flops: 0 }),
  });
  return y;
}
