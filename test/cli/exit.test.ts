import process from "node:process";
import { afterEach, describe, expect, it, vi } from "vitest";
import { BadInput } from "../../src/check.ts";
import { exitCode, Interrupted, interruptible } from "../../src/cli/exit.ts";
import { CheckpointError } from "../../src/formats/checkpoint-error.ts";
import { DeviceLost, NoAdapter, OutOfMemory } from "../../src/gpu/errors.ts";
import { OutOfPages } from "../../src/kv/page-allocator.ts";
import { pressCtrlC } from "./run-command.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

describe("exitCode", () => {
  it.each([
    [new BadInput("--seed is x"), 2],
    [new CheckpointError("MODEL_SHAPE", "model.safetensors", "wrong"), 2],
    [new OutOfMemory("OOM"), 2],
    [new OutOfPages(1, 0, 4), 2],
    [new NoAdapter("NO_ADAPTER"), 3],
    [new DeviceLost("gone"), 3],
    [new Interrupted("interrupted"), 130],
    [new TypeError("a bug"), 1],
    ["a string", 1],
  ])("of %s is %d", (error, code) => {
    expect(exitCode(error)).toBe(code);
  });
});

describe("interruptible", () => {
  const listeners = () => process.listeners("SIGINT").length;

  it("gives what its body gives, and listens no longer", async () => {
    const before = listeners();
    const result = await interruptible(async (signal) => {
      expect(listeners()).toBe(before + 1);
      return signal.aborted;
    });
    expect([result, listeners()]).toEqual([false, before]);
  });

  it("sets the signal on Ctrl-C, whose reason is Interrupted, and lets the body come to its end", async () => {
    const result = await interruptible(async (signal) => {
      pressCtrlC();
      expect(signal.reason).toBeInstanceOf(Interrupted);
      await Promise.resolve();
      return signal.aborted;
    });
    expect(result).toBe(true);
  });

  it("throws what the body throws, and listens no longer", async () => {
    const before = listeners();
    const body = async (signal: AbortSignal) => {
      pressCtrlC();
      signal.throwIfAborted();
    };
    await expect(interruptible(body)).rejects.toBeInstanceOf(Interrupted);
    expect(listeners()).toBe(before);
  });

  it("ends the process at the second Ctrl-C", async () => {
    const exit = vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
    await interruptible(async () => {
      pressCtrlC();
      expect(exit).not.toHaveBeenCalled();
      pressCtrlC();
    });
    expect(exit).toHaveBeenCalledWith(130);
  });
});
