// A stream as the page describes it, wherever it runs: in the page, or in the worker that all pages share.
//
// A description: { path, query, headers, cursors }. `cursors` is null, or a list of [instance, number] for streams
// whose ids are INSTANCE:NUMBER; then each instance has its own cursor, and a reconnect resumes after all of them.
// What happens is reported as plain values, which can be sent from the worker to a page.

import { Stream } from "./stream.js";

const MAX_CURSORS = 64;

export class Channel {
  #about;
  #cursors = null;
  #stream;

  constructor(about, report) {
    this.#about = about;
    if (about.cursors) this.#cursors = new Cursors(about.cursors);
    this.#stream = new Stream({
      url: () => this.#url(),
      headers: () => about.headers,
      open: (response) => report({ type: "open", date: response.headers.get("date"), at: Date.now() }),
      received: () => report({ type: "received" }),
      event: (name, data, id) => {
        if (this.#cursors) {
          this.#stream.lastId = "";
          this.#cursors.remember(id);
        }
        report({ type: "event", name, data, id });
      },
      lost: (why, status) => report({ type: "lost", why, status }),
    });
  }

  start() {
    this.#stream.start();
  }

  stop() {
    this.#stream.stop();
  }

  // Begins anew, as a page does that has just been opened.
  refresh() {
    this.#stream.lastId = "";
    this.#stream.restart();
  }

  retryNow() {
    this.#stream.retryNow();
  }

  #url() {
    const query = new URLSearchParams(this.#about.query);
    if (this.#cursors?.list.length) query.set("cursor", this.#cursors.list.map((pair) => pair.join(":")).join(","));
    return query.size ? `${this.#about.path}?${query}` : this.#about.path;
  }
}

// The last number of each instance, of those that sent something most recently.
export class Cursors {
  #last = new Map();

  constructor(list = []) {
    for (const [instance, number] of list) this.#last.set(instance, number);
  }

  get list() {
    return [...this.#last];
  }

  // Returns whether the id is new. Ids of another form are.
  remember(id) {
    const colon = id?.lastIndexOf(":") ?? -1;
    if (colon <= 0) return true;
    const [instance, number] = [id.slice(0, colon), Number(id.slice(colon + 1))];
    const known = this.#last.get(instance) ?? -1;
    if (number <= known) return false;
    this.#last.delete(instance);
    this.#last.set(instance, number);
    if (this.#last.size > MAX_CURSORS) this.#last.delete(this.#last.keys().next().value);
    return true;
  }
}
