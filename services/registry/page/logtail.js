// The log tail: entries of all log instances as they come, through the registry.
//
// Only the last entries are kept, and whatever comes within a frame is drawn at once. What this page has not drawn,
// a pause included, it counts and says. A page out of sight follows nothing.

import { $, h, setText, timeOfDay, whole } from "./dom.js";
import { Stream } from "./stream.js";

const MOST = 300;
const LONGEST = 2000;
const MOST_CURSORS = 64;
const TYPING = 350;
const OUT_OF_SIGHT = 10_000;
// What a newly opened page shows of the past.
const SINCE = "30s";

export class LogTail {
  #list = $("log");
  #state = $("log-state");
  #filter = $("filter");
  #pause = $("pause");
  #stream;
  #cursors = new Map();
  #pending = [];
  #skipped = 0;
  #drawing = false;
  #stick = true;
  #paused = false;
  #timer = 0;

  // token() is the operator's token, or null.
  constructor(token) {
    this.#stream = new Stream({
      url: () => this.#url(),
      headers: () => (token() ? { Authorization: `Bearer ${token()}` } : {}),
      open: () => this.#say("connected"),
      event: (type, data, id) => this.#take(type, data, id),
      lost: (why, status) => this.#say(status === 401 ? "needs the registry's token: unlock" : status === 200 ? "reconnecting" : `reconnecting: ${why}`),
    });
    this.#list.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.#list;
      this.#stick = scrollHeight - scrollTop - clientHeight < 24;
    });
    this.#filter.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#refilter(), TYPING);
    });
    this.#pause.addEventListener("click", () => this.#setPaused(!this.#paused));
    let hiding = 0;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hiding);
      if (document.hidden) hiding = setTimeout(() => this.#stream.stop(), OUT_OF_SIGHT);
      else if (!this.#paused) this.#stream.start();
    });
    this.#stream.start();
  }

  // Connects anew: there is a token now, or none any more.
  restart() {
    if (!this.#paused) this.#stream.restart();
  }

  #url() {
    const query = new URLSearchParams({ since: SINCE });
    if (this.#filter.value) query.set("contains", this.#filter.value);
    if (this.#cursors.size) query.set("cursor", [...this.#cursors].map(([instance, seq]) => `${instance}:${seq}`).join(","));
    return `/log/tail?${query}`;
  }

  #take(type, data, id) {
    // Ids are INSTANCE:SEQ, of many instances: where to go on is kept for each, not as the stream's last id.
    this.#stream.lastId = "";
    const colon = id?.lastIndexOf(":") ?? -1;
    if (colon > 0) this.#remember(id.slice(0, colon), id.slice(colon + 1));
    let value = null;
    try {
      value = JSON.parse(data);
    } catch {
      value = { msg: data };
    }
    if (type === "sources") {
      const { Open: open = 0, Known: known = 0 } = value;
      const some = open < known ? `${open} of ${known}` : String(known);
      this.#say(known === 0 ? "no log instance" : `following ${some} log instance${known === 1 ? "" : "s"}`);
      return;
    }
    if (type === "dropped") {
      this.#push({ gap: `${whole(value.dropped ?? value ?? 0)} entries were not sent: too many at once` });
      return;
    }
    if (type === "message") this.#push(value);
  }

  // The instances heard last; those of long ago are gone.
  #remember(instance, seq) {
    this.#cursors.delete(instance);
    this.#cursors.set(instance, seq);
    if (this.#cursors.size > MOST_CURSORS) this.#cursors.delete(this.#cursors.keys().next().value);
  }

  #push(entry) {
    this.#pending.push(entry);
    if (this.#pending.length > MOST) {
      this.#pending.shift();
      this.#skipped += 1;
    }
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawing = false;
    const rows = this.#pending.map(row);
    if (this.#skipped) rows.unshift(gap(`${whole(this.#skipped)} entries are not shown: too many at once`));
    this.#pending = [];
    this.#skipped = 0;
    this.#list.append(...rows);
    while (this.#list.childElementCount > MOST) this.#list.firstElementChild.remove();
    if (this.#stick) this.#list.scrollTop = this.#list.scrollHeight;
  }

  #refilter() {
    const text = this.#filter.value;
    for (const item of [...this.#list.children]) {
      if (!item.classList.contains("gap") && !(item.querySelector(".msg")?.textContent ?? "").includes(text)) item.remove();
    }
    if (!this.#paused) this.#stream.restart();
  }

  #setPaused(on) {
    this.#paused = on;
    this.#pause.setAttribute("aria-pressed", String(on));
    setText(this.#pause, on ? "Go on" : "Pause");
    if (on) {
      this.#stream.stop();
      this.#say("paused");
    } else {
      this.#stream.start();
    }
  }

  #say(text) {
    setText(this.#state, text);
  }
}

function row(entry) {
  if (entry.gap) return gap(entry.gap);
  const message = String(entry.msg ?? "");
  const level = String(entry.level ?? "");
  const at = Date.parse(entry.ts ?? "");
  return h(
    "li",
    { "data-level": level || null, title: `taken by ${entry.instance ?? "?"}${entry.trace_id ? `, trace ${entry.trace_id}` : ""}` },
    h("time", {}, timeOfDay(at)),
    h("span", { class: "from" }, String(entry.source ?? "–"), h("span", { class: "to" }, ` → ${entry.instance ?? "?"}`)),
    level ? h("span", { class: "level" }, level) : "",
    h("span", { class: "msg" }, message.length > LONGEST ? `${message.slice(0, LONGEST)}…` : message),
  );
}

function gap(text) {
  return h("li", { class: "gap" }, text);
}
