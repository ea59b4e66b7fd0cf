/* Recent requests: where the time of each went, as a bar of its parts. */

import { h, keyed, setAttribute, setText } from "../dom.js";
import { clock, took } from "../format.js";

const SHOWN = 8;
const PARTS = [
  ["waiting", "waited"],
  ["loading", "model loaded"],
  ["first", "to the first byte"],
  ["streaming", "answer"],
];

export function mountRequests(section, store) {
  const key = h("ul", { class: "legend", "aria-label": "Parts of a bar" }, ...PARTS.map(keyItem));
  const list = h("ol", { class: "requests", reversed: true });
  const empty = h("p", { class: "note" }, "Nobody has asked anything yet.");
  const more = h("button", { type: "button", class: "quiet", "aria-expanded": "false" }, "All requests");
  section.append(key, list, empty, more);

  const render = () => {
    if (!store.snapshot) return;
    const all = store.snapshot.requests.toSorted((a, b) => arrivedAt(b) - arrivedAt(a));
    const isOpen = more.getAttribute("aria-expanded") === "true";
    const shown = isOpen ? all : all.slice(0, SHOWN);
    const longest = Math.max(0.001, ...shown.map((request) => request.total_s));
    keyed(list, shown, (request) => `${request.at} ${request.model}`, requestRow);
    for (const row of list.children) row.style.setProperty("--longest", longest);
    empty.hidden = all.length > 0;
    key.hidden = all.length === 0;
    more.hidden = all.length <= SHOWN;
  };
  more.addEventListener("click", () => {
    const isOpen = more.getAttribute("aria-expanded") !== "true";
    setAttribute(more, "aria-expanded", String(isOpen));
    setText(more, isOpen ? "Fewer requests" : "All requests");
    render();
  });
  store.subscribe(render);
}

function arrivedAt(request) {
  return request.at - request.total_s;
}

function keyItem([kind, words]) {
  return h("li", {}, h("span", { class: "swatch part", "data-part": kind, "aria-hidden": "true" }), words);
}

function requestRow() {
  const time = h("time", { class: "number muted" });
  const model = h("span", { class: "request-model" });
  const route = h("span", { class: "muted request-route" });
  const status = h("span", { class: "number request-status" });
  const bar = h("span", { class: "request-bar", role: "img" });
  const total = h("span", { class: "number request-total" });
  const error = h("span", { class: "why" });
  const element = h("li", {}, time, model, route, status, bar, total, error);
  const update = (request) => {
    if (element.dataset.isDone) return; // what is over does not change
    element.dataset.isDone = "yes";
    const parts = partsOf(request);
    setText(time, clock(arrivedAt(request)));
    setText(model, request.model ?? "no model");
    setText(route, request.route);
    setText(status, String(request.status));
    setText(total, took(request.total_s));
    setText(error, request.error ?? "");
    element.classList.toggle("is-failed", request.status >= 400);
    setAttribute(bar, "aria-label", parts.map((part) => `${part.words} ${took(part.seconds)}`).join(", "));
    setAttribute(bar, "title", bar.getAttribute("aria-label"));
    bar.replaceChildren(
      ...parts.map((part) => h("span", { class: "part", "data-part": part.kind, style: { "--seconds": part.seconds } })),
    );
  };
  return { element, update };
}

/** Seconds of each part; together they are the request's whole time. */
function partsOf(request) {
  const queue = request.queue_s ?? 0;
  const loading = Math.min(queue, request.load_s ?? 0);
  const first = request.first_byte_s === null ? 0 : Math.max(0, request.first_byte_s - queue);
  const streaming = Math.max(0, request.total_s - queue - first);
  const seconds = { waiting: queue - loading, loading, first, streaming };
  return PARTS.map(([kind, words]) => ({ kind, words, seconds: seconds[kind] })).filter((part) => part.seconds > 0.0005);
}
