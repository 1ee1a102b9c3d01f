// The event list, newest first: changes of the catalogue, and the page's own connection.

import { $, h, timeOfDay } from "./dom.js";

const WORDS = {
  registered: "registered",
  replaced: "replaced by a new process",
  "missed-heartbeat": "missed a heartbeat",
  recovered: "recovered",
  removed: "removed",
  deregistered: "deregistered",
  "held-back": "suspect",
  restored: "restored from the snapshot file",
  draining: "draining",
  undrained: "no longer draining",
  "new-epoch": "restarted",
  disconnected: "disconnected",
  reconnected: "reconnected",
  "registry-joined": "joined",
  "registry-left": "left",
  "etcd-lost": "does not answer",
  "etcd-back": "answers again",
};
const PROBLEMS = new Set(["replaced", "missed-heartbeat", "removed", "held-back", "new-epoch", "disconnected", "registry-left", "etcd-lost"]);
const GOOD = new Set(["registered", "recovered", "undrained", "reconnected", "restored", "registry-joined", "etcd-back"]);

// One event as a sentence.
export function describe({ name, addr, kind, detail }) {
  return [name, addr, WORDS[kind] ?? kind, detail && `(${detail})`].filter(Boolean).join(" ");
}

export class Events {
  #list = $("events");
  #filter = $("event-filter");
  #shown = "";

  // onFilter() is called when the filter changes.
  constructor(onFilter) {
    this.#filter.addEventListener("change", onFilter);
  }

  update(events, now) {
    const shown = this.#filter.value === "problems" ? events.filter((event) => PROBLEMS.has(event.kind)) : events;
    const key = `${this.#filter.value} ${shown.length} ${shown[0]?.at} ${shown[0]?.kind} ${shown[0]?.addr}`;
    if (key === this.#shown) return;
    this.#shown = key;
    const rows = shown.map((event) => {
      const tone = PROBLEMS.has(event.kind) ? "bad" : GOOD.has(event.kind) ? "good" : "plain";
      return h(
        "li",
        { class: tone },
        h("time", { datetime: Number.isFinite(event.at) ? new Date(event.at).toISOString() : null }, timeOfDay(event.at, now)),
        h("span", { class: "what" }, h("b", {}, event.name), " ", h("span", { class: "addr" }, event.addr), event.addr ? " " : "", WORDS[event.kind] ?? event.kind),
        event.detail ? h("span", { class: "why" }, event.detail) : "",
      );
    });
    this.#list.replaceChildren(...(rows.length ? rows : [h("li", { class: "none" }, "No events yet.")]));
  }
}
