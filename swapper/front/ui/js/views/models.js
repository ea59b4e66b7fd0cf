/* Models: a line for each, with its state and what can be done about it. */

import { h, keyed, s, setAttribute, setText } from "../dom.js";
import { bytes, left, rate } from "../format.js";
import { glyph, stateWords } from "../states.js";

const MANY = 8; // models from which on a filter is of use
const HEADS = ["Model", "State", "Requests", "Memory", "Speed", "Unloads in", ""];

const KEEP = "Keep it loaded while nobody asks it, until its room is needed";
const PIN = "Pin: move it out for no other model";
const CAN_REST = ["ready", "draining"]; // states to go to sleep from

export function mountModels(section, store, api) {
  const filter = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter models by name" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const heads = h("div", { class: "models-head", "aria-hidden": "true" }, ...HEADS.map((text) => h("span", {}, text)));
  const list = h("ul", { class: "models-list" });
  section.querySelector("h2").after(filter);
  section.append(problem, h("div", { class: "models" }, heads, list));

  const act = async (action) => {
    problem.hidden = true;
    try {
      await action();
    } catch (error) {
      setText(problem, error.message);
      problem.hidden = false;
    }
  };
  const render = () => {
    if (!store.snapshot) return;
    const wanted = filter.value.trim().toLowerCase();
    const { models } = store.snapshot;
    filter.hidden = models.length <= MANY;
    const shown = models.filter((model) => `${model.name} ${model.aliases.join(" ")}`.toLowerCase().includes(wanted));
    keyed(list, shown, (model) => model.name, (model) => modelRow(model.name, store, api, act));
  };
  filter.addEventListener("input", render);
  store.subscribe(render);
}

function modelRow(name, store, api, act) {
  const id = `model-${crypto.randomUUID()}`;
  const about = h("span", { class: "muted model-about" });
  const sign = h("span", { class: "sign" });
  const words = h("span", { class: "state-words" });
  const why = h("p", { class: "why" });
  const requests = field("Requests");
  const memory = field("Memory");
  const speed = field("Speed");
  const expiry = field("Unloads in");
  const main = h("button", { type: "button", class: "quiet", "aria-describedby": id });
  const second = h("button", { type: "button", class: "quiet", "aria-describedby": id });
  const pin = h("button", { type: "button", class: "quiet toggle icon", "aria-label": "Pin", "aria-describedby": id, title: PIN }, pushpin());
  const keep = h("button", { type: "button", class: "quiet toggle", "aria-describedby": id, title: KEEP }, "Keep");
  const element = h(
    "li", { class: "model", "data-model": name },
    h("div", { class: "model-name" }, h("h3", { id }, name), about),
    h("div", { class: "model-state" }, sign, words),
    requests.element, memory.element, speed.element, expiry.element,
    h("div", { class: "model-actions" }, pin, keep, second, main),
    why,
  );

  let doing = ""; // what was asked for and is not done yet
  let pinAsked = null; // what was asked of the pin and is not told back yet
  let isDue = false; // its load was asked for, and there is no room yet
  const run = (word, action) => act(async () => {
    if (doing) return;
    doing = word;
    update(store.model(name));
    try {
      await action();
    } finally {
      doing = "";
      update(store.model(name));
    }
  });
  main.addEventListener("click", () => {
    const model = store.model(name);
    if (canLoad(model)) run("Loading", async () => {
      isDue = (await api.act(name, "load")).state === "stopped";
    });
    else run("Unloading", () => api.act(name, "unload"));
  });
  second.addEventListener("click", () => {
    if (store.model(name).state === "sleeping") run("Unloading", () => api.act(name, "unload"));
    else run("Falling asleep", () => api.act(name, "sleep"));
  });
  pin.addEventListener("click", () => act(async () => {
    pinAsked = !(pinAsked ?? store.model(name).pin);
    update(store.model(name));
    try {
      await api.act(name, pinAsked ? "pin" : "unpin");
    } catch (error) {
      pinAsked = null;
      throw error;
    }
  }));
  keep.addEventListener("click", () => {
    const { ttl_s } = store.model(name);
    const isKept = keep.getAttribute("aria-pressed") === "true";
    run("Keeping", () => api.post("api/generate", { model: name, keep_alive: isKept ? ttl_s : -1, stream: false }));
  });

  function update(model) {
    if (!model) return;
    isDue &&= model.state === "stopped";
    const failure = isDue ? null : store.failureOf(name);
    const state = stateOf(model, failure);
    element.dataset.state = state;
    element.dataset.hue = store.hueOf(name);
    if (model.pin === pinAsked) pinAsked = null;
    const isPinned = pinAsked ?? model.pin;
    setText(about, [model.engine, isPinned ? "pinned" : "", ...model.aliases].filter(Boolean).join(" · "));
    setAttribute(pin, "aria-pressed", String(isPinned));
    const mark = `${state} ${Math.round(model.progress * 50)}`;
    if (sign.dataset.mark !== mark) {
      sign.dataset.mark = mark;
      sign.replaceChildren(glyph(state, model.progress));
    }
    setText(words, isDue ? "load asked for" : stateWords(model, failure));
    setText(why, state === "failed" ? failure.reason : "");
    requests.set(requestWords(model));
    memory.set(memoryWords(model));
    speed.set(speedWords(store.history.rates.get(name), model));
    const isKept = model.worker !== null && model.stays_s === null;
    expiry.set(expiryWords(model, isKept));
    setText(main, doing ? `${doing}…` : canLoad(model) ? (model.state === "sleeping" ? "Wake" : "Load") : "Unload");
    main.classList.toggle("inviting", canLoad(model));
    setAttribute(main, "aria-disabled", doing || model.state === "stopping" ? "true" : null);
    const isAsleep = model.state === "sleeping";
    second.hidden = !isAsleep && !(model.can_sleep && CAN_REST.includes(model.state));
    setText(second, isAsleep ? "Unload" : "Sleep");
    setAttribute(second, "aria-disabled", doing ? "true" : null);
    keep.hidden = model.worker === null || model.ttl_s === 0;
    setAttribute(keep, "aria-pressed", String(isKept));
  }
  return { element, update };
}

function pushpin() {
  const icon = s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" });
  icon.append(s("path", { d: "M5.5 2h5l-.6 1v3.6l2.1 2.2v1H4v-1l2.1-2.2V3z" }), s("path", { d: "M8 9.8V14.5" }));
  return icon;
}

function field(label) {
  const value = h("span", { class: "number" });
  const element = h("div", { class: "field" }, h("span", { class: "field-label" }, label), value);
  const set = (text) => {
    setText(value, text || "–");
    element.classList.toggle("is-empty", !text);
  };
  return { element, set };
}

function canLoad(model) {
  return model.state === "stopped" || model.state === "sleeping" || model.state === "failed";
}

function stateOf(model, failure) {
  if (model.state !== "stopped") return model.state;
  if (model.waiting) return "waiting";
  return failure ? "failed" : "stopped";
}

function requestWords(model) {
  const parts = [];
  if (model.in_flight) parts.push(`${model.in_flight} in flight`);
  if (model.waiting) parts.push(`${model.waiting} waiting`);
  return parts.join(", ");
}

function memoryWords(model) {
  if (model.worker === null) return "";
  const held = Object.keys(model.measured).length > 0 ? model.measured : model.reserved;
  return Object.entries(held)
    .filter(([, size]) => size > 0)
    .map(([device, size]) => (device === "host" ? bytes(size) : `${bytes(size)} ${device}`))
    .join(" + ");
}

function speedWords(rates, model) {
  const last = rates?.at(-1);
  return last && model.in_flight && last.rate > 0 ? `${rate(last.rate)} tok/s` : "";
}

function expiryWords(model, isKept) {
  if (model.expires_in_s !== null) return left(model.expires_in_s);
  if (model.worker === null) return "";
  if (isKept) return model.ttl_s === 0 ? "never" : "kept";
  return "";
}
