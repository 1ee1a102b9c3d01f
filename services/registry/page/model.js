// What the page knows of the catalogue. Pure: no DOM, no clock; times are milliseconds as the registry gives them.
//
// Members report counters with their heartbeats, each at moments of its own, seconds apart. Comparing the newest
// numbers as they come would show differences that are only differences of the moments, so shares are taken between
// two moments that every instance has numbers around, with the counters interpolated in between. Once traffic stops
// they equal the counters exactly.

// Shares look back this far, or to the last change of who takes requests, whichever is nearer.
export const WINDOW = 300_000;
// Rates look back this far.
const RATE_WINDOW = 10_000;
// What an instance last told holds for so long, or for three times as long as it was since the time before.
const HOLDS = 20_000;
// With heartbeats every 100 ms still a minute.
const MAX_SAMPLES = 600;
const MAX_EVENTS = 300;
// The registry converts its own clock to times of day at each answer, so the same moment may differ by a little.
const SAME_MOMENT = 50;

export class Model {
  revision = "";
  // name → Map of address → instance
  services = new Map();
  // Newest first: { at, kind, name, addr, detail }
  events = [];
  protection = null;
  // How many instances require a service, by its name. A service is known as long as it has instances or is required.
  #required = new Map();
  // When the set of instances that take requests last changed, by service name.
  #changed = new Map();

  // Takes in a whole catalogue. `now` is the registry's time.
  snapshot(view, now) {
    const epoch = (revision) => revision.split(".")[0];
    const revision = text(view.Revision);
    if (this.revision && epoch(this.revision) !== epoch(revision)) {
      this.note({ at: now, kind: "new-epoch", name: "registry", addr: "", detail: "" });
    }
    this.revision = revision;
    const found = [];
    const known = this.services;
    this.services = new Map();
    for (const [name, list] of Object.entries(view.Services ?? {})) {
      const before = known.get(name);
      const after = new Map();
      this.services.set(name, after);
      for (const seen of list ?? []) {
        for (const reason of seen.Reasons ?? []) found.push(event(name, seen.Addr, reason));
        if (seen.State === "removed") continue;
        after.set(seen.Addr, instance(seen, before?.get(seen.Addr)));
      }
      if (!sameTakers(before, after)) this.#changed.set(name, now);
    }
    this.#required.clear();
    for (const list of [...this.services.values()]) for (const one of list.values()) this.#require(one, 1);
    for (const name of [...this.services.keys()]) this.#settle(name);
    for (const name of this.#changed.keys()) if (!this.services.has(name)) this.#changed.delete(name);
    this.#catchUp(found);
    if (view.Protection !== undefined) this.protection = view.Protection;
  }

  // Takes in one change: an instance as it now is, or last was.
  change(revision, seen, now) {
    if (revision) this.revision = revision;
    const name = text(seen.Name);
    const before = this.services.get(name) ?? new Map();
    const after = new Map(before);
    if (seen.State === "removed") after.delete(seen.Addr);
    else after.set(seen.Addr, instance(seen, before.get(seen.Addr)));
    this.services.set(name, after);
    if (!sameTakers(before, after)) this.#changed.set(name, now);
    this.#require(after.get(seen.Addr), 1);
    this.#require(before.get(seen.Addr), -1);
    this.#settle(name);
    for (const reason of seen.Reasons ?? []) this.note(event(name, seen.Addr, reason));
  }

  // Takes in a heartbeat's news of one instance; says which one it is, where that is known.
  load(name, addr, load) {
    const known = this.services.get(name)?.get(addr);
    if (!known) return null;
    sample(known, load.LastHeartbeat, load);
    return known;
  }

  // Adds an event.
  note(event) {
    this.#add([event]);
  }

  // How a service's requests spread over the instances that take them and tell their load (`silent` others don't):
  // { since, total, expected, sigma, silent, of: Map of address → { share, rate } }. Shares are null where nothing is
  // known.
  spread(name, now) {
    const all = [...(this.services.get(name)?.values() ?? [])];
    const of = new Map(all.map((one) => [one.addr, { share: null, rate: holds(one, now) ? rate(one) : null }]));
    const takers = takersOf(all);
    const told = takers.filter((one) => holds(one, now));
    const even = told.length || takers.length;
    const spread = { since: null, total: 0, expected: even ? 1 / even : null, sigma: 0, silent: takers.length - told.length, of };
    if (told.length === 0) return spread;
    const changed = this.#changed.get(name) ?? 0;
    const from = Math.max(now - WINDOW, changed, ...told.map((one) => one.samples[0].at));
    const until = Math.min(...told.map((one) => one.samples.at(-1).at));
    if (until <= from) return spread;
    spread.since = from;
    const counts = told.map((one) => Math.max(0, at(one.samples, until) - at(one.samples, from)));
    spread.total = counts.reduce((sum, count) => sum + count, 0);
    // Below one whole request there is nothing to share out.
    if (spread.total < 1) return { ...spread, total: 0 };
    told.forEach((one, i) => {
      of.get(one.addr).share = counts[i] / spread.total;
    });
    // Standard deviation of one instance's share where each request goes to a random one.
    const p = spread.expected;
    spread.sigma = Math.sqrt((p * (1 - p)) / spread.total);
    return spread;
  }

  // { services, instances, suspect, draining, vacant }: vacant services are required by somebody and have no instance.
  totals() {
    const totals = { services: 0, instances: 0, suspect: 0, draining: 0, vacant: 0 };
    for (const list of this.services.values()) {
      if (list.size === 0) totals.vacant += 1;
      else totals.services += 1;
      totals.instances += list.size;
      for (const one of list.values()) if (one.state !== "passing") totals[one.state] += 1;
    }
    return totals;
  }

  // Counts what an instance requires, or no longer does.
  #require(one, by) {
    for (const name of one?.requires ?? []) {
      if (name === EVERY_SERVICE) continue;
      const number = (this.#required.get(name) ?? 0) + by;
      if (number > 0) this.#required.set(name, number);
      else this.#required.delete(name);
      this.#settle(name);
    }
  }

  // Knows a service without instances if, and only if, somebody requires it.
  #settle(name) {
    const required = this.#required.has(name);
    const list = this.services.get(name);
    if (!list && required) this.services.set(name, new Map());
    if (list?.size !== 0 || required) return;
    this.services.delete(name);
    this.#changed.delete(name);
  }

  // Adds those events of a snapshot that are not known yet.
  #catchUp(found) {
    const newest = new Map();
    for (const known of this.events) {
      const key = `${known.name} ${known.addr}`;
      newest.set(key, Math.max(newest.get(key) ?? 0, known.at));
    }
    this.#add(found.filter((one) => one.at > (newest.get(`${one.name} ${one.addr}`) ?? 0) + SAME_MOMENT));
  }

  #add(fresh) {
    if (fresh.length === 0) return;
    this.events = [...fresh, ...this.events].sort((a, b) => b.at - a.at).slice(0, MAX_EVENTS);
  }
}

const EVERY_SERVICE = "*";
const STATES = new Set(["passing", "suspect", "draining"]);

function instance(seen, known) {
  const same = known && known.id === (seen.Id ?? seen.Addr) && known.registered === seen.Registered;
  const one = {
    name: text(seen.Name),
    addr: text(seen.Addr),
    id: text(seen.Id ?? seen.Addr),
    state: STATES.has(seen.State) ? seen.State : "suspect",
    registered: seen.Registered,
    requires: Array.isArray(seen.RequiredServices) ? seen.RequiredServices : [],
    meta: seen.Meta ?? {},
    lastHeartbeat: same ? known.lastHeartbeat : null,
    inFlight: same ? known.inFlight : null,
    samples: same ? known.samples : [],
  };
  sample(one, seen.LastHeartbeat, seen.Load ?? null);
  return one;
}

// Notes a heartbeat, and the load where it told any.
function sample(one, heartbeat, load) {
  const at = Date.parse(heartbeat ?? "");
  if (Number.isNaN(at)) return;
  one.lastHeartbeat = at;
  if (!load || !Number.isFinite(load.Requests)) return;
  one.inFlight = load.InFlight ?? 0;
  const last = one.samples.at(-1);
  if (last && Math.abs(at - last.at) < SAME_MOMENT) return;
  // A counter goes back only by starting anew, and time only by a clock that was set.
  if (last && (load.Requests < last.requests || at < last.at)) one.samples.length = 0;
  one.samples.push({ at, requests: load.Requests });
  // One sample before the window is kept, to interpolate from.
  while (one.samples.length > MAX_SAMPLES || (one.samples.length > 2 && one.samples[1].at < at - WINDOW)) {
    one.samples.shift();
  }
}

// A counter at some moment; beyond what is known, the nearest that is.
function at(samples, moment) {
  let low = 0;
  let high = samples.length - 1;
  if (moment <= samples[low].at) return samples[low].requests;
  if (moment >= samples[high].at) return samples[high].requests;
  while (high - low > 1) {
    const mid = (low + high) >> 1;
    if (samples[mid].at <= moment) low = mid;
    else high = mid;
  }
  const [a, b] = [samples[low], samples[high]];
  return a.requests + ((b.requests - a.requests) * (moment - a.at)) / (b.at - a.at);
}

// Whether what an instance last told says how things are now.
function holds({ samples }, now) {
  if (samples.length === 0) return false;
  const last = samples.at(-1).at;
  return now - last <= Math.max(HOLDS, 3 * (last - (samples.at(-2)?.at ?? last)));
}

function rate(one) {
  if (one.samples.length < 2) return null;
  const until = one.samples.at(-1).at;
  const from = Math.max(one.samples[0].at, until - RATE_WINDOW);
  return ((at(one.samples, until) - at(one.samples, from)) * 1000) / (until - from);
}

// Who gets requests: suspects only where nothing else is there.
function takersOf(list) {
  const passing = list.filter((one) => one.state === "passing");
  return passing.length ? passing : list.filter((one) => one.state === "suspect");
}

function sameTakers(before, after) {
  const takers = (list) => takersOf([...(list?.values() ?? [])]).map((one) => `${one.addr} ${one.id}`);
  return before !== undefined && takers(before).sort().join("\n") === takers(after).sort().join("\n");
}

function event(name, addr, reason) {
  return { at: Date.parse(reason.At) || 0, kind: text(reason.Kind), name, addr: text(addr), detail: text(reason.Detail ?? "") };
}

function text(value) {
  return typeof value === "string" ? value : String(value ?? "");
}
