import { check } from "../check.ts";
import { EngineEvents } from "./engine-events.ts";
import type { EngineParts } from "./engine-open.ts";
import { EngineSteps, type Flight } from "./engine-steps.ts";
import type { EngineMetrics, RequestOptions, RequestOutput, StepRecord } from "./engine-types.ts";
import { Request } from "./request.ts";
import type { Branch } from "./request-branch.ts";
import { Scheduler, type SchedulerUpdate } from "./scheduler.ts";

type Load = Pick<StepRecord, "running" | "waiting" | "kv">;

/** Scheduler and device together: one step after the other, what came of it told, and its time taken. */
export class EngineCore {
  readonly events = new EngineEvents();
  /** Called once with what there is of a request when it is over, and forgotten then; by request id. */
  readonly waiters = new Map<number, (output: RequestOutput) => void>();
  readonly #parts: EngineParts;
  readonly #scheduler: Scheduler;
  readonly #steps: EngineSteps;
  /** Sequences with a repetition penalty, by owner. */
  readonly #penalised = new Map<number, Branch>();
  readonly #opened = performance.now();
  /** What comes of one step happens at one time. */
  #moment: number | undefined;
  #requests = 0;
  #closed = false;
  /** There was nothing to do: the time until the next step is no step's. */
  #rests = true;
  /** When the last step's tokens were known. Since then the host has worked so many seconds, and so many requests made room. */
  #lastKnown = 0;
  #busy = 0;
  #preempted = 0;
  /** Who ran and waited in the steps in flight, oldest first; nothing while nobody listens. */
  readonly #loads: (Load | undefined)[] = [];

  constructor(parts: EngineParts) {
    const { settings, space, device } = parts;
    this.#parts = parts;
    this.#steps = new EngineSteps(device, space, (owner) => this.#penalised.get(owner)!.tokens);
    this.#scheduler = new Scheduler(space, {
      ...settings,
      clock: () => this.#moment ?? this.now,
      isLeaving: (owner) => this.#steps.isLeaving(owner),
    });
  }

  /** Seconds since the start. */
  get now(): number {
    return (performance.now() - this.#opened) / 1e3;
  }

  /** Requests that are not over. */
  get open(): number {
    return this.#scheduler.running + this.#scheduler.waiting;
  }

  get isIdle(): boolean {
    return this.#scheduler.isIdle;
  }

  /** Put a request into the queue: its id. Throws BadInput when it can never run, and what a listener throws: then it does not run either. */
  add(options: RequestOptions, waiter?: (output: RequestOutput) => void): number {
    const request = new Request(this.#requests, options, this.#parts.settings.maxSeqLen);
    this.#scheduler.add(request);
    const id = this.#requests++;
    if (waiter) this.waiters.set(id, waiter);
    if ((options.sampling.repetitionPenalty ?? 1) !== 1)
      for (const branch of request.branches) this.#penalised.set(branch.owner, branch);
    try {
      if (this.events.hears("submitted"))
        this.events.emit({ type: "submitted", id, time: request.times.submitted });
    } catch (error) {
      this.abort(id);
      throw error;
    }
    return id;
  }

  /** False if it is over, or never was. */
  abort(id: number): boolean {
    const request = this.#scheduler.abort(id);
    if (request) this.#end(request, "aborted");
    return request !== undefined;
  }

  /** Abort these requests, all that are open unless told otherwise; what a listener throws comes after the last of them. */
  abortAll(ids: Iterable<number> = [...this.#scheduler.requests].map(({ id }) => id)): void {
    let failure: { readonly error: unknown } | undefined;
    for (const id of ids) {
      try {
        this.abort(id);
      } catch (error) {
        failure ??= { error };
      }
    }
    if (failure) throw failure.error;
  }

  /**
   * Submit a step, or two where the engine runs ahead, and take the tokens of the oldest. False when nothing is left to do.
   * After an error nothing can be relied on but `close`.
   */
  async step(): Promise<boolean> {
    if (this.#rests) {
      this.#rests = false;
      this.#lastKnown = this.now;
      this.#busy = 0;
    }
    const ahead = this.#parts.settings.async ? 2 : 1;
    while (this.#steps.inFlight < ahead && !this.#closed) {
      const begun = this.now;
      this.#moment = begun;
      this.#forgetLost(this.#steps.takeLost());
      const plan = this.#scheduler.schedule();
      const changes = this.#scheduler.takeChanges();
      this.#takePlaces(changes);
      if (plan) this.#loads.push(this.events.hears("step") ? this.#load() : undefined);
      const arrival = plan && this.#steps.submit(plan);
      try {
        // After the plan is submitted: a listener may abort whom it names.
        this.#tell(changes);
      } finally {
        this.#moment = undefined;
        this.#busy += this.now - begun;
        if (arrival) await arrival;
      }
      if (!plan) break;
    }
    const flight = this.#steps.takeOldest();
    if (flight) await this.#take(flight);
    else {
      // Whoever waits for its pages to arrive at the host can be admitted then.
      const mayRun = this.isIdle || this.#closed || (await this.#steps.untilArrived());
      check(mayRun, "engine: requests wait, and none of them can run");
    }
    this.#rests = this.isIdle;
    return !this.isIdle;
  }

  metrics(): EngineMetrics {
    const { reserved, total } = this.#parts.space.usage();
    const { running, waiting, stats, latencies } = this.#scheduler;
    return { running, waiting, kvUsage: reserved / total, ...stats, ...latencies };
  }

  /** Wait for what is in flight, whatever comes of it, and give the memory back. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#steps.close();
  }

  /** Preempted requests whose pages did not arrive on the host are computed again. */
  #forgetLost(owners: readonly number[]): void {
    if (owners.length === 0) return;
    for (const { state, live } of this.#scheduler.requests)
      if (state === "waiting" && live.some(({ owner }) => owners.includes(owner)))
        for (const branch of live) branch.reset();
  }

  /** Wait for a step's tokens, and tell what came of them. */
  async #take({ plan, result }: Flight): Promise<void> {
    const tokens = await result;
    const time = this.now;
    this.#moment = time;
    this.#tell(this.#scheduler.update(plan, tokens));
    this.#moment = undefined;
    const step = {
      step: plan.number,
      seconds: time - this.#lastKnown,
      hostSeconds: this.#busy,
      tokens: plan.tokens,
      sampled: plan.samples.length,
      preempted: this.#preempted,
    };
    this.#lastKnown = time;
    this.#preempted = 0;
    this.#busy = this.now - time;
    const load = this.#loads.shift();
    if (load && this.events.hears("step"))
      this.events.emit({ type: "step", time, step: { ...step, ...load }, space: this.#parts.space });
  }

  #load(): Load {
    const { running, waiting } = this.#scheduler;
    const { total, reserved, used, logical } = this.#parts.space.usage();
    return { running, waiting, kv: { total, reserved, used, logical } };
  }

  /** Updates of one moment: the plan's that was just made, or of a step whose tokens are known. */
  #tell(updates: readonly SchedulerUpdate[]): void {
    const time = this.#moment ?? this.now;
    const tokensHeard = this.events.hears("token");
    for (const update of updates) {
      const { type, request } = update;
      const { id, state } = request;
      // By a listener, just now: "aborted" is the last that is told of a request.
      if (state === "aborted") continue;
      if (type === "finished") this.#end(request, type);
      else if (type === "token") {
        const { index, owner, token, text, finishReason } = update;
        if (finishReason !== null) this.#leave(owner);
        if (tokensHeard) this.events.emit({ type, id, index, token, text, time });
      } else if (type === "preempted") {
        if (this.events.hears(type)) this.events.emit({ type, id, time, how: update.how });
      } else if (this.events.hears(type))
        this.events.emit({ type, id, time, cachedTokens: request.cachedTokens ?? 0 });
    }
  }

  /** Those who had to make room have no rows of tokens seen any more. */
  #takePlaces(changes: readonly SchedulerUpdate[]): void {
    for (const { type, request } of changes) {
      if (type !== "preempted") continue;
      this.#preempted++;
      for (const { owner } of request.branches) this.#steps.preempt(owner);
    }
  }

  /** A sequence has ended. */
  #leave(owner: number): void {
    this.#steps.leave(owner);
    this.#penalised.delete(owner);
  }

  /** A request is over. */
  #end(request: Request, type: "finished" | "aborted"): void {
    for (const { owner } of request.branches) this.#leave(owner);
    const { id, times } = request;
    const waiter = this.waiters.get(id);
    this.waiters.delete(id);
    const heard = this.events.hears(type);
    if (!waiter && !heard) return;
    const output = request.output();
    waiter?.(output);
    if (heard) this.events.emit({ type, id, time: times.finished!, output });
  }
}
