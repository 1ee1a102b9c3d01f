// A shared worker: holds the streams of all pages of this browser, because a browser opens only six connections to a
// host. Pages that want the same stream share one.
//
// From a page: { op: "open", id, key, replay, about }, { op: "close", id }, { op: "wake", id }, { op: "ping" },
// { op: "bye" }. To a page: what channel.js reports, with `to` = id, and { type: "forgotten" } to one that was silent for so
// long that it was taken for closed.

import { Channel } from "./channel.js";

// Most streams at once; other requests of the pages need connections, too.
const MAX_STREAMS = 4;
// A page that is silent for this long was closed without a word (ms). Pages send a ping every 15 s.
const SILENCE_TIMEOUT = 90_000;
const CHECK_INTERVAL = 15_000;

// Key → Shared
const streams = new Map();
// Port → { heard, open: Map of id → Shared or, while it waits for a free stream, its "open" message }
const pages = new Map();

// One stream and the pages that read it. With `replay`, its last events are kept for pages that join, otherwise the
// stream begins anew for all of them.
class Shared {
  readers = new Set();
  #key;
  #replay;
  #channel;
  #opened = null;
  #recent = [];
  // The last event that says which log instances are followed.
  #sources = null;

  constructor({ key, replay, about }) {
    this.#key = key;
    this.#replay = replay;
    this.#channel = new Channel(about, (report) => {
      this.#keep(report);
      for (const reader of this.readers) reader.port.postMessage({ ...report, to: reader.id });
    });
  }

  join(port, id) {
    const reader = { port, id };
    const first = this.readers.size === 0;
    this.readers.add(reader);
    if (first) return this.#channel.start();
    if (!this.#replay) return this.#channel.refresh();
    for (const report of [this.#opened, this.#sources, ...this.#recent]) if (report) port.postMessage({ ...report, to: id });
  }

  leave(port, id) {
    for (const reader of this.readers) if (reader.port === port && reader.id === id) this.readers.delete(reader);
    if (this.readers.size > 0) return;
    this.#channel.stop();
    streams.delete(this.#key);
  }

  wake() {
    this.#channel.retryNow();
  }

  #keep(report) {
    if (!this.#replay) return;
    if (report.type === "open") this.#opened = report;
    if (report.type === "lost") this.#opened = null;
    if (report.type !== "event") return;
    if (report.name === "sources") this.#sources = report;
    else this.#recent.push(report);
    if (this.#recent.length > this.#replay) this.#recent.shift();
  }
}

function open(port, page, message) {
  close(port, page, message.id);
  let shared = streams.get(message.key);
  if (!shared && streams.size >= MAX_STREAMS) {
    page.open.set(message.id, message);
    return port.postMessage({ type: "lost", why: "not shown: too many other windows with other filters", status: 429, to: message.id });
  }
  if (!shared) {
    shared = new Shared(message);
    streams.set(message.key, shared);
  }
  page.open.set(message.id, shared);
  shared.join(port, message.id);
}

function close(port, page, id) {
  const shared = page.open.get(id);
  page.open.delete(id);
  if (shared instanceof Shared) shared.leave(port, id);
}

function forget(port, page) {
  for (const id of [...page.open.keys()]) close(port, page, id);
  pages.delete(port);
}

// Opens those that wait, if there is room now.
function openWaiting() {
  for (const [port, page] of pages) {
    for (const message of [...page.open.values()]) {
      if (!(message instanceof Shared) && (streams.size < MAX_STREAMS || streams.has(message.key))) open(port, page, message);
    }
  }
}

function receive(port, message) {
  let page = pages.get(port);
  if (!page) {
    page = { heard: 0, open: new Map() };
    pages.set(port, page);
    port.postMessage({ type: "forgotten" });
  }
  page.heard = Date.now();
  if (message.op === "open") open(port, page, message);
  else if (message.op === "close") close(port, page, message.id);
  else if (message.op === "bye") for (const id of [...page.open.keys()]) close(port, page, id);
  else if (message.op === "wake") page.open.get(message.id)?.wake?.();
  openWaiting();
}

addEventListener("connect", ({ ports: [port] }) => {
  pages.set(port, { heard: Date.now(), open: new Map() });
  port.onmessage = ({ data }) => receive(port, data);
});

setInterval(() => {
  for (const [port, page] of [...pages]) if (Date.now() - page.heard > SILENCE_TIMEOUT) forget(port, page);
  openWaiting();
}, CHECK_INTERVAL);
