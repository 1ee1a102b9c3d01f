// A page's subscription to a stream, which all pages of the browser share through a worker. A browser without shared
// workers opens the stream for the page alone.

import { Channel } from "./channel.js";

const WORKER = "/page/worker.js";
const PING_INTERVAL = 15_000;

export class Subscription {
  #about;
  #handlers;
  #id = 0;
  // Where there is no worker.
  #channel = null;

  // about() returns { key, replay, path, query, headers, cursors }, see channel.js and worker.js. Handlers: open({ date,
  // at }), received(), event(type, data, id), lost(why, status).
  constructor(about, handlers) {
    this.#about = about;
    this.#handlers = handlers;
  }

  get running() {
    return this.#id !== 0 || this.#channel !== null;
  }

  start() {
    if (this.running) return;
    if (connect()) {
      this.#id = nextId++;
      subscriptions.set(this.#id, this);
      this.open();
      return;
    }
    this.#channel = new Channel(this.#about(), (report) => this.receive(report));
    this.#channel.start();
  }

  stop() {
    if (this.#id !== 0) {
      subscriptions.delete(this.#id);
      port?.postMessage({ op: "close", id: this.#id });
      this.#id = 0;
    }
    this.#channel?.stop();
    this.#channel = null;
  }

  restart() {
    this.stop();
    this.start();
  }

  // Ends the pause before the next attempt.
  retryNow() {
    if (this.#id !== 0) port?.postMessage({ op: "wake", id: this.#id });
    this.#channel?.retryNow();
  }

  // Asks the worker for the stream.
  open() {
    const { key, replay, ...about } = this.#about();
    port.postMessage({ op: "open", id: this.#id, key, replay, about });
  }

  receive(report) {
    if (report.type === "open") this.#handlers.open?.(report);
    else if (report.type === "received") this.#handlers.received?.();
    else if (report.type === "event") this.#handlers.event(report.name, report.data, report.id);
    else if (report.type === "lost") this.#handlers.lost(report.why, report.status);
  }
}

let nextId = 1;
const subscriptions = new Map();
// The worker's port; null if there is none.
let port;

// Whether there is a worker.
function connect() {
  if (port !== undefined) return port !== null;
  port = null;
  if (typeof SharedWorker === "undefined") return false;
  try {
    // Trusted types: this is the only script URL that the page makes.
    const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: () => WORKER });
    const worker = new SharedWorker(policy?.createScriptURL("") ?? WORKER, { type: "module", name: "streams-1" });
    worker.onerror = withoutWorker;
    port = worker.port;
  } catch {
    return false;
  }
  port.onmessage = ({ data }) => {
    if (data.type === "forgotten") for (const one of subscriptions.values()) one.open();
    else subscriptions.get(data.to)?.receive(data);
  };
  setInterval(() => port?.postMessage({ op: "ping" }), PING_INTERVAL);
  // A page may be kept and shown again when the user goes back to it.
  addEventListener("pagehide", () => port?.postMessage({ op: "bye" }));
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) for (const one of subscriptions.values()) one.open();
  });
  return true;
}

// The worker's script can't be loaded: each page opens its own streams.
function withoutWorker() {
  port = null;
  const waiting = [...subscriptions.values()];
  for (const one of waiting) one.restart();
}
