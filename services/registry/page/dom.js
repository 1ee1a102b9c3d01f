// Small helpers. Untrusted content becomes text through these, never markup; the content security policy
// (require-trusted-types-for 'script') forbids markup from strings.

const SVG = "http://www.w3.org/2000/svg";

export function $(id) {
  return document.getElementById(id);
}

// An element with attributes and children; string children become text.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// The setters write only what has changed: an unchanged text costs no layout.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttr(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function setStyle(element, name, value) {
  if (element.style.getPropertyValue(name) !== value) element.style.setProperty(name, value);
}

export function prefersReducedMotion() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

// Removes an element after fading it out (see .leaving).
export function removeFaded(element) {
  if (prefersReducedMotion()) return element.remove();
  element.classList.add("leaving");
  setTimeout(() => element.remove(), 400);
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const today = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// The time of day, with the date unless it is today.
export function timeOfDay(millis, now = Date.now()) {
  if (!Number.isFinite(millis)) return "–";
  const at = clock.format(millis);
  return new Date(millis).toDateString() === new Date(now).toDateString() ? at : `${today.format(millis)} ${at}`;
}

// A duration, in its largest unit.
export function span(millis) {
  const seconds = Math.max(0, Math.floor(millis / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function percent(share) {
  return `${(share * 100).toFixed(1)} %`;
}

export function perSecond(rate) {
  if (rate === null) return "–";
  if (rate === 0) return "0";
  return rate < 9.95 ? rate.toFixed(1) : whole(rate);
}

const grouped = new Intl.NumberFormat("en");

export function whole(number) {
  return grouped.format(Math.round(number));
}

export function count(number, one, many = `${one}s`) {
  return `${whole(number)} ${number === 1 ? one : many}`;
}
