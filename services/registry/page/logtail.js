// The log tail: the entries of all log instances as they are written, relayed by the registry.
//
// Only the last entries are kept, and they are drawn once per frame. Entries that were skipped are counted and shown
// as a gap. A hidden page follows nothing.

import { Cursors } from "./channel.js";
import { $, h, setText, timeOfDay, whole } from "./dom.js";
import { Subscription } from "./subscription.js";

const MAX_ENTRIES = 300;
const MAX_MESSAGE = 2000;
// The filter is applied this long after the last key press (ms).
const TYPING_PAUSE = 350;
// The stream is closed this long after the page was hidden (ms).
const HIDDEN_TIMEOUT = 10_000;
// How far back a newly opened page goes.
const SINCE = "30s";

export class LogTail {
  #list = $("log");
  #state = $("log-state");
  #filter = $("filter");
  #pause = $("pause");
  #stream;
  #cursors = new Cursors();
  #pending = [];
  #skipped = 0;
  #drawScheduled = false;
  #followsEnd = true;
  #paused = false;
  #timer = 0;

  // token() returns the operator's token, or null.
  constructor(token) {
    this.#stream = new Subscription(() => this.#about(token()), {
      open: () => this.#show("connected"),
      event: (type, data, id) => this.#receive(type, data, id),
      lost: (why, status) => this.#show(status === 401 ? "unlock to read the log" : status === 429 ? why : status === 200 ? "reconnecting" : `reconnecting: ${why}`),
    });
    this.#list.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.#list;
      this.#followsEnd = scrollHeight - scrollTop - clientHeight < 24;
    });
    this.#filter.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#refilter(), TYPING_PAUSE);
    });
    this.#pause.addEventListener("click", () => this.#setPaused(!this.#paused));
    let hiddenTimer = 0;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hiddenTimer);
      if (document.hidden) hiddenTimer = setTimeout(() => this.#stream.stop(), HIDDEN_TIMEOUT);
      else if (!this.#paused) this.#stream.start();
    });
    this.#stream.start();
  }

  // Reconnects, because the token has changed.
  restart() {
    if (!this.#paused) this.#stream.restart();
  }

  // The stream that the page wants. Windows with the same filter share it.
  #about(token) {
    const query = { since: SINCE };
    if (this.#filter.value) query.contains = this.#filter.value;
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const key = JSON.stringify(["log", query, headers]);
    return { key, replay: MAX_ENTRIES, path: "/log/tail", query, headers, cursors: this.#cursors.list };
  }

  #receive(type, data, id) {
    // Entries that another window has received already are replayed to this one, perhaps again.
    if (!this.#cursors.remember(id)) return;
    let value = null;
    try {
      value = JSON.parse(data);
    } catch {
      value = { msg: data };
    }
    if (type === "sources") {
      const { Open: open = 0, Known: known = 0 } = value;
      const number = open < known ? `${open} of ${known}` : String(known);
      this.#show(known === 0 ? "no log instances" : `following ${number} log instance${known === 1 ? "" : "s"}`);
      return;
    }
    if (type === "dropped") {
      this.#push({ gap: `${whole(value.dropped ?? value ?? 0)} entries were dropped: too many at once` });
      return;
    }
    if (type === "gap") {
      this.#push({ gap: `entries after ${value.after ?? "?"} are missing: another log instance answers now` });
      return;
    }
    if (type === "message") this.#push(value);
  }

  #push(entry) {
    this.#pending.push(entry);
    if (this.#pending.length > MAX_ENTRIES) {
      this.#pending.shift();
      this.#skipped += 1;
    }
    if (this.#drawScheduled) return;
    this.#drawScheduled = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawScheduled = false;
    const rows = this.#pending.map(row);
    if (this.#skipped) rows.unshift(gap(`${whole(this.#skipped)} entries were skipped: too many at once`));
    this.#pending = [];
    this.#skipped = 0;
    this.#list.append(...rows);
    while (this.#list.childElementCount > MAX_ENTRIES) this.#list.firstElementChild.remove();
    if (this.#followsEnd) this.#list.scrollTop = this.#list.scrollHeight;
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
    setText(this.#pause, on ? "Resume" : "Pause");
    if (on) {
      this.#stream.stop();
      this.#show("paused");
    } else {
      this.#stream.start();
    }
  }

  #show(text) {
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
    { "data-level": level || null, title: `stored by ${entry.instance ?? "?"}${entry.trace_id ? `, trace ${entry.trace_id}` : ""}` },
    h("time", {}, timeOfDay(at)),
    h("span", { class: "from" }, sender(entry), h("span", { class: "to" }, ` → ${entry.instance ?? "?"}`)),
    level ? h("span", { class: "level" }, level) : "",
    h("span", { class: "msg" }, message.length > MAX_MESSAGE ? `${message.slice(0, MAX_MESSAGE)}…` : message),
  );
}

// A member's name, or else the sender's address. A name that the sender gives itself is in quotes: it may be false.
function sender(entry) {
  const known = String(entry.source ?? entry.client ?? "–");
  return entry.claimed ? `${known} ${JSON.stringify(String(entry.claimed))}` : known;
}

function gap(text) {
  return h("li", { class: "gap" }, text);
}
