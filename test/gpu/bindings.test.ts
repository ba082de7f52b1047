import { expect, test } from "vitest";
import { Bindings } from "../../src/gpu/bindings.ts";
import { type Allocation, Memory } from "../../src/gpu/memory.ts";
import type { CompiledKernel } from "../../src/gpu/pipelines.ts";
import type { BufferRange } from "../../src/gpu/recording.ts";

/** Bindings over a device that makes nothing and counts what it was asked for. */
function fakeBindings() {
  const made: GPUBindGroupDescriptor[] = [];
  const device = { createBindGroup: (d: GPUBindGroupDescriptor) => made.push(d) && { ...d } };
  const memory = new Memory(() => ({ destroy: () => {} }) as unknown as GPUBuffer);
  const written: BufferRange[] = [];
  const bindings = new Bindings(device as unknown as GPUDevice, memory, (range) => written.push(range));
  return { bindings, memory, made, written };
}

const kernel = (id: number) => ({ id }) as CompiledKernel;
const whole = (allocation: Allocation): BufferRange => ({ allocation, offset: 0, bytes: allocation.bytes });

test("a bind group is made once for each kernel and choice of ranges", () => {
  const { bindings, memory, made } = fakeBindings();
  const [a, b] = [memory.alloc(512, "weights", "a"), memory.alloc(512, "weights", "b")];
  const first = bindings.group(kernel(0), [whole(a), whole(b)]);
  expect(bindings.group(kernel(0), [whole(a), whole(b)])).toBe(first);
  const others = [
    bindings.group(kernel(1), [whole(a), whole(b)]),
    bindings.group(kernel(0), [whole(b), whole(a)]),
    bindings.group(kernel(0), [whole(a), { ...whole(b), offset: 256, bytes: 256 }]),
    bindings.group(kernel(0), [whole(a), { ...whole(b), bytes: 256 }]),
  ];
  expect(new Set([first, ...others]).size).toBe(5);
  expect(made[3]?.entries).toEqual([
    { binding: 0, resource: { buffer: a.buffer, offset: 0, size: 512 } },
    { binding: 1, resource: { buffer: b.buffer, offset: 256, size: 256 } },
  ]);
});

test("activations that come and go leave nothing behind with the weights they were bound to", () => {
  const { bindings, memory } = fakeBindings();
  const w = memory.alloc(512, "weights", "w");
  const kept = () =>
    ["groups", "keysOf"].map((field) => (Reflect.get(bindings, field) as Map<unknown, unknown>).size);
  bindings.group(kernel(0), [whole(w)]);
  const start = kept();
  for (let i = 0; i < 100; i++) {
    const x = memory.alloc(512, "kv", "x");
    bindings.group(kernel(0), [whole(w), whole(x)]);
    memory.free(x);
  }
  expect(kept()).toEqual(start);
  const keys = Reflect.get(bindings, "keysOf") as Map<Allocation, Set<string>>;
  expect(keys.get(w)?.size).toBe(1);
});

test("params are written once while they are kept, and the least recently used go first", () => {
  const { bindings, memory, written } = fakeBindings();
  const params = (value: number) => new Uint32Array([value, 0, 0, 0]).buffer;
  const first = bindings.uniform(params(0));
  for (let i = 1; i < 4096; i++) bindings.uniform(params(i));
  expect(bindings.uniform(params(0)).allocation).toBe(first.allocation);
  expect(written).toHaveLength(4096);
  bindings.uniform(params(4096)); // takes the place, and the buffer, of params(1)
  expect(written).toHaveLength(4097);
  expect(written[4096]?.allocation).toBe(written[1]?.allocation);
  expect(bindings.uniform(params(0)).allocation).toBe(first.allocation);
  bindings.uniform(params(1));
  expect(written).toHaveLength(4098);
  expect(memory.byLabel()).toMatchObject([{ label: "params", count: 4096 }]);
});
