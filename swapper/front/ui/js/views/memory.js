/* Memory: a bar for each device, a segment for each model on it, and the same in words beneath. */

import { h, keyed, setText } from "../dom.js";
import { bytes, percent } from "../format.js";

const KINDS = { starting: "loading", waking: "loading", sleeping: "sleeping" };

const NEGLIGIBLE = 0.002; // of a device: what was reserved and not yet corrected by what was measured

export function mountMemory(section, store) {
  const list = h("ul", { class: "devices" });
  const empty = h("p", { class: "note" }, "No device has a budget: models are limited by their number only.");
  section.append(list, empty);
  store.subscribe(() => {
    if (!store.snapshot) return;
    const devices = store.snapshot.devices.filter((device) => device.budget > 0);
    keyed(list, devices, (device) => device.name, () => deviceRow(store));
    empty.hidden = devices.length > 0;
  });
}

function deviceRow(store) {
  const name = h("h3", { class: "device-name" });
  const total = h("p", { class: "device-total number" });
  const bar = h("div", { class: "bar", "aria-hidden": "true" });
  const legend = h("ul", { class: "legend", "aria-label": "What is on it" });
  const element = h("li", { class: "device" }, name, total, bar, legend);
  const update = (device) => {
    const parts = partsOf(device, store);
    const free = parts.at(-1).size;
    setText(name, device.name === "host" ? "Host memory" : device.name);
    setText(total, `${bytes(free)} free of ${bytes(device.budget)}`);
    keyed(bar, parts, (part) => part.key, () => segment());
    keyed(legend, parts, (part) => part.key, () => legendItem());
  };
  return { element, update };
}

/** What lies on the device, in the order it is drawn; the free part is the last. */
function partsOf(device, store) {
  const parts = store.snapshot.models
    .filter((model) => model.worker !== null)
    .map((model) => ({
      key: `model ${model.name}`,
      label: model.name,
      kind: KINDS[model.state] ?? "resident",
      detail: model.state === "starting" ? `loading, ${percent(model.progress)}` : model.state,
      hue: store.hueOf(model.name),
      progress: model.state === "starting" ? model.progress : 1,
      size: model.measured[device.name] ?? model.reserved[device.name] ?? 0,
    }))
    .filter((part) => part.size > 0);
  const named = parts.reduce((sum, part) => sum + part.size, 0);
  const rest = Math.max(0, device.charged - named);
  const free = Math.max(0, device.budget - device.others - Math.max(named, device.charged));
  if (rest > device.budget * NEGLIGIBLE) parts.push({ key: "rest", label: "set aside", kind: "loading", detail: "", size: rest });
  const taken = device.others - device.lent;
  if (taken > 0) parts.push({ key: "others", label: "other programs", kind: "others", detail: "", size: taken });
  if (device.lent > 0) parts.push({ key: "lent", label: "lent", kind: "lent", detail: "", size: device.lent });
  parts.push({ key: "free", label: "free", kind: "free", detail: "", size: free });
  return parts;
}

function segment() {
  const done = h("span", { class: "segment-done" });
  const label = h("span", { class: "segment-label" });
  const element = h("div", { class: "segment" }, done, label);
  const update = (part) => {
    paint(element, part);
    element.style.setProperty("flex-grow", String(part.size));
    done.style.setProperty("inline-size", `${(part.progress ?? 1) * 100}%`);
    setText(label, part.kind === "free" ? "" : part.label);
  };
  return { element, update };
}

function legendItem() {
  const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
  const label = h("span", { class: "legend-label" });
  const detail = h("span", { class: "muted" });
  const element = h("li", {}, swatch, label, detail);
  const update = (part) => {
    paint(swatch, part);
    setText(label, part.label);
    setText(detail, [bytes(part.size), part.detail].filter(Boolean).join(", "));
  };
  return { element, update };
}

function paint(element, part) {
  element.dataset.kind = part.kind;
  if (part.hue === undefined) delete element.dataset.hue;
  else element.dataset.hue = part.hue;
}
