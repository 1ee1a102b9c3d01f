// The page's copy of the catalogue. Pure: no DOM, no clock; times are the registry's, in milliseconds.
//
// Members report counters with their heartbeats, which come at different times, seconds apart. The newest values are
// therefore not comparable. Shares are taken between two times for which every instance has samples before and after,
// with the counters interpolated. Once traffic stops, they equal the counters exactly.

// Shares cover this much time, or less if the set of instances that take requests has changed since.
export const WINDOW = 300_000;
// Rates cover this much time.
const RATE_WINDOW = 10_000;
// The last sample of an instance is valid for this long, or for three times the interval between its last two.
const SAMPLE_VALID = 20_000;
// One minute with heartbeats every 100 ms.
const MAX_SAMPLES = 600;
const MAX_EVENTS = 300;
// The registry converts its clock to wall-clock time in each reply, so equal times may differ slightly.
const SAME_TIME = 50;

export class Model {
  revision = "";
  // name → Map of address → instance
  services = new Map();
  // Newest first: { at, kind, name, addr, detail }
  events = [];
  protection = null;
  // { etcdUp, etcdSince, etcdError, list: [{ id, addr, version, asked, instances }] }, or null if the registry is the only one.
  registries = null;
  // Service name → number of instances that require it. A service is known while it has instances or is required.
  #required = new Map();
  // Service name → when the set of its instances that take requests last changed.
  #changed = new Map();

  // Applies a whole catalogue. `now` is the registry's time.
  snapshot(view, now) {
    const epoch = (revision) => revision.split(".")[0];
    const revision = text(view.Revision);
    if (this.revision && epoch(this.revision) !== epoch(revision)) {
      this.addEvent({ at: now, kind: "new-epoch", name: "registry", addr: "", detail: "" });
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
    for (const name of [...this.services.keys()]) this.#keepIfRequired(name);
    for (const name of this.#changed.keys()) if (!this.services.has(name)) this.#changed.delete(name);
    this.#addMissed(found);
    if (view.Protection !== undefined) this.protection = view.Protection;
    this.shareWith(view.Registries, now);
  }

  // Applies which registries share the catalogue; none if there is no view. The first view tells no events.
  shareWith(view, now) {
    const before = this.registries;
    if (!view) {
      this.registries = null;
      return;
    }
    const list = (view.Registries ?? []).map((one) => ({
      id: text(one.Id),
      addr: text(one.Addr),
      version: text(one.Version),
      asked: one.Asked === true,
      instances: Number(one.Instances) || 0,
    }));
    this.registries = { etcdUp: view.EtcdUp === true, etcdSince: Date.parse(view.EtcdSince), etcdError: text(view.EtcdError), list };
    if (!before) return;
    const found = [];
    const add = (kind, at, addr, detail = "") => found.push({ at, kind, name: addr ? "registry" : "etcd", addr, detail });
    const misses = (all, one) => !all.some((other) => other.id === one.id);
    for (const one of before.list) if (misses(list, one)) add("registry-left", now, one.addr);
    for (const one of list) if (misses(before.list, one)) add("registry-joined", now, one.addr);
    const { etcdUp, etcdSince, etcdError } = this.registries;
    if (before.etcdUp !== etcdUp) add(etcdUp ? "etcd-back" : "etcd-lost", Number.isFinite(etcdSince) ? etcdSince : now, "", etcdError);
    this.#addAll(found);
  }

  // Applies one change: an instance after it, or as it was when it was removed.
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
    this.#keepIfRequired(name);
    for (const reason of seen.Reasons ?? []) this.addEvent(event(name, seen.Addr, reason));
  }

  // Applies the load from a heartbeat; returns the instance, or null if it is unknown.
  load(name, addr, load) {
    const known = this.services.get(name)?.get(addr);
    if (!known) return null;
    sample(known, load.LastHeartbeat, load);
    return known;
  }

  addEvent(event) {
    this.#addAll([event]);
  }

  // How the requests of a service spread over the instances that take them and report their load; `silent` is the
  // number of those that take them but do not report. { since, total, expected, sigma, reporting, silent, of: Map of address →
  // { share, rate } }; unknown shares and rates are null.
  spread(name, now) {
    const all = [...(this.services.get(name)?.values() ?? [])];
    const of = new Map(all.map((one) => [one.addr, { share: null, rate: isCurrent(one, now) ? rate(one) : null }]));
    const takers = takersOf(all);
    const reporting = takers.filter((one) => isCurrent(one, now));
    const even = reporting.length || takers.length;
    const spread = { since: null, total: 0, expected: even ? 1 / even : null, sigma: 0, reporting: reporting.length, silent: takers.length - reporting.length, of };
    if (reporting.length === 0) return spread;
    const changed = this.#changed.get(name) ?? 0;
    const from = Math.max(now - WINDOW, changed, ...reporting.map((one) => one.samples[0].at));
    const until = Math.min(...reporting.map((one) => one.samples.at(-1).at));
    if (until <= from) return spread;
    spread.since = from;
    const counts = reporting.map((one) => Math.max(0, at(one.samples, until) - at(one.samples, from)));
    spread.total = counts.reduce((sum, count) => sum + count, 0);
    // Interpolation may give less than one request, which has no shares.
    if (spread.total < 1) return { ...spread, total: 0 };
    reporting.forEach((one, i) => {
      of.get(one.addr).share = counts[i] / spread.total;
    });
    // The standard deviation of one instance's share if each request goes to a random one.
    const p = spread.expected;
    spread.sigma = Math.sqrt((p * (1 - p)) / spread.total);
    return spread;
  }

  // { services, instances, suspect, draining, vacant }; a vacant service is required but has no instances.
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

  // Adds `by` to the number of dependents of each service that an instance requires.
  #require(one, by) {
    for (const name of one?.requires ?? []) {
      if (name === EVERY_SERVICE) continue;
      const number = (this.#required.get(name) ?? 0) + by;
      if (number > 0) this.#required.set(name, number);
      else this.#required.delete(name);
      this.#keepIfRequired(name);
    }
  }

  // Keeps a service without instances if, and only if, it is required.
  #keepIfRequired(name) {
    const required = this.#required.has(name);
    const list = this.services.get(name);
    if (!list && required) this.services.set(name, new Map());
    if (list?.size !== 0 || required) return;
    this.services.delete(name);
    this.#changed.delete(name);
  }

  // Adds those events of a snapshot that are not known yet.
  #addMissed(found) {
    const newest = new Map();
    for (const known of this.events) {
      const key = `${known.name} ${known.addr}`;
      newest.set(key, Math.max(newest.get(key) ?? 0, known.at));
    }
    this.#addAll(found.filter((one) => one.at > (newest.get(`${one.name} ${one.addr}`) ?? 0) + SAME_TIME));
  }

  #addAll(events) {
    if (events.length === 0) return;
    this.events = [...events, ...this.events].sort((a, b) => b.at - a.at).slice(0, MAX_EVENTS);
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

// Records a heartbeat, and its load if it reported any.
function sample(one, heartbeat, load) {
  const at = Date.parse(heartbeat ?? "");
  if (Number.isNaN(at)) return;
  one.lastHeartbeat = at;
  if (!load || !Number.isFinite(load.Requests)) return;
  one.inFlight = load.InFlight ?? null;
  const last = one.samples.at(-1);
  if (last && Math.abs(at - last.at) < SAME_TIME) return;
  // A counter decreases only if the process restarted, and time only if a clock was set.
  if (last && (load.Requests < last.requests || at < last.at)) one.samples.length = 0;
  one.samples.push({ at, requests: load.Requests });
  // One sample before the window is kept for interpolation.
  while (one.samples.length > MAX_SAMPLES || (one.samples.length > 2 && one.samples[1].at < at - WINDOW)) {
    one.samples.shift();
  }
}

// A counter at some time, interpolated; before and after the samples, the nearest one.
function at(samples, time) {
  let low = 0;
  let high = samples.length - 1;
  if (time <= samples[low].at) return samples[low].requests;
  if (time >= samples[high].at) return samples[high].requests;
  while (high - low > 1) {
    const mid = (low + high) >> 1;
    if (samples[mid].at <= time) low = mid;
    else high = mid;
  }
  const [a, b] = [samples[low], samples[high]];
  return a.requests + ((b.requests - a.requests) * (time - a.at)) / (b.at - a.at);
}

// Whether the last sample of an instance is recent enough.
function isCurrent({ samples }, now) {
  if (samples.length === 0) return false;
  const last = samples.at(-1).at;
  return now - last <= Math.max(SAMPLE_VALID, 3 * (last - (samples.at(-2)?.at ?? last)));
}

function rate(one) {
  if (one.samples.length < 2) return null;
  const until = one.samples.at(-1).at;
  const from = Math.max(one.samples[0].at, until - RATE_WINDOW);
  return ((at(one.samples, until) - at(one.samples, from)) * 1000) / (until - from);
}

// The instances that take requests: suspect ones only if there is no passing one.
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
