import { afterEach, describe, expect, test } from "vitest";
import { DeviceLost, GpuError, OutOfMemory } from "../../src/gpu/errors.ts";
import { Gpu, type OpenOptions } from "../../src/gpu/gpu.ts";
import { type KernelSource, parseKernel } from "../../src/gpu/wgsl.ts";
import { add } from "../../src/ops/add.ts";
import { Tensor } from "../../src/tensor.ts";

// Everything here runs on Dawn's null backend: it validates, runs out of memory at 512 MiB and loses devices, on any machine.

const opened: Gpu[] = [];

async function openNull(options: OpenOptions = {}): Promise<Gpu> {
  const gpu = await Gpu.open({ ...options, backend: "null" });
  opened.push(gpu);
  return gpu;
}

afterEach(async () => {
  for (const gpu of opened.splice(0)) {
    await gpu.close();
    expect(gpu.memory.current).toBe(0);
  }
});

const MIB = 2 ** 20;

/** How `work` ends: its error, or undefined. */
async function failureOf(work: () => unknown): Promise<Error | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

describe("the device's memory runs out", () => {
  /** Five blocks of 128 MiB: the fifth does not fit. */
  function fill(gpu: Gpu): void {
    for (let i = 0; i < 5; i++) gpu.memory.alloc(128 * MIB, "weights", `block ${i}`);
  }

  test("the next settle throws OutOfMemory with the buffer's label and the breakdown; then work goes on", async () => {
    const gpu = await openNull();
    fill(gpu);
    const error = await failureOf(() => gpu.settle());
    expect(error).toBeInstanceOf(OutOfMemory);
    expect(error?.message).toMatch(
      /^OOM: buffer block 4 \(weights\) 134217728 bytes; in use 512\.0 MiB \(weights 512\.0 MiB\), the device has no more; /,
    );
    gpu.submit();
    gpu.memory.destroyAll();
    gpu.memory.alloc(128 * MIB, "kv", "k");
    await gpu.finish();
  });

  test("a read finds out before it gives anything", async () => {
    const gpu = await openNull();
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    fill(gpu);
    await expect(a.read()).rejects.toThrow(OutOfMemory);
  });

  test("the ledger can be emptied afterwards", async () => {
    const gpu = await openNull();
    const blocks = Array.from({ length: 5 }, (_, i) => gpu.memory.alloc(128 * MIB, "kv", `block ${i}`));
    await failureOf(() => gpu.settle());
    for (const block of blocks) gpu.memory.free(block);
    expect(gpu.memory.current).toBe(0);
  });
});

describe("limits", () => {
  test("a buffer above the binding limit is refused at once, with both numbers and the adapter's offer", async () => {
    const gpu = await openNull({ limits: "default" });
    expect(gpu.maxBindingBytes).toBe(128 * MIB);
    const ask = () => gpu.memory.alloc(154_389_504, "weights", "wte.weight");
    expect(ask).toThrow(OutOfMemory);
    expect(ask).toThrow(
      /^LIMIT: wte\.weight needs a 154389504-byte binding, device allows 134217728 \(adapter offers \d+\)$/,
    );
    expect(gpu.memory.current).toBe(0);
    expect(gpu.memory.alloc(128 * MIB, "weights", "what it allows").bytes).toBe(128 * MIB);
  });

  test.each([[[0, 1, 1]], [[1, 0, 1]], [[65_536, 1, 1]], [[1, 1, 65_536]]] as [[number, number, number]][])(
    "a dispatch of %j workgroups is refused",
    async (workgroups) => {
      const gpu = await openNull();
      const kernel = gpu.compile(source("fine", FINE), "fine", {});
      const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
      expect(() => gpu.dispatch("fine", kernel, undefined, [a], workgroups)).toThrow(
        `fine: dispatch of [${workgroups}] workgroups; each must be 1 to 65535`,
      );
      gpu.dispatch("fine", kernel, undefined, [a], [65_535, 1, 1]);
      await gpu.finish();
    },
  );
});

const FINE = `@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main() {
  y[0] = 1.0;
}`;

/** A kernel of two lines of a part, then `code`. */
function source(name: string, code: string): KernelSource {
  const part = "const UNUSED = 1;\n// a part\n";
  return {
    name,
    code: part + code,
    pieces: [
      { file: "shaders/part.wgsl", firstLine: 1 },
      { file: `shaders/${name}.wgsl`, firstLine: 3 },
    ],
    ...parseKernel(name, part + code),
  };
}

describe("kernels that do not compile", () => {
  test("file and line of the mistake come with the next settle, and again with the next submit", async () => {
    const gpu = await openNull();
    gpu.compile(source("broken", FINE.replace("1.0", "nothing(2)")), "broken", {});
    const error = await failureOf(() => gpu.settle());
    expect(error).toBeInstanceOf(GpuError);
    expect(error?.message).toMatch(/^shaders\/broken\.wgsl:4: .*nothing/);
    expect(() => gpu.submit()).toThrow(error);
  });

  test("a mistake in a part is told with the part's line", async () => {
    const gpu = await openNull();
    const { code, ...rest } = source("fine", FINE);
    gpu.compile({ ...rest, code: code.replace("// a part", "const B = ;") }, "broken part", {});
    await expect(gpu.settle()).rejects.toThrow(/^shaders\/part\.wgsl:2: /);
  });

  test("a read tells it too, and gives no numbers", async () => {
    const gpu = await openNull();
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    gpu.compile(source("broken", FINE.replace("y[0]", "z[0]")), "broken", {});
    await expect(a.read()).rejects.toThrow("shaders/broken.wgsl:4: ");
  });

  test("what the pipeline refuses without a line names the kernel", async () => {
    const gpu = await openNull();
    gpu.compile(source("large", FINE.replace("size(1)", "size(4096)")), "large", {});
    await expect(gpu.settle()).rejects.toThrow(/large/);
  });

  test("an optional feature that the device lacks is refused at once", async () => {
    const gpu = await openNull();
    const ask = () => gpu.compile(source("fast", `enable no_such_feature;\n${FINE}`), "fast", {});
    expect(ask).toThrow("FEATURE: kernel fast needs no_such_feature, which null-backend lacks");
    await gpu.finish();
  });
});

describe("errors outside of any call that waits for them", () => {
  test("are thrown, in one line, by the next call of each kind", async () => {
    const gpu = await openNull();
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    // Read and written in one dispatch: WebGPU allows it for no buffer.
    const kernel = gpu.compile(
      source("copy", `@group(0) @binding(0) var<storage, read> x: array<f32>;\n${COPY}`),
      "copy",
      {},
    );
    gpu.dispatch("copy", kernel, undefined, [a, a], [1, 1, 1]);
    const error = await failureOf(() => gpu.finish());
    expect(error).toBeInstanceOf(GpuError);
    expect(error?.message).toMatch(/^WebGPU: .*tensor.*$/);
    expect(() => gpu.submit()).toThrow(error);
    expect(() => gpu.write(a, new Float32Array(4))).toThrow(error);
    await expect(gpu.settle()).rejects.toThrow(error);
    await expect(a.read()).rejects.toThrow(error);
    expect(() => Tensor.from(gpu, [400], new Float32Array(400))).toThrow(error);
  });
});

const COPY = `@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main() {
  y[0] = x[0];
}`;

describe("the device is lost", () => {
  const lost = (gpu: Gpu) => gpu.device.destroy();

  test.each([
    ["read", (gpu: Gpu, sum: Tensor) => gpu.read(sum)],
    ["finish", (gpu: Gpu) => gpu.finish()],
    ["settle", (gpu: Gpu) => gpu.settle()],
  ] as const)("during a %s, which then throws DeviceLost", async (_, wait) => {
    const gpu = await openNull();
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const sum = add(a, a);
    const waiting = failureOf(() => wait(gpu, sum));
    lost(gpu);
    const error = await waiting;
    expect(error).toBeInstanceOf(DeviceLost);
    expect(error?.message).toMatch(/^DEVICE_LOST: .+; open the GPU again$/);
    expect(() => gpu.submit()).toThrow(error);
    expect(() => gpu.memory.alloc(4, "kv", "k")).toThrow(error);
    // A device that is gone has no memory left to give back, and what held it may still say so.
    a.free();
    sum.free();
  });

  test("between two calls: the next one that waits finds out", async () => {
    const gpu = await openNull();
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    lost(gpu);
    const sum = add(a, a);
    await expect(sum.read()).rejects.toThrow(DeviceLost);
  });

  test("a loss outranks the errors that it causes", async () => {
    const gpu = await openNull();
    lost(gpu);
    gpu.device.createBuffer({ size: 4, usage: 0 });
    await expect(gpu.finish()).rejects.toThrow(DeviceLost);
  });
});

describe("close", () => {
  test("twice is once; everything after it says so", async () => {
    const gpu = await openNull();
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const k = gpu.memory.alloc(1000, "kv", "k");
    await Promise.all([gpu.close(), gpu.close()]);
    await gpu.close();
    expect([gpu.memory.current, k.state]).toEqual([0, "gone"]);
    const closed = "this Gpu is closed";
    expect(() => gpu.submit()).toThrow(closed);
    expect(() => add(a, a)).toThrow(closed);
    expect(() => gpu.write(a, new Float32Array(4))).toThrow(closed);
    expect(() => gpu.memory.alloc(4, "kv", "k")).toThrow(closed);
    await expect(a.read()).rejects.toThrow(closed);
    await expect(gpu.finish()).rejects.toThrow(closed);
    await expect(gpu.settle()).rejects.toThrow(closed);
    a.free();
    gpu.memory.free(k);
  });

  test("during a read: the read ends, and says why", async () => {
    const gpu = await openNull();
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    const reading = failureOf(() => a.read());
    await gpu.close();
    expect((await reading)?.message).toBe("this Gpu is closed");
  });

  test("with work recorded, freed buffers pooled and weights condemned", async () => {
    const gpu = await openNull();
    const w = Tensor.from(gpu, [4], [1, 2, 3, 4], { purpose: "weights" });
    add(w, w).free();
    w.free();
    expect(gpu.memory.current).toBeGreaterThan(0);
    await gpu.close();
    expect(gpu.memory.current).toBe(0);
  });
});

describe("what a refused buffer or a broken kernel leads to", () => {
  test("OutOfMemory, not the validation errors of the work that used the buffer; afterwards work goes on", async () => {
    const gpu = await openNull();
    const held = Array.from({ length: 4 }, (_, i) => gpu.memory.alloc(120 * MIB, "weights", `block ${i}`));
    const a = Tensor.empty(gpu, [8 * 2 ** 20], { label: "a" });
    const b = add(a, a);
    await expect(b.read(), "b does not fit").rejects.toThrow(OutOfMemory);
    for (const block of held) gpu.memory.free(block);
    const c = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    await add(c, c).read();
    await gpu.finish();
  });

  test("file and line of a broken kernel that was dispatched", async () => {
    const gpu = await openNull();
    const code = "@compute @workgroup_size(1)\nfn main() {\n  nothing();\n}\n";
    const source = {
      name: "broken",
      code,
      pieces: [{ file: "shaders/broken.wgsl", firstLine: 1 }],
      ...parseKernel("broken", code),
    };
    gpu.dispatch("broken", gpu.compile(source, "broken", {}), undefined, [], [1, 1, 1]);
    const a = Tensor.from(gpu, [4], [1, 2, 3, 4]);
    await expect(a.read()).rejects.toThrow(/^shaders\/broken\.wgsl:3: /);
  });
});
