// The registries that share the catalogue in etcd: which there are, which one the page asks, and whether etcd answers.
// Hidden if the registry is the only one.

import { $, count, h, setAttr, setText, span, timeOfDay } from "./dom.js";

export class Registries {
  #root = $("registries");
  #list = $("registry-list");
  #banner = $("etcd-lost");
  // Id → row
  #rows = new Map();

  // `registries` is the model's; `now` is the registry's time.
  update(registries, now) {
    this.#root.hidden = registries === null;
    this.#banner.hidden = registries === null || registries.etcdUp;
    if (registries === null) return;
    const { etcdUp, etcdSince, etcdError, list } = registries;
    setAttr($("etcd"), "data-state", etcdUp ? "up" : "down");
    setText($("etcd-text"), etcdUp ? "etcd answers" : `no answer from etcd for ${span(now - etcdSince)}`);
    if (!etcdUp) {
      const why = etcdError ? ` (${etcdError})` : "";
      setText(this.#banner, `etcd has not answered since ${timeOfDay(etcdSince, now)}${why}. No instance can join and none is removed until it does; everything else goes on.`);
    }
    for (const [id, row] of this.#rows) {
      if (list.some((one) => one.id === id)) continue;
      row.root.remove();
      this.#rows.delete(id);
    }
    list.forEach((one, index) => {
      let row = this.#rows.get(one.id);
      if (!row) {
        row = new Row(one);
        this.#rows.set(one.id, row);
      }
      if (this.#list.children[index] !== row.root) this.#list.insertBefore(row.root, this.#list.children[index] ?? null);
      row.update(one);
    });
  }
}

class Row {
  constructor(one) {
    this.asked = h("span", { class: "asked" }, "asked");
    this.load = h("span", { class: "note" });
    this.root = h("li", { "data-key": one.id }, h("span", { class: "addr" }, one.addr), this.asked, this.load);
  }

  update({ asked, instances, version }) {
    this.asked.hidden = !asked;
    setText(this.load, [`checks ${count(instances, "instance")}`, version].filter(Boolean).join(" · "));
  }
}
