// The event list: what the catalogue says of changes, and what the page itself noticed, newest first.

import { $, h, timeOfDay } from "./dom.js";

const SAID = {
  registered: "registered",
  replaced: "replaced by another start",
  "missed-heartbeat": "missed a heartbeat",
  recovered: "passing again",
  removed: "removed",
  deregistered: "deregistered",
  "held-back": "suspect, removal held back",
  restored: "restored from the snapshot file",
  draining: "draining",
  undrained: "no longer draining",
  "new-epoch": "has lost its state and begun anew",
  lost: "out of sight",
  found: "in sight again",
};
const TROUBLE = new Set(["replaced", "missed-heartbeat", "removed", "held-back", "new-epoch", "lost"]);
const GOOD = new Set(["registered", "recovered", "undrained", "found", "restored"]);

export function inWords({ name, addr, kind, detail }) {
  return [name, addr, SAID[kind] ?? kind, detail && `(${detail})`].filter(Boolean).join(" ");
}

export class Events {
  #list = $("events");
  #which = $("which");
  #shown = "";

  constructor(again) {
    this.#which.addEventListener("change", again);
  }

  update(events, now) {
    const wanted = this.#which.value === "trouble" ? events.filter((one) => TROUBLE.has(one.kind)) : events;
    const stamp = `${this.#which.value} ${wanted.length} ${wanted[0]?.at} ${wanted[0]?.kind} ${wanted[0]?.addr}`;
    if (stamp === this.#shown) return;
    this.#shown = stamp;
    const rows = wanted.map((one) => {
      const mood = TROUBLE.has(one.kind) ? "bad" : GOOD.has(one.kind) ? "good" : "plain";
      return h(
        "li",
        { class: mood },
        h("time", { datetime: Number.isFinite(one.at) ? new Date(one.at).toISOString() : null }, timeOfDay(one.at, now)),
        h("span", { class: "what" }, h("b", {}, one.name), " ", h("span", { class: "addr" }, one.addr), one.addr ? " " : "", SAID[one.kind] ?? one.kind),
        one.detail ? h("span", { class: "why" }, one.detail) : "",
      );
    });
    this.#list.replaceChildren(...(rows.length ? rows : [h("li", { class: "none" }, "Nothing yet.")]));
  }
}
