import { expect } from "vitest";
import { BadInput, check } from "../../src/check.ts";
import type { RequestOptions } from "../../src/generate/engine-types.ts";
import { Request } from "../../src/generate/request.ts";
import { Scheduler, type SchedulerOptions, type SchedulerUpdate } from "../../src/generate/scheduler.ts";
import type { StepPlan } from "../../src/generate/step-plan.ts";
import type { KvSpace } from "../../src/kv/kv-space.ts";
import { PagedSpace } from "../../src/kv/page-space.ts";
import { StripSpace } from "../../src/kv/strip-space.ts";
import { alone, FakeGpu } from "./fake-gpu.ts";

export const CONTEXT = 64;

export interface SimulationOptions extends Omit<SchedulerOptions, "clock"> {
  readonly layout: "pages" | "strips-max" | "strips-exact";
  readonly pages: number;
  readonly pageSize: number;
  readonly prefixCache: boolean;
  readonly watermark: number;
  readonly contextLength: number;
  /** Plans that may be made before the result of the first of them has come. */
  readonly ahead: number;
}

export const DEFAULTS: SimulationOptions = {
  layout: "pages",
  pages: 64,
  pageSize: 8,
  prefixCache: true,
  watermark: 0,
  maxSequences: 16,
  maxBatchedTokens: 64,
  chunkedPrefill: true,
  preemption: "recompute",
  contextLength: CONTEXT,
  ahead: 0,
};

function makeSpace({
  layout,
  pages,
  pageSize,
  prefixCache,
  watermark,
  contextLength,
}: SimulationOptions): KvSpace {
  if (layout === "pages") return new PagedSpace({ pages, pageSize, prefixCache, watermark });
  const policy = layout === "strips-max" ? "max" : "exact";
  return new StripSpace({ slots: pages * pageSize, policy, maxLength: contextLength });
}

interface InFlight {
  readonly plan: StepPlan;
  readonly result: ReturnType<FakeGpu["run"]>;
}

/** A scheduler, its space and a fake GPU, with everything that must hold checked after each operation. */
export class Simulation {
  readonly options: SimulationOptions;
  readonly space: KvSpace;
  readonly scheduler: Scheduler;
  readonly gpu: FakeGpu;
  readonly plans: StepPlan[] = [];
  readonly updates: SchedulerUpdate[] = [];
  /** Those that were not refused, with what they asked for. */
  readonly submitted = new Map<Request, RequestOptions>();
  /** Whether everything is checked after each operation. */
  readonly #checks: boolean;
  #inFlight: InFlight[] = [];
  #ids = 0;
  #time = 0;
  operations = 0;

  constructor(options: Partial<SimulationOptions> = {}, checks = true) {
    this.options = { ...DEFAULTS, ...options };
    this.space = makeSpace(this.options);
    this.scheduler = new Scheduler(this.space, { ...this.options, clock: () => this.#time++ });
    this.gpu = new FakeGpu(this.space);
    this.#checks = checks;
  }

  /** Undefined if it is refused. */
  submit(options: RequestOptions): Request | undefined {
    const request = new Request(this.#ids++, options, this.options.contextLength);
    try {
      this.scheduler.add(request);
    } catch (error) {
      if (!(error instanceof BadInput)) throw error;
      this.#after();
      return undefined;
    }
    this.submitted.set(request, options);
    this.#after();
    return request;
  }

  abort(request: Request): void {
    const wasOver = request.isOver;
    const aborted = this.scheduler.abort(request.id);
    check(aborted === (wasOver ? undefined : request), `abort of request ${request.id}`);
    if (aborted) this.#letGo(request);
    this.#after();
  }

  /** Make and run a plan, or take a result: false if neither can be done. */
  step(): boolean {
    const plan = this.#inFlight.length <= this.options.ahead ? this.scheduler.schedule() : undefined;
    const changes = new Set(this.scheduler.takeChanges().map(({ type }) => type));
    check(!(changes.has("preempted") && changes.has("admitted")), "one made room, and another one took it");
    if (plan) {
      this.#checkPlan(plan);
      this.plans.push(plan);
      this.#inFlight.push({ plan, result: this.gpu.run(plan) });
      this.#after();
      return true;
    }
    const oldest = this.#inFlight.shift();
    if (oldest) this.#take(oldest);
    this.#after();
    return oldest !== undefined;
  }

  /** Step until nothing is left to do. */
  drain(limit = 20_000): void {
    for (let steps = 0; this.step(); steps++) check(steps < limit, "it goes on for ever");
    if (!this.scheduler.isIdle)
      expect.fail(`${this.scheduler.running} run and ${this.scheduler.waiting} wait, and nothing is done`);
  }

  /** Each request has come to the end that it would have come to alone, and everything was given back. */
  expectAllFinished(): void {
    for (const [request, options] of this.submitted) {
      const { completions } = request.output();
      if (request.state === "aborted" && request.search) continue;
      const wanted = alone(options, this.options.contextLength);
      if (request.state === "aborted")
        completions.forEach(({ tokens }, i) => {
          expect(tokens).toEqual(wanted[i]!.tokens.slice(0, tokens.length));
        });
      else {
        expect(request.state).toBe("finished");
        expect(completions).toEqual(wanted);
      }
    }
    const { reserved, used, logical } = this.space.usage();
    expect({ reserved, used, logical, host: this.gpu.host.size }).toEqual({
      reserved: 0,
      used: 0,
      logical: 0,
      host: 0,
    });
  }

  #take({ plan, result }: InFlight): void {
    for (const update of this.scheduler.update(plan, result)) {
      this.updates.push(update);
      if (update.type === "token" && update.finishReason !== null) this.gpu.host.delete(update.owner);
      if (update.type === "finished") this.#letGo(update.request);
    }
  }

  #letGo(request: Request): void {
    for (const { owner } of request.branches) this.gpu.host.delete(owner);
  }

  #checkPlan(plan: StepPlan): void {
    const { maxBatchedTokens, maxSequences } = this.options;
    const computed = plan.pieces.reduce((sum, { tokens }) => sum + tokens.length, 0);
    check(plan.number === this.plans.length, "a plan's number is not the next");
    check(computed === plan.tokens && computed <= maxBatchedTokens, `${computed} tokens in a step`);
    check(plan.pieces.length > 0 && plan.pieces.length <= maxSequences, `${plan.pieces.length} pieces`);
    check(plan.samples.length <= maxSequences, `${plan.samples.length} samples`);
    check(
      plan.pieces.every(({ tokens }) => tokens.length > 0),
      "an empty piece",
    );
    check(
      new Set(plan.pieces.map(({ holding }) => holding)).size === plan.pieces.length,
      "two pieces of one",
    );
    for (const { tokens } of plan.pieces)
      check(
        tokens.every((token, i) => typeof token === "number" || i === tokens.length - 1),
        "a token that is not the last is pending",
      );
  }

  #after(): void {
    this.operations++;
    if (this.#checks) this.#checkState();
  }

  #checkState(): void {
    const { scheduler, space, options } = this;
    const requests = [...scheduler.requests];
    const running = requests.filter(({ state }) => state === "running");
    check(running.length === scheduler.running, "running");
    check(requests.length - running.length === scheduler.waiting, "waiting");
    const width = running.reduce((sum, request) => sum + request.width, 0);
    check(width <= options.maxSequences, `${width} sequences run`);
    const owners = new Set<number>();
    let logical = 0;
    for (const request of requests) {
      check(request.live.length > 0, `request ${request.id} is not over, and nothing of it lives`);
      request.branches.forEach((branch) => {
        const { holding, planned, pending, owner } = branch;
        const lives = request.live.includes(branch);
        const placed =
          request.state === "running" && lives && (!request.isShared || branch === request.live[0]);
        check((holding !== undefined) === placed, () => `owner ${owner}: has a place, or has none`);
        check(
          planned <= branch.length || !lives,
          () => `owner ${owner}: ${planned} of ${branch.length} planned`,
        );
        check(!lives || pending <= options.ahead + 1, () => `owner ${owner}: ${pending} pending`);
        if (!holding) return;
        check(
          holding.length === planned && holding.owner === owner,
          () => `owner ${owner}: ${holding.length}`,
        );
        owners.add(owner);
        logical += planned;
      });
    }
    const usage = space.usage();
    check(usage.logical === logical, () => `${usage.logical} tokens are held, and ${logical} known of`);
    check(usage.reserved + usage.free === usage.total, "reserved + free");
    check(usage.used <= usage.reserved && usage.used >= 0, () => `${usage.used} used of ${usage.reserved}`);
    const holders = new Set(space.regions().flatMap((region) => region.owners));
    check(holders.size === owners.size && [...owners].every((owner) => holders.has(owner)), "owners");
  }
}
