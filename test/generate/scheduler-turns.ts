import { expect } from "vitest";
import { BadInput } from "../../src/check.ts";
import type { RequestOptions } from "../../src/generate/engine-types.ts";
import type { StepPlan } from "../../src/generate/step-plan.ts";
import type { Simulation } from "./scheduler-simulation.ts";

/** A prompt of `length` tokens that has no page in common with others of another `first`. */
export const prompt = (length: number, first = 1): number[] => [
  first,
  ...Array.from({ length: length - 1 }, (_, i) => i % 16),
];

export function options(
  length: number,
  maxNewTokens: number,
  rest: Partial<RequestOptions> = {},
): RequestOptions {
  return { prompt: prompt(length), maxNewTokens, sampling: { temperature: 0, seed: 1 }, ...rest };
}

/** New tokens of each piece of each plan. */
export const sizes = (plans: readonly StepPlan[]): number[][] =>
  plans.map(({ pieces }) => pieces.map(({ tokens }) => tokens.length));

export const steps = (simulation: Simulation, count: number): void => {
  for (let i = 0; i < count; i++) simulation.step();
};

/** A plan and its result, so many times. */
export const turns = (simulation: Simulation, count: number): void => steps(simulation, 2 * count);

export function reason(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(BadInput);
    return (error as Error).message;
  }
  return expect.fail("it was not refused");
}
