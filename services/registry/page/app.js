// Wires the stream to the model, the model to the views, and the operator's buttons to the registry.

import { $, count, setText, span, timeOfDay } from "./dom.js";
import { Events, describe } from "./events.js";
import { LogTail } from "./logtail.js";
import { Model } from "./model.js";
import { Registries } from "./registries.js";
import { Services } from "./services.js";
import { Spokes } from "./spokes.js";
import { Subscription } from "./subscription.js";

// Changes are announced to screen readers at most this often (ms).
const ANNOUNCE_INTERVAL = 4000;
// With more instances than this, numbers change without transitions, which would cost too much.
const CROWD = 64;
// A page that is hidden for this long (ms) lets go of its streams.
const HIDDEN_TIMEOUT = 10_000;
// The `Date` header has whole seconds, so smaller differences between the clocks (ms) are ignored.
const MIN_SKEW = 1500;

const model = new Model();
const spokes = new Spokes($("spokes"));
const services = new Services($("services"), drain, (instance) => spokes.highlight(instance));
const registries = new Registries();
const events = new Events(() => scheduleDraw());
let token = null;
let unlocked = false;
let skew = 0;
let lastReceived = null;
let lostAt = null;
let drawScheduled = false;

const watched = { key: "watch", replay: 0, path: "/services/watch", query: {}, headers: {}, cursors: null };
const stream = new Subscription(() => watched, {
  open: ({ date, at }) => {
    const difference = at - Date.parse(date ?? "");
    skew = Math.abs(difference) > MIN_SKEW ? difference : 0;
  },
  received: () => {
    lastReceived = Date.now();
    if (lostAt !== null) {
      const before = model.events[0];
      model.addEvent({ at: registryNow(), kind: "reconnected", name: "registry", addr: "", detail: `after ${span(Date.now() - lostAt)}` });
      lostAt = null;
      announce(before);
      scheduleDraw();
    }
    show("live");
  },
  event: (type, data) => {
    apply(type, JSON.parse(data));
    scheduleDraw();
  },
  lost: (why) => {
    if (lastReceived !== null && lostAt === null) {
      lostAt = Date.now();
      const before = model.events[0];
      model.addEvent({ at: registryNow(), kind: "disconnected", name: "registry", addr: "", detail: why });
      announce(before);
    }
    show(lastReceived === null ? "unreachable" : "stale", why);
    scheduleDraw();
  },
});

// The registry's time, from this computer's clock and its difference to the registry's.
function registryNow() {
  return Date.now() - skew;
}

function apply(type, value) {
  const before = model.events[0];
  if (type === "snapshot") {
    const first = model.revision === "";
    model.snapshot(value, registryNow());
    if (!first) announce(before);
  } else if (type === "change") {
    model.change(value.Revision, value.Instance, registryNow());
    announce(before);
  } else if (type === "load") {
    for (const [name, list] of Object.entries(value.Services ?? {})) {
      for (const [addr, load] of Object.entries(list)) {
        const instance = model.load(name, addr, load);
        if (instance) spokes.beat(instance);
      }
    }
  } else if (type === "protection") {
    model.protection = value;
  } else if (type === "registries") {
    model.shareWith(value, registryNow());
    announce(before);
  }
}

// Drawing: once per frame, and only while the page is visible. The title is current as long as the stream is open.

function scheduleDraw() {
  updateTitle();
  if (drawScheduled || document.hidden) return;
  drawScheduled = true;
  requestAnimationFrame(draw);
}

function draw() {
  drawScheduled = false;
  const now = registryNow();
  // While disconnected, the page shows the last known state.
  const asOf = lostAt === null ? now : lastReceived - skew;
  const spreads = new Map([...model.services.keys()].map((name) => [name, model.spread(name, asOf)]));
  services.update(model, spreads, now);
  spokes.update(model, spreads);
  events.update(model.events, now);
  registries.update(model.registries, asOf);
  const { services: number, instances, suspect, draining, vacant } = model.totals();
  document.body.classList.toggle("crowded", instances > CROWD);
  const parts = [count(number, "service"), count(instances, "instance")];
  if (suspect) parts.push(`${suspect} suspect`);
  if (draining) parts.push(`${draining} draining`);
  if (vacant) parts.push(`${count(vacant, "service")} required but absent`);
  setText($("summary"), model.revision ? parts.join(" · ") : "");
  $("empty").hidden = model.revision === "" || model.services.size > 0;
  const until = Date.parse(model.protection?.Until ?? "");
  const protecting = until > now;
  $("protection").hidden = !protecting;
  if (protecting) {
    setText($("protection"), `Self-protection: most instances fail at once, so the registry suspects its own network and removes none of them until ${timeOfDay(until, now)}.`);
  }
}

function updateTitle() {
  if (!stream.running) {
    // What a hidden page knew is not shown as the present.
    document.title = "Hubspoke";
    return;
  }
  const { services: number, instances, suspect, vacant } = model.totals();
  const mark = lostAt !== null || suspect || vacant || model.registries?.etcdUp === false ? "⚠ " : "";
  const text = model.revision ? `${mark}${instances} in ${number} · Hubspoke` : "Hubspoke";
  if (document.title !== text) document.title = text;
}

function show(state, why = "") {
  const status = $("status");
  if (status.dataset.state !== state) {
    status.dataset.state = state;
    setText($("status-text"), { live: "Live", stale: "Stale", unreachable: "No answer", connecting: "Connecting" }[state]);
    document.body.classList.toggle("is-stale", state === "stale");
    $("stale").hidden = state === "live";
    if (state === "unreachable") setText($("announcement"), `The registry can't be reached (${why}).`);
  }
  if (state === "stale") setText($("stale-text"), `Last update: ${timeOfDay(lastReceived)}. The registry can't be reached (${why}); reconnecting.`);
  if (state === "unreachable") setText($("stale-text"), `The registry can't be reached (${why}); reconnecting.`);
  if (state !== "live") updateAge();
}

function updateAge() {
  setText($("stale-age"), lastReceived === null || $("stale").hidden ? "" : `${span(Date.now() - lastReceived)} ago`);
}

// Ages are updated once a second.
setInterval(() => {
  updateAge();
  if (stream.running) scheduleDraw();
}, 1000);

let hiddenTimer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) {
    hiddenTimer = setTimeout(() => {
      stream.stop();
      updateTitle();
    }, HIDDEN_TIMEOUT);
    return;
  }
  if (stream.running) stream.retryNow();
  else stream.start();
  scheduleDraw();
});
addEventListener("online", () => stream.retryNow());

// Announcements for screen readers: the newest change, and how many there were with it.

let announcedAt = 0;
let unannounced = [];

// Announces the events that are newer than `before`.
function announce(before) {
  for (const event of model.events) {
    if (event === before) break;
    unannounced.unshift(event);
  }
  if (unannounced.length === 0) return;
  const wait = Math.max(0, announcedAt + ANNOUNCE_INTERVAL - Date.now());
  announcedAt = Date.now() + wait;
  setTimeout(() => {
    if (unannounced.length === 0) return;
    const last = describe(unannounced.at(-1));
    setText($("announcement"), unannounced.length === 1 ? last : `${count(unannounced.length, "change")}, the last one: ${last}`);
    unannounced = [];
  }, wait);
}

// Operator actions.

const log = new LogTail(() => token);

function lock(on) {
  unlocked = !on;
  if (on) token = null;
  services.unlocked = unlocked;
  setText($("unlock"), unlocked ? "Lock" : "Unlock");
  $("unlock").setAttribute("aria-label", unlocked ? "Lock draining" : "Unlock draining");
  log.restart();
  scheduleDraw();
}

$("unlock").addEventListener("click", () => {
  if (unlocked) return lock(true);
  $("token").value = "";
  $("unlock-dialog").showModal();
});
$("unlock-cancel").addEventListener("click", () => $("unlock-dialog").close());
$("unlock-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim() || null;
  $("token").value = "";
  $("unlock-dialog").close();
  lock(false);
});
$("find").addEventListener("input", () => {
  services.find = $("find").value;
  scheduleDraw();
});

async function drain(instance, on) {
  const path = [instance.name, instance.addr].map(encodeURIComponent).join("/");
  const label = `${instance.name} ${instance.addr}`;
  notify(`${on ? "Draining" : "Undraining"} ${label} …`);
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(`/services/${path}/drain`, { method: on ? "PUT" : "DELETE", headers });
    if (response.status === 401) {
      lock(true);
      return notify("The registry refused the token. Unlock again with the right one.", true);
    }
    if (!response.ok) {
      const detail = await response.json().then((problem) => problem.detail, () => "");
      return notify(`${label}: ${detail || `the registry answered ${response.status}`}`, true);
    }
    notify(on ? `${label} gets no new requests.` : `${label} gets new requests again.`);
  } catch (error) {
    notify(`${label}: ${error.message}`, true);
  }
}

let noticeTimer = 0;

// Shows a message to the operator for a while.
function notify(text, bad = false) {
  const notice = $("notice");
  setText(notice, text);
  notice.classList.toggle("bad", bad);
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => setText(notice, ""), bad ? 15_000 : 6000);
}

stream.start();
