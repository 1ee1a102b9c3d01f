// The drawing: the hub, a spoke to each service, and from there one to each instance.
//
// Services get sectors in proportion to their number of instances. Elements are placed by CSS transforms, so that the
// browser animates a new layout; a spoke is a line of length 1, rotated and scaled. The tables have the same content,
// and the drawing has a summary as its label.

import { count, perSecond, prefersReducedMotion, setAttr, setStyle, setText, svg } from "./dom.js";

const HUB = 47;
const SERVICE_RING = 128;
// With many services, every other one is placed further out.
const STAGGERED = [112, 156];
const INSTANCE_RING = 232;
const RING_STEP = 17;
// This part of the circle is divided evenly, so that each service has room for its name; the rest by instances.
const MIN_EVEN = 0.35;
const MAX_EVEN = 0.92;
const NAME_WIDTH = 90;
// With this many services there is room for names only.
const MANY = 9;
const MAX_STEP = (26 * Math.PI) / 180;
// With more instances there are no labels.
const MAX_LABELLED = 24;
// Distance between labels along the ring: on the sides, and above and below the hub.
const LABEL_HEIGHT = 19;
const LABEL_WIDTH = 50;
const MAX_NAME = 18;
// With more instances, heartbeats are not drawn.
const MAX_BEATING = 64;
const LABEL_SIZE = 13;
const byText = new Intl.Collator("en", { numeric: true });

export class Spokes {
  #root;
  #lines = svg("g");
  #nodes = svg("g");
  #hub;
  #hubNote;
  #services = new Map();
  #instances = new Map();
  #shape = "";
  #compact = false;
  #highlighted = null;

  constructor(root) {
    this.#root = root;
    this.#hubNote = svg("text", { class: "hub-note", y: 17 });
    this.#hub = svg("g", { class: "hub" }, svg("circle", { r: HUB }), svg("text", { y: -1 }, "registry"), this.#hubNote);
    root.append(this.#lines, this.#nodes, this.#hub);
    new ResizeObserver(([entry]) => {
      const compact = entry.contentRect.width < 460;
      if (compact !== this.#compact) {
        this.#compact = compact;
        this.#shape = "";
        root.classList.toggle("compact", compact);
        this.#redraw?.();
      }
    }).observe(root);
  }

  #redraw = null;

  update(model, spreads) {
    this.#redraw = () => this.update(model, spreads);
    const names = [...model.services.keys()].sort(byText.compare);
    const total = model.totals();
    const shape = names.map((name) => `${name}:${[...model.services.get(name).keys()].sort().join(",")}`).join(";");
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#layout(model, names, total.instances);
    }
    setText(this.#hubNote, count(total.instances, "instance"));
    for (const name of names) this.#paint(model.services.get(name), this.#services.get(name), spreads.get(name));
    const parts = names.map((name) => `${name} ${count(model.services.get(name).size, "instance")}`);
    setAttr(this.#root, "aria-label", names.length ? `The registry with ${count(names.length, "service")}: ${parts.join(", ")}.` : "No instances yet.");
  }

  // Shows an answered heartbeat of an instance.
  beat(one) {
    if (this.#instances.size > MAX_BEATING || document.hidden || prefersReducedMotion()) return;
    const item = this.#instances.get(key(one));
    item?.halo.animate([{ opacity: 0.5, transform: "scale(1)" }, { opacity: 0, transform: "scale(2.4)" }], { duration: 900, easing: "ease-out" });
  }

  highlight(one) {
    this.#highlighted?.group.classList.remove("highlighted");
    this.#highlighted = one ? (this.#instances.get(key(one)) ?? null) : null;
    this.#highlighted?.group.classList.add("highlighted");
  }

  #layout(model, names, total) {
    const many = names.length >= MANY;
    const even = Math.min(MAX_EVEN, Math.max(MIN_EVEN, (names.length * NAME_WIDTH) / (2 * Math.PI * SERVICE_RING)));
    const sectors = names.map((name) => {
      const list = [...model.services.get(name).values()].sort((a, b) => byText.compare(a.addr, b.addr));
      const width = 2 * Math.PI * (even / names.length + (1 - even) * (total ? list.length / total : 1 / names.length));
      return { name, list, width, step: Math.min(MAX_STEP, (width * 0.88) / Math.max(1, list.length)) };
    });
    const nearest = INSTANCE_RING * Math.min(MAX_STEP, ...sectors.filter((one) => one.list.length > 1).map((one) => one.step));
    const rings = Math.min(4, Math.max(1, Math.ceil(8 / nearest)));
    const size = Math.max(2, Math.min(9, nearest * 0.42 * (1 + (rings - 1) * 0.5)));
    const labelled = total <= MAX_LABELLED && !this.#compact;
    const half = INSTANCE_RING + (rings - 1) * RING_STEP + (labelled ? 34 : 20);
    const side = Math.max(half, labelled ? 350 : 290);
    setAttr(this.#root, "viewBox", `${-side} ${-half} ${2 * side} ${2 * half}`);

    const placed = new Set();
    let angle = -Math.PI / 2;
    sectors.forEach(({ name, list, width, step }, i) => {
      // The first service is at the top.
      const middle = i === 0 ? angle : angle + width / 2;
      angle = middle + width / 2;
      const item = this.#services.get(name) ?? this.#addService(name);
      const ring = many ? STAGGERED[i % 2] : SERVICE_RING;
      place(item, ring * Math.cos(middle), ring * Math.sin(middle));
      stretch(item, 0, 0, middle, ring);
      item.group.classList.toggle("many", many);
      const wide = Math.max(many ? 40 : 78, Math.min(name.length, MAX_NAME) * (this.#compact ? 11.5 : 7.8) + 20);
      setAttr(item.box, "width", String(wide));
      setAttr(item.box, "x", String(-wide / 2));
      const angles = list.map((_, k) => middle + (k - (list.length - 1) / 2) * step);
      const room = (at) => step * INSTANCE_RING >= (Math.abs(Math.cos(at)) < 0.6 ? LABEL_WIDTH : LABEL_HEIGHT);
      const label = labelled && (list.length < 2 || angles.every(room)) ? shortener(list) : () => "";
      list.forEach((one, k) => {
        placed.add(key(one));
        const radius = INSTANCE_RING + (k % rings) * RING_STEP;
        const node = this.#instances.get(key(one)) ?? this.#addInstance(one, item);
        const [x, y] = [radius * Math.cos(angles[k]), radius * Math.sin(angles[k])];
        place(node, x, y);
        stretch(node, item.x, item.y, Math.atan2(y - item.y, x - item.x), Math.hypot(x - item.x, y - item.y));
        setStyle(node.shape, "transform", `scale(${size.toFixed(2)})`);
        this.#label(node, label(one), angles[k], size);
      });
    });
    for (const [name, item] of this.#services) if (!model.services.has(name)) drop(this.#services, name, item);
    for (const [id, node] of this.#instances) if (!placed.has(id)) drop(this.#instances, id, node);
  }

  #addService(name) {
    const text = svg("text", { class: "name", y: -2 }, name.length > MAX_NAME ? `${name.slice(0, MAX_NAME - 1)}…` : name);
    const note = svg("text", { class: "note", y: 13 });
    const box = svg("rect", { y: -19, height: 38, rx: 10 });
    const item = { line: svg("line", { x2: 1, class: "spoke" }), group: svg("g", { class: "service" }, svg("title", {}, name), box, text, note), box, note, angle: null };
    this.#services.set(name, item);
    this.#lines.append(item.line);
    this.#nodes.append(item.group);
    return item;
  }

  #addInstance(one, parent) {
    const shape = svg("path");
    const halo = svg("circle", { class: "halo", r: 8, opacity: 0 });
    const title = svg("title");
    const group = svg("g", { class: "instance arriving" }, title, halo, shape);
    const node = { line: svg("line", { x2: 1, class: "spoke twig" }), group, shape, halo, title, label: null, angle: null };
    // It starts at its service, not in the corner.
    place(node, parent.x, parent.y);
    this.#instances.set(key(one), node);
    this.#lines.append(node.line);
    this.#nodes.append(group);
    group.getBoundingClientRect();
    return node;
  }

  #label(node, text, at, size) {
    if (!text) {
      node.label?.remove();
      node.label = null;
      return;
    }
    if (!node.label) {
      node.label = svg("text", { class: "label" });
      node.group.append(node.label);
    }
    const [cos, sin] = [Math.cos(at), Math.sin(at)];
    setText(node.label, text);
    setStyle(node.label, "text-anchor", cos > 0.3 ? "start" : cos < -0.3 ? "end" : "middle");
    setAttr(node.label, "x", (cos * (size + 6)).toFixed(1));
    setAttr(node.label, "y", (sin * (size + 8) + LABEL_SIZE * (0.35 + 0.3 * sin * (Math.abs(cos) > 0.3 ? 0 : 1))).toFixed(1));
  }

  #paint(list, item, spread) {
    let [rate, abnormal] = [0, false];
    for (const one of list.values()) {
      const node = this.#instances.get(key(one));
      const own = spread.of.get(one.addr);
      rate += own.rate ?? 0;
      abnormal ||= one.state !== "passing";
      setAttr(node.group, "data-state", one.state);
      setAttr(node.line, "data-state", one.state);
      setAttr(node.shape, "d", SHAPES[one.state]);
      const part = own.share !== null && spread.expected ? Math.min(2, own.share / spread.expected) : 0;
      setStyle(node.line, "stroke-width", own.rate ? (0.8 + (list.size > 20 ? 1.4 : 2.6) * part).toFixed(1) : "0.8");
      setText(node.title, `${one.name} ${one.addr}: ${one.state}, ${perSecond(own.rate)} requests/s`);
    }
    setStyle(item.line, "stroke-width", (1.2 + 1.6 * Math.log10(1 + rate)).toFixed(1));
    setText(item.note, list.size === 0 ? "none" : rate > 0 ? `${list.size} · ${short(rate)}/s` : String(list.size));
    item.group.classList.toggle("vacant", list.size === 0);
    item.group.classList.toggle("abnormal", abnormal);
  }
}

// A rate in about four characters.
function short(rate) {
  return rate < 999.5 ? perSecond(rate) : rate < 9950 ? `${(rate / 1000).toFixed(1)}k` : `${Math.round(rate / 1000)}k`;
}

// States differ in shape, not only in colour.
const SHAPES = {
  passing: "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1-1 0Z",
  draining: "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1-1 0Z",
  suspect: "M0-1.3 1.2.9H-1.2Z",
};

function key(one) {
  return `${one.name} ${one.addr}`;
}

function place(item, x, y) {
  item.x = x;
  item.y = y;
  setStyle(item.group, "transform", `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`);
}

// Rotates and scales a spoke, turning the shorter way.
function stretch(item, x, y, angle, length) {
  if (item.angle !== null) angle += 2 * Math.PI * Math.round((item.angle - angle) / (2 * Math.PI));
  item.angle = angle;
  setStyle(item.line, "transform", `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px) rotate(${angle.toFixed(4)}rad) scale(${length.toFixed(1)}, 1)`);
}

function drop(map, id, item) {
  map.delete(id);
  for (const element of [item.group, item.line]) {
    element.classList.add("leaving");
    setTimeout(() => element.remove(), prefersReducedMotion() ? 0 : 400);
  }
}

// Labels that distinguish the instances of one service: the port if they share a host, the host if they share a port.
function shortener(list) {
  const parts = list.map((one) => /^(.*):(\d+)$/.exec(one.addr));
  if (parts.some((part) => !part)) return (one) => one.addr;
  const [hosts, ports] = [1, 2].map((i) => new Set(parts.map((part) => part[i])));
  if (hosts.size === 1) return (one) => one.addr.slice(one.addr.lastIndexOf(":"));
  if (ports.size === 1) return (one) => one.addr.slice(0, one.addr.lastIndexOf(":"));
  return (one) => one.addr;
}
