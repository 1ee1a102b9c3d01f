// The services as tables: a row per instance, with its share of requests as a bar.
//
// A bar's scale puts the uniform expectation 1/n at the same place in all rows of a service: in the middle, or at
// the end where there is one instance only. The band around it is where a share lies 95 times in 100 if every
// request goes to a random instance, so a bar that ends outside of it is worth a look.
//
// Rows are made once and then only what changed in them is written.

import { count, h, leave, percent, perSecond, setAttr, setStyle, setText, span, timeOfDay } from "./dom.js";

const LONG = 12;
// Standard deviations beyond which a share is shown as odd: with 200 rows, chance alone does that once in 80 looks.
const ODD = 4;
const byText = new Intl.Collator("en", { numeric: true });

export class Services {
  #root;
  #cards = new Map();
  #onDrain;
  #onPoint;
  #unlocked = false;
  #find = "";

  // onDrain(instance, on) is asked when a row's button is pressed, onPoint(instance or null) when a row is pointed at.
  constructor(root, onDrain, onPoint) {
    this.#root = root;
    this.#onDrain = onDrain;
    this.#onPoint = onPoint;
  }

  set unlocked(on) {
    this.#unlocked = on;
    this.#root.classList.toggle("unlocked", on);
  }

  set find(text) {
    this.#find = text.trim().toLowerCase();
  }

  // `now` is the registry's time.
  update(model, spreads, now) {
    for (const [name, card] of this.#cards) {
      if (!model.services.has(name)) {
        leave(card.root);
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
      this.#card(card, name, [...list.values()], spreads.get(name), now);
    }
  }

  #card(card, name, list, spread, now) {
    const odd = ["suspect", "draining"].map((state) => [list.filter((one) => one.state === state).length, state]);
    const parts = [list.length ? count(list.length, "instance") : "no instance"];
    for (const [number, state] of odd) if (number) parts.push(`${number} ${state}`);
    const rates = list.map((one) => spread.of.get(one.addr).rate).filter((rate) => rate !== null);
    if (rates.length) parts.push(`${perSecond(rates.reduce((sum, rate) => sum + rate, 0))} requests/s`);
    setText(card.facts, parts.join(" · "));
    card.root.classList.toggle("vacant", list.length === 0);
    card.root.classList.toggle("odd", odd.some(([number]) => number > 0));
    setText(card.caption, said(spread, now));

    const matches = (one) => !this.#find || `${name} ${one.addr} ${one.id} ${one.state}`.toLowerCase().includes(this.#find);
    const seen = new Set();
    let shown = 0;
    for (const one of list) {
      seen.add(one.addr);
      let row = card.rows.get(one.addr);
      if (!row) {
        row = new Row(one, this.#onDrain, this.#onPoint);
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
      leave(row.root);
      card.rows.delete(addr);
    }
    card.root.hidden = this.#find !== "" && shown === 0 && !name.includes(this.#find);
    card.table.hidden = list.length === 0;
    card.scroll.classList.toggle("long", shown > LONG);
    if (shown > LONG) setAttr(card.scroll, "tabindex", "0");
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
          column("Share", "share", "Share of the service's requests. Line: the even share. Band: where 95 of 100 shares lie by chance."),
          column("Req/s", "number rate", "Requests per second, over the last 10 s"),
          column("In flight", "number open", "Requests being served at the last heartbeat"),
          column("Heard", "number heard", "Time since the last heartbeat was answered"),
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
  constructor(one, onDrain, onPoint) {
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
    this.heard = h("td", { class: "number heard" });
    this.button = h("button", { type: "button", class: "small" });
    this.button.addEventListener("click", () => onDrain(this.one, this.one.state !== "draining"));
    this.root = h(
      "tr",
      { "data-key": one.addr, class: "arriving" },
      h("th", { scope: "row", class: "who" }, h("span", { class: "who-in" }, h("span", { class: "names" }, this.addr, this.id), this.state)),
      h("td", { class: "share" }, h("span", { class: "share-in" }, this.bar, this.share)),
      this.rate,
      this.open,
      this.heard,
      h("td", { class: "act" }, this.button),
    );
    this.root.addEventListener("pointerenter", () => onPoint(this.one));
    this.root.addEventListener("pointerleave", () => onPoint(null));
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
    setText(this.heard, one.lastHeartbeat === null ? "–" : span(now - one.lastHeartbeat));
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
    this.bar.classList.toggle("off", Math.abs(share - expected) > ODD * sigma + 1e-9);
  }
}

// What the bars show, in words.
function said({ since, total, expected, silent }, now) {
  if (expected === null) return "no instance takes requests";
  if (total === 0) return "no requests of late";
  const even = expected < 1 ? `; even share ${percent(expected)}${silent ? " among those that tell" : ""}` : "";
  return `${count(total, "request")} since ${timeOfDay(since, now)}${even}`;
}

// Keeps children in the order of their keys.
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
