/* The last ten minutes, put together from what the server says every second. Pure: no page, no clock. */

export const WINDOW_S = 600;
const FRESH_S = 0.95;
const CLOSE_S = 3; // states further apart than this leave a gap: nobody looked

export class History {
  /** By model: spans `{from, to, state, inFlight}`, and `{from, to}` while somebody waited. */
  spans = new Map();
  waits = new Map();
  /** By model: `{at, rate}` in tokens per second, oldest first. */
  rates = new Map();
  #last = null;
  #counted = new Map(); // by model: `{at, worker, tokens}` as of its last rate
  #since = Infinity; // when this page began to look
  #requests = [];

  /** Requests that ended within the window, oldest first. */
  get requests() {
    return this.#requests;
  }

  observe(snapshot) {
    const { now } = snapshot;
    const before = this.#last;
    const isClose = before !== null && now - before.now < CLOSE_S;
    this.#since = Math.min(this.#since, now);
    this.#requests = snapshot.requests.filter((request) => request.at > now - WINDOW_S);
    for (const model of snapshot.models) {
      const present = { from: now, to: now, state: model.state, inFlight: model.in_flight };
      extend(listOf(this.spans, model.name), model.state === "stopped" ? null : present, now, isClose);
      extend(listOf(this.waits, model.name), model.waiting ? { from: now, to: now } : null, now, isClose);
      this.#measure(model, now, isClose);
    }
    this.#forget(now - WINDOW_S);
    this.#last = snapshot;
  }

  /** A rate is a difference of counters, which the server asks its workers for once a second. */
  #measure({ name, worker, tokens }, now, isClose) {
    const before = this.#counted.get(name);
    if (isClose && before && now - before.at < FRESH_S) return;
    const count = tokens ?? 0;
    this.#counted.set(name, { at: now, worker, tokens: count });
    if (!isClose || !before) return;
    const isSame = worker === before.worker && count >= before.tokens;
    const made = isSame ? count - before.tokens : count;
    const rates = listOf(this.rates, name);
    if (made > 0 || rates.length > 0) rates.push({ at: now, rate: made / (now - before.at) });
  }

  /** Spans from before this page looked, as far as the decision log and the requests tell them. */
  backfill(decisions) {
    if (this.#last === null || this.isFilled) return;
    this.isFilled = true;
    const earliest = this.#last.now - WINDOW_S;
    for (const { name, state } of this.#last.models) {
      const steps = decisions.filter((d) => d.model === name && d.at < this.#since).reverse();
      const requests = this.#requests.filter((request) => request.model === name);
      const told = spansOf(steps, requests, state === "stopped" ? null : this.#since);
      listOf(this.spans, name).unshift(...told.filter((span) => span.to > earliest));
    }
  }

  #forget(before) {
    for (const spans of [this.spans, this.waits]) {
      for (const list of spans.values()) while (list[0]?.to < before) list.shift();
    }
    for (const list of this.rates.values()) while (list[0]?.at < before) list.shift();
  }

  /** Models that were up, waited for or asked within the window. */
  isActive(name) {
    return (
      listOf(this.spans, name).length > 0 ||
      listOf(this.waits, name).length > 0 ||
      this.#requests.some((request) => request.model === name)
    );
  }
}

function listOf(map, name) {
  if (!map.has(name)) map.set(name, []);
  return map.get(name);
}

function extend(list, present, now, isClose) {
  const last = list.at(-1);
  const goesOn = isClose && last !== undefined && last.isOpen;
  if (goesOn) last.to = now;
  const isSame =
    present !== null && goesOn && last.state === present.state && last.inFlight === present.inFlight;
  if (isSame) return;
  if (last) last.isOpen = false;
  if (present !== null) list.push({ ...present, isOpen: true });
}

const AFTER = { start: "starting", drain: "draining", stop: "stopping", sleep: "sleeping", wake: "waking" };

/** What the decisions of one model, oldest first, say of its states until `end`; null: it is gone. */
function spansOf(steps, requests, end) {
  const spans = [];
  steps.forEach((step, index) => {
    const state = AFTER[step.action] ?? (step.action === "spare" ? "ready" : null);
    if (state === null) return;
    const next = steps.slice(index + 1).find((other) => other.action in AFTER)?.at;
    const to = next ?? end ?? lastSign(step, requests);
    const { at: from } = step;
    if (state === "starting" || state === "waking") {
      const ready = Math.min(to, readyAfter(from, to, requests));
      spans.push({ from, to: ready, state, inFlight: 0 }, { from: ready, to, state: "ready", inFlight: 0 });
    } else if (state !== "stopping") {
      spans.push({ from, to, state, inFlight: 0 });
    }
  });
  return spans;
}

/** The first answer after a start says when the worker was there. */
function readyAfter(from, to, requests) {
  const granted = requests
    .filter((request) => request.queue_s !== null)
    .map((request) => request.at - request.total_s + request.queue_s)
    .filter((at) => at >= from && at <= to);
  return granted.length > 0 ? Math.min(...granted) : from;
}

function lastSign(step, requests) {
  return Math.max(step.at, ...requests.map((request) => request.at));
}
