// The capacity experiment: the same requests under the same KV budget, with every layout; simulated for exact figures of memory,
// and run by the engine for figures of time. capacity-figures.ts says what each figure means.
import { setImmediate } from "node:timers/promises";
import { DeviceLost } from "../gpu/errors.ts";
import type { Gpt2 } from "../model/gpt2.ts";
import {
  type Budget,
  type CapacityLayout,
  layoutName,
  layoutsOf,
  MIX_NAMES,
  type Mix,
  MOST_MAPPED_SLOTS,
  refusalOf,
  spaceOf,
  usableTokens,
} from "./capacity-cases.ts";
import { measureLayout } from "./capacity-engine.ts";
import { type CapacityStep, isCrowded, memoryFigures, thinnedSteps } from "./capacity-figures.ts";
import type { CapacityFigures, CapacityRow, CapacityTimeline, Measure } from "./capacity-results.ts";
import { type SimulationEnd, type SimulationOptions, simulate } from "./capacity-simulation.ts";
import { mapWithin, type PageMap, PageMapRecorder } from "./page-map.ts";
import { formatCount } from "./units.ts";
import type { WorkloadRequest } from "./workload.ts";

/** Entries of a timeline, moments and characters of a page map. */
const TIMELINE_STEPS = 400;
const MAP_MOMENTS = 300;
const MAP_CHARACTERS = 450_000;
/** The simulation lets others run (Ctrl-C) this often. Milliseconds. */
const BREATH = 50;
/** The page size that the page map shows and that is measured among few, if it is there. */
const USUAL_PAGE_SIZE = 16;

export interface CapacityOptions extends SimulationOptions {
  readonly pageSizes: readonly number[];
  readonly budget: Budget;
  readonly measure: Measure;
  readonly kvDtype: "f32" | "f16";
  /** Whether the engine submits a step before the tokens of the one before are known; its default if undefined. */
  readonly async?: boolean;
  /** Before a row is measured the engine runs other requests, which compile its kernels. */
  readonly warmup: boolean;
  readonly signal?: AbortSignal;
  /** Called with the rows done so far of all, the model's apart, and what is done now. */
  readonly onRow?: (done: number, total: number, note: string) => void;
}

/** A row with every step of its simulation, for steps.csv. */
export interface CapacityRun {
  row: CapacityRow;
  steps: readonly CapacityStep[];
}

export interface CapacityRuns {
  readonly runs: CapacityRun[];
  readonly maps: PageMap[];
  /** What ended the experiment early: the first error, or the signal's reason. */
  readonly error?: Error;
}

/**
 * Every mix with every layout: all simulations first, which take a moment, then the page maps, then the rows that run the model. An
 * error ends its row, what was measured is kept, and the other rows go on, unless the device is gone or the signal is set.
 */
export async function runCapacity(
  model: Gpt2 | undefined,
  mixes: ReadonlyMap<Mix, readonly WorkloadRequest[]>,
  options: CapacityOptions,
): Promise<CapacityRuns> {
  const { signal, onRow } = options;
  const layouts = layoutsOf(options.pageSizes);
  const runs: CapacityRun[] = [];
  const maps: PageMap[] = [];
  let error: Error | undefined;
  const measuredRows = model === undefined ? [] : layouts.filter((l) => isMeasured(l, options));
  const total = mixes.size * (layouts.length + measuredRows.length);
  let done = 0;
  /** True: go on. */
  const attempt = async (note: string, run: CapacityRun | undefined, action: () => Promise<void>) => {
    onRow?.(done, total, note);
    try {
      // Ctrl-C is heard between two rows, however short they are.
      await setImmediate();
      signal?.throwIfAborted();
      await action();
    } catch (thrown) {
      error ??= thrown as Error;
      if (run) run.row = { ...run.row, error: (thrown as Error).message };
      if (signal?.aborted || thrown instanceof DeviceLost) return false;
    }
    return true;
  };
  for (const [mix, requests] of mixes) {
    for (const layout of layouts) {
      const run: CapacityRun = { row: emptyRow(mix, layout, requests, options.budget), steps: [] };
      runs.push(run);
      const goOn = await attempt(`${mix}, ${layoutName(layout)}: simulated`, run, async () => {
        if (run.row.refused === undefined) await simulateRow(run, layout, requests, options);
      });
      if (!goOn) return { runs, maps, error };
      done++;
    }
    const goOn = await attempt(`${mix}: page map`, undefined, async () => {
      const map = await pageMap(mix, requests, runs, options);
      if (map) maps.push(map);
    });
    if (!goOn) return { runs, maps, error };
  }
  for (const [mix, requests] of mixes) {
    for (const layout of measuredRows) {
      const run = runs.find(({ row }) => row.mix === mix && isOf(row, layout))!;
      const goOn = await attempt(`${mix}, ${layoutName(layout)}: on the engine`, run, async () => {
        const { simulated } = run.row;
        if (simulated === null) return;
        const measured = await measureLayout(model!, layout, requests, simulated.peakSequences, options);
        run.row = { ...run.row, measured };
      });
      if (!goOn) return { runs, maps, error };
      done++;
    }
  }
  return { runs, maps, error };
}

function emptyRow(
  mix: Mix,
  layout: CapacityLayout,
  requests: readonly WorkloadRequest[],
  budget: Budget,
): CapacityRow {
  // The last token of a request is never fed back.
  const longest = Math.max(...requests.map((r) => r.prompt.length + r.outputLen - 1));
  const refused = refusalOf(layout, budget, longest);
  return {
    mix,
    ...layout,
    totalTokens: Math.max(0, usableTokens(layout, budget)),
    ...(refused === undefined ? {} : { refused }),
    simulated: null,
    measured: null,
    timeline: null,
  };
}

async function simulateRow(
  run: CapacityRun,
  layout: CapacityLayout,
  requests: readonly WorkloadRequest[],
  options: CapacityOptions,
): Promise<void> {
  const { budget, signal } = options;
  const steps: CapacityStep[] = [];
  const simulation = simulate(spaceOf(layout, budget), requests, options);
  const end = await breathing(simulation, signal, (step) => steps.push(step));
  const extent = { total: run.row.totalTokens, budget: budget.kvTokens, limits: options };
  const simulated: CapacityFigures = { ...memoryFigures(steps, extent), ...end };
  run.steps = steps;
  run.row = { ...run.row, simulated, timeline: timelineOf(steps) };
}

/** Take all steps of a simulation, with a breath now and then. */
async function breathing(
  simulation: Generator<CapacityStep, SimulationEnd>,
  signal: AbortSignal | undefined,
  onStep: (step: CapacityStep) => void,
): Promise<SimulationEnd> {
  let breath = performance.now();
  for (;;) {
    const next = simulation.next();
    if (next.done) return next.value;
    onStep(next.value);
    if (performance.now() - breath < BREATH) continue;
    await setImmediate();
    signal?.throwIfAborted();
    breath = performance.now();
  }
}

function timelineOf(steps: readonly CapacityStep[]): CapacityTimeline {
  const { every, at } = thinnedSteps(steps, TIMELINE_STEPS);
  const column = (key: keyof CapacityStep) => at.map((i) => steps[i]![key]);
  return {
    every,
    step: at,
    running: column("running"),
    waiting: column("waiting"),
    reserved: column("reserved"),
    used: column("used"),
    logical: column("logical"),
  };
}

/** The page map of a mix; nothing when fewer than two of its layouts could hold the requests, or the budget is too large to be seen. */
async function pageMap(
  mix: Mix,
  requests: readonly WorkloadRequest[],
  runs: readonly CapacityRun[],
  options: CapacityOptions,
): Promise<PageMap | undefined> {
  if (options.budget.kvTokens > MOST_MAPPED_SLOTS) return undefined;
  const shown = mappedLayouts(mix, options.pageSizes).flatMap((layout) => {
    const run = runs.find(({ row }) => row.mix === mix && isOf(row, layout));
    return run && run.row.simulated !== null ? [{ layout, steps: run.steps.length }] : [];
  });
  if (shown.length < 2) return undefined;
  const every = Math.max(1, Math.ceil(Math.max(...shown.map((s) => s.steps)) / MAP_MOMENTS));
  const panels = [];
  for (const { layout } of shown) {
    const space = spaceOf(layout, options.budget);
    const recorder = new PageMapRecorder();
    let step = 0;
    await breathing(simulate(space, requests, options), options.signal, (s) => {
      const { running, waiting, reserved, used } = s;
      const blocked = isCrowded(s, options);
      if (step % every === 0)
        recorder.add({ step, running, waiting, blocked, reserved, used }, space.regions());
      step++;
    });
    recorder.add({ step, running: 0, waiting: 0, blocked: false, reserved: 0, used: 0 }, space.regions());
    panels.push(recorder.panel(layoutName(layout), layout.pageSize, layout.layout === "pages" ? 0 : 1));
  }
  const title = `${MIX_NAMES[mix]}: the same requests in the same ${formatCount(options.budget.kvTokens)} slots`;
  return mapWithin({ id: mix, title, slots: options.budget.kvTokens, every, panels }, MAP_CHARACTERS);
}

/** Contiguous and paged side by side; sharing where there is something to share. */
function mappedLayouts(mix: Mix, pageSizes: readonly number[]): CapacityLayout[] {
  const pageSize = usualPageSize(pageSizes);
  const [max, exact, plain, shared] = layoutsOf(pageSize === undefined ? [] : [pageSize]);
  const chosen = mix === "shared-prefix" ? [max, plain, shared] : [max, exact, plain];
  return chosen.filter((l) => l !== undefined);
}

/** Pages of 16 where they are among the page sizes, else the first. */
export function usualPageSize(pageSizes: readonly number[]): number | undefined {
  return pageSizes.includes(USUAL_PAGE_SIZE) ? USUAL_PAGE_SIZE : pageSizes[0];
}

function isMeasured(layout: CapacityLayout, { measure, pageSizes }: CapacityOptions): boolean {
  if (measure !== "few") return measure === "all";
  return layout.layout !== "pages" || layout.pageSize === usualPageSize(pageSizes);
}

function isOf(row: CapacityLayout, layout: CapacityLayout): boolean {
  return (
    row.layout === layout.layout && row.pageSize === layout.pageSize && row.prefixCache === layout.prefixCache
  );
}
