// Wiring: the stream into the model, the model onto the page, the operator's calls to the registry.

import { $, count, setText, span, timeOfDay } from "./dom.js";
import { Events, inWords } from "./events.js";
import { LogTail } from "./logtail.js";
import { Model } from "./model.js";
import { Services } from "./services.js";
import { Spokes } from "./spokes.js";
import { Stream } from "./stream.js";

// Changes are read out, but at most this often.
const SPEAK_EVERY = 4000;
// With more instances than this, numbers change without transitions: that many at once cost more than they tell.
const CROWD = 64;
// `Date` has whole seconds: a smaller difference between the clocks can't be told.
const CLOCK_DOUBT = 1500;

const model = new Model();
const spokes = new Spokes($("spokes"));
const services = new Services($("services"), drain, (one) => spokes.point(one));
const events = new Events(() => soon());
let token = null;
let unlocked = false;
let skew = 0;
let lastNews = null;
let lostAt = null;
let drawing = false;

const stream = new Stream({
  url: () => "/services/watch",
  open: (response) => {
    const ahead = Date.now() - Date.parse(response.headers.get("date") ?? "");
    skew = Math.abs(ahead) > CLOCK_DOUBT ? ahead : 0;
  },
  alive: () => {
    lastNews = Date.now();
    if (lostAt !== null) {
      const before = model.events[0];
      model.note({ at: registryNow(), kind: "found", name: "registry", addr: "", detail: `after ${span(Date.now() - lostAt)}` });
      lostAt = null;
      speak(before);
      soon();
    }
    show("live");
  },
  event: (type, data) => {
    take(type, JSON.parse(data));
    soon();
  },
  lost: (why) => {
    if (lastNews !== null && lostAt === null) {
      lostAt = Date.now();
      const before = model.events[0];
      model.note({ at: registryNow(), kind: "lost", name: "registry", addr: "", detail: why });
      speak(before);
    }
    show(lastNews === null ? "unreached" : "stale", why);
    soon();
  },
});

// The registry's time of day, by this computer's clock and what is known of the difference.
function registryNow() {
  return Date.now() - skew;
}

function take(type, value) {
  const before = model.events[0];
  if (type === "snapshot") {
    const first = model.revision === "";
    model.snapshot(value, registryNow());
    if (!first) speak(before);
  } else if (type === "change") {
    model.change(value.Revision, value.Instance, registryNow());
    speak(before);
  } else if (type === "load") {
    for (const [name, list] of Object.entries(value.Services ?? {})) {
      for (const [addr, load] of Object.entries(list)) {
        const one = model.load(name, addr, load);
        if (one) spokes.beat(one);
      }
    }
  } else if (type === "protection") {
    model.protection = value;
  }
}

// Drawing. Whatever comes within a frame is drawn at once; the title also where the page is not in sight.

function soon() {
  title();
  if (drawing || document.hidden) return;
  drawing = true;
  requestAnimationFrame(draw);
}

function draw() {
  drawing = false;
  const now = registryNow();
  // Without news, what is shown is how things stood.
  const known = lostAt === null ? now : lastNews - skew;
  const spreads = new Map([...model.services.keys()].map((name) => [name, model.spread(name, known)]));
  services.update(model, spreads, now);
  spokes.update(model, spreads);
  events.update(model.events, now);
  const { services: number, instances, suspect, draining, vacant } = model.totals();
  document.body.classList.toggle("crowded", instances > CROWD);
  const parts = [count(number, "service"), count(instances, "instance")];
  if (suspect) parts.push(`${suspect} suspect`);
  if (draining) parts.push(`${draining} draining`);
  if (vacant) parts.push(`${count(vacant, "service")} wanted but absent`);
  setText($("summary"), model.revision ? parts.join(" · ") : "");
  $("empty").hidden = model.revision === "" || model.services.size > 0;
  const until = Date.parse(model.protection?.Until ?? "");
  const protecting = until > now;
  $("protection").hidden = !protecting;
  if (protecting) {
    setText($("protection"), `Most instances fail at once, so the registry suspects its own network: it removes none until ${timeOfDay(until, now)}.`);
  }
}

function title() {
  const { services: number, instances, suspect, vacant } = model.totals();
  const mark = lostAt !== null || suspect || vacant ? "⚠ " : "";
  const text = model.revision ? `${mark}${instances} in ${number} · Hubspoke` : "Hubspoke";
  if (document.title !== text) document.title = text;
}

function show(state, why = "") {
  const status = $("status");
  if (status.dataset.state !== state) {
    status.dataset.state = state;
    setText($("status-text"), { live: "Live", stale: "Stale", unreached: "No answer", connecting: "Connecting" }[state]);
    document.body.classList.toggle("is-stale", state === "stale");
    $("stale").hidden = state === "live";
    if (state === "unreached") setText($("spoken"), `The registry can't be watched (${why}).`);
  }
  if (state === "stale") setText($("stale-text"), `This is how things stood at ${timeOfDay(lastNews)}. No news from the registry since (${why}); trying again.`);
  if (state === "unreached") setText($("stale-text"), `The registry can't be watched (${why}); trying again.`);
  if (state !== "live") age();
}

function age() {
  setText($("stale-age"), lastNews === null || $("stale").hidden ? "" : `${span(Date.now() - lastNews)} ago`);
}

// Once a second for what grows older by itself.
setInterval(() => {
  age();
  soon();
}, 1000);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  stream.hurry();
  soon();
});
addEventListener("online", () => stream.hurry());

// For screen readers: the newest change in words, and how many came with it, not each of a hundred.

let spokenAt = 0;
let unspoken = [];

function speak(before) {
  for (const event of model.events) {
    if (event === before) break;
    unspoken.unshift(event);
  }
  if (unspoken.length === 0) return;
  const wait = Math.max(0, spokenAt + SPEAK_EVERY - Date.now());
  spokenAt = Date.now() + wait;
  setTimeout(() => {
    if (unspoken.length === 0) return;
    const last = inWords(unspoken.at(-1));
    setText($("spoken"), unspoken.length === 1 ? last : `${count(unspoken.length, "change")}, the last: ${last}`);
    unspoken = [];
  }, wait);
}

// Operating.

const log = new LogTail(() => token);

function lock(on) {
  unlocked = !on;
  if (on) token = null;
  services.unlocked = unlocked;
  setText($("unlock"), unlocked ? "Lock" : "Unlock");
  $("unlock").setAttribute("aria-label", unlocked ? "Lock draining again" : "Unlock draining");
  log.restart();
  soon();
}

$("unlock").addEventListener("click", () => {
  if (unlocked) return lock(true);
  $("token").value = "";
  $("ask").showModal();
});
$("ask-cancel").addEventListener("click", () => $("ask").close());
$("ask-form").addEventListener("submit", (submit) => {
  submit.preventDefault();
  token = $("token").value.trim() || null;
  $("token").value = "";
  $("ask").close();
  lock(false);
});
$("find").addEventListener("input", () => {
  services.find = $("find").value;
  soon();
});

async function drain(one, on) {
  const path = [one.name, one.addr].map(encodeURIComponent).join("/");
  const what = `${one.name} ${one.addr}`;
  say(`${on ? "Draining" : "Undraining"} ${what} …`);
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(`/services/${path}/drain`, { method: on ? "PUT" : "DELETE", headers });
    if (response.status === 401) {
      lock(true);
      return say("The registry refused the token. Unlock with the right one.", true);
    }
    if (!response.ok) {
      const detail = await response.json().then((problem) => problem.detail, () => "");
      return say(`${what}: ${detail || `the registry answered ${response.status}`}`, true);
    }
    say(on ? `${what} gets no new requests.` : `${what} gets requests again.`);
  } catch (error) {
    say(`${what}: ${error.message}`, true);
  }
}

let saying = 0;

function say(text, bad = false) {
  const said = $("said");
  setText(said, text);
  said.classList.toggle("bad", bad);
  clearTimeout(saying);
  saying = setTimeout(() => setText(said, ""), bad ? 15_000 : 6000);
}

stream.start();
