// The services as tables: one row per instance, with its share of requests as a bar.
//
// The scale of a bar puts the even share 1/n at the same place in all rows of a service: in the middle, or at the end
// if there is only one instance. The band around it contains a share with 95 % probability if every request goes to a
// random instance, so a bar that ends outside of it deserves a look.
//
// Rows are created once; then only what has changed is written.

import { count, h, percent, perSecond, removeFaded, setAttr, setStyle, setText, span, timeOfDay } from "./dom.js";

// A table with more rows scrolls.
const MAX_ROWS = 12;
// A share this many standard deviations off is highlighted. With 200 rows, chance alone causes that once in 80 times.
const MAX_DEVIATION = 4;
const byText = new Intl.Collator("en", { numeric: true });

export class Services {
  #root;
  #cards = new Map();
  #onDrain;
  #onHover;
  #unlocked = false;
  #query = "";

  // onDrain(instance, on) is called when the button of a row is pressed, onHover(instance or null) when the pointer
  // enters or leaves a row.
  constructor(root, onDrain, onHover) {
    this.#root = root;
    this.#onDrain = onDrain;
    this.#onHover = onHover;
  }

  set unlocked(on) {
    this.#unlocked = on;
    this.#root.classList.toggle("unlocked", on);
  }

  set find(text) {
    this.#query = text.trim().toLowerCase();
  }

  // `now` is the registry's time.
  update(model, spreads, now) {
    for (const [name, card] of this.#cards) {
      if (!model.services.has(name)) {
        removeFaded(card.root);
        this.#cards.delete(name);
      }
    }
    for (const [name, list] of model.services) {
      let card = this.#cards.get(name);
      if (!card) {
        card = new Card(name);
        this.#cards.set(name, card);
        insertSorted(this.#root, card.root, name);
      }
      this.#updateCard(card, name, [...list.values()], spreads.get(name), now);
    }
  }

  #updateCard(card, name, list, spread, now) {
    const abnormal = ["suspect", "draining"].map((state) => [list.filter((one) => one.state === state).length, state]);
    const parts = [list.length ? count(list.length, "instance") : "no instances"];
    for (const [number, state] of abnormal) if (number) parts.push(`${number} ${state}`);
    const rates = list.map((one) => spread.of.get(one.addr).rate).filter((rate) => rate !== null);
    if (rates.length) parts.push(`${perSecond(rates.reduce((sum, rate) => sum + rate, 0))} requests/s`);
    setText(card.facts, parts.join(" · "));
    card.root.classList.toggle("vacant", list.length === 0);
    card.root.classList.toggle("abnormal", abnormal.some(([number]) => number > 0));
    setText(card.caption, describe(spread, now));

    const matches = (one) => !this.#query || `${name} ${one.addr} ${one.id} ${one.state}`.toLowerCase().includes(this.#query);
    const seen = new Set();
    let shown = 0;
    for (const one of list) {
      seen.add(one.addr);
      let row = card.rows.get(one.addr);
      if (!row) {
        row = new Row(one, this.#onDrain, this.#onHover);
        card.rows.set(one.addr, row);
        insertSorted(card.body, row.root, one.addr);
      }
      const matched = matches(one);
      row.root.hidden = !matched;
      if (!matched) continue;
      shown += 1;
      row.update(one, spread, now, this.#unlocked);
    }
    for (const [addr, row] of card.rows) {
      if (seen.has(addr)) continue;
      removeFaded(row.root);
      card.rows.delete(addr);
    }
    card.root.hidden = this.#query !== "" && shown === 0 && !name.includes(this.#query);
    card.table.hidden = list.length === 0;
    card.scroll.classList.toggle("long", shown > MAX_ROWS);
    if (shown > MAX_ROWS) setAttr(card.scroll, "tabindex", "0");
    else card.scroll.removeAttribute("tabindex");
  }
}

class Card {
  rows = new Map();

  constructor(name) {
    this.facts = h("span", { class: "facts" });
    this.caption = h("caption");
    this.body = h("tbody");
    const column = (text, kind, title) => h("th", { scope: "col", class: kind, title }, text);
    this.table = h(
      "table",
      {},
      this.caption,
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          column("Instance", "who"),
          column("Share", "share", "Share of the service's requests. Line: the even share. Band: the range of 95 % of shares if instances are picked at random."),
          column("Req/s", "number rate", "Requests per second, over the last 10 s"),
          column("In flight", "number open", "Requests being served at the last heartbeat"),
          column("Heartbeat", "number heartbeat", "Time since the last answered heartbeat"),
          h("th", { scope: "col", class: "act" }, h("span", { class: "sr" }, "Actions")),
        ),
      ),
      this.body,
    );
    this.scroll = h("div", { class: "scroll", role: "group", "aria-label": `Instances of ${name}` }, this.table);
    this.root = h(
      "section",
      { class: "card panel", "data-key": name, "aria-label": `Service ${name}` },
      h("div", { class: "card-top" }, h("h3", {}, name), this.facts),
      this.scroll,
    );
  }
}

class Row {
  constructor(one, onDrain, onHover) {
    this.one = one;
    this.state = h("span", { class: "state" });
    this.addr = h("span", { class: "addr" }, one.addr);
    this.id = h("span", { class: "id" });
    this.fill = h("span", { class: "fill" });
    this.band = h("span", { class: "band" });
    this.tick = h("span", { class: "tick" });
    this.bar = h("span", { class: "bar", "aria-hidden": "true" }, this.band, this.fill, this.tick);
    this.share = h("span", { class: "percent" });
    this.rate = h("td", { class: "number rate" });
    this.open = h("td", { class: "number open" });
    this.heartbeat = h("td", { class: "number heartbeat" });
    this.button = h("button", { type: "button", class: "small" });
    this.button.addEventListener("click", () => onDrain(this.one, this.one.state !== "draining"));
    this.root = h(
      "tr",
      { "data-key": one.addr, class: "arriving" },
      h("th", { scope: "row", class: "who" }, h("span", { class: "who-in" }, h("span", { class: "names" }, this.addr, this.id), this.state)),
      h("td", { class: "share" }, h("span", { class: "share-in" }, this.bar, this.share)),
      this.rate,
      this.open,
      this.heartbeat,
      h("td", { class: "act" }, this.button),
    );
    this.root.addEventListener("pointerenter", () => onHover(this.one));
    this.root.addEventListener("pointerleave", () => onHover(null));
    this.root.addEventListener("animationend", () => this.root.classList.remove("arriving", "changed"));
  }

  update(one, spread, now, unlocked) {
    if (this.one.state !== one.state) this.root.classList.add("changed");
    this.one = one;
    setAttr(this.root, "data-state", one.state);
    setText(this.state, one.state);
    setText(this.id, one.id === one.addr ? "" : one.id);
    const { share, rate } = spread.of.get(one.addr);
    this.#shareOf(one, share, spread);
    setText(this.rate, perSecond(rate));
    setText(this.open, one.inFlight === null ? "–" : String(one.inFlight));
    setText(this.heartbeat, one.lastHeartbeat === null ? "–" : span(now - one.lastHeartbeat));
    if (!unlocked) return;
    const verb = one.state === "draining" ? "Undrain" : "Drain";
    setText(this.button, verb);
    setAttr(this.button, "aria-label", `${verb} ${one.name} ${one.addr}`);
  }

  #shareOf(one, share, { expected, sigma }) {
    const known = share !== null && expected !== null;
    this.bar.classList.toggle("unknown", !known);
    setText(this.share, known ? percent(share) : one.state === "draining" ? "none" : "–");
    if (!known) {
      setStyle(this.fill, "--part", "0");
      return;
    }
    const full = Math.min(1, 2 * expected);
    const within = (part) => Math.min(1, Math.max(0, part / full));
    const [low, high] = [within(expected - 2 * sigma), within(expected + 2 * sigma)];
    setStyle(this.fill, "--part", within(share).toFixed(4));
    setStyle(this.band, "--from", low.toFixed(4));
    setStyle(this.band, "--to", high.toFixed(4));
    setStyle(this.tick, "--at", within(expected).toFixed(4));
    this.bar.classList.toggle("alone", expected === 1);
    this.bar.classList.toggle("off", Math.abs(share - expected) > MAX_DEVIATION * sigma + 1e-9);
  }
}

// The content of the bars in words.
function describe({ since, total, expected, reporting, silent }, now) {
  if (expected === null) return "no instance takes requests";
  if (reporting === 0) return "requests unknown: no instance reports them";
  if (total === 0) return "no recent requests";
  const even = expected < 1 ? `; even share ${percent(expected)}${silent ? " among those that report" : ""}` : "";
  return `${count(total, "request")} since ${timeOfDay(since, now)}${even}`;
}

// Inserts a child in the order of the keys.
function insertSorted(parent, child, key) {
  let next = null;
  for (const other of parent.children) {
    if (byText.compare(other.dataset.key, key) > 0) {
      next = other;
      break;
    }
  }
  parent.insertBefore(child, next);
}
