/* Recent requests: where the time of each went, as a bar of its parts. */

import { h, keyed, setAttribute, setText } from "../dom.js";
import { bytes, clock, count, took } from "../format.js";
import { partsBar, PARTS } from "./parts.js";

const SHOWN = 8;

export function mountRequests(section, store, api, inspector) {
  const key = h("ul", { class: "legend", "aria-label": "Parts of a bar" }, ...PARTS.map(keyItem));
  const list = h("ol", { class: "requests", reversed: true });
  const empty = h("p", { class: "note" }, "Nobody has asked anything yet.");
  const more = h("button", { type: "button", class: "quiet", "aria-expanded": "false" }, "All requests");
  const forget = h("button", { type: "button", class: "quiet" }, "Forget them");
  const kept = h("span", {});
  const capture = h("p", { class: "note capture", hidden: true }, kept, forget);
  section.append(key, list, empty, more, capture);

  const render = () => {
    if (!store.snapshot) return;
    const all = store.snapshot.requests.toSorted((a, b) => arrivedAt(b) - arrivedAt(a));
    const isOpen = more.getAttribute("aria-expanded") === "true";
    const shown = isOpen ? all : all.slice(0, SHOWN);
    const longest = Math.max(0.001, ...shown.map((request) => request.total_s));
    keyed(list, shown, ({ number, at }) => `${number} ${at}`, () => requestRow(inspector));
    for (const row of list.children) row.style.setProperty("--longest", longest);
    empty.hidden = all.length > 0;
    key.hidden = all.length === 0;
    more.hidden = all.length <= SHOWN;
    showCapture(store.snapshot.capture);
  };
  const showCapture = (told) => {
    capture.hidden = told === null;
    if (told === null) return;
    const most = `of ${told.most_requests}, ${bytes(told.bytes)} of ${bytes(told.most_bytes)}`;
    setText(kept, `What is said is kept in the server's memory: ${count(told.requests, "request")} ${most}.`);
    forget.hidden = told.requests === 0;
  };
  forget.addEventListener("click", async () => {
    try {
      await api.json("swapper/v1/requests", { method: "DELETE" });
    } catch (error) {
      setText(kept, error.message);
    }
  });
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

function requestRow(inspector) {
  const time = h("time", { class: "number muted" });
  const model = h("button", { type: "button", class: "request-model", "aria-haspopup": "dialog" });
  const route = h("span", { class: "muted request-route" });
  const status = h("span", { class: "number request-status" });
  const bar = partsBar();
  const tokens = h("span", { class: "number muted request-tokens" });
  const total = h("span", { class: "number request-total" });
  const error = h("span", { class: "why" });
  const element = h("li", {}, time, model, route, status, bar.element, tokens, total, error);
  const update = (request) => {
    if (element.dataset.isDone) return; // what is over does not change
    element.dataset.isDone = "yes";
    element.dataset.number = request.number;
    model.addEventListener("click", () => inspector.open(request));
    bar.update(request);
    setText(time, clock(arrivedAt(request)));
    setText(model, request.model ?? "no model");
    setText(route, request.route);
    setText(status, String(request.status));
    setText(tokens, answerWords(request));
    setText(total, took(request.total_s));
    setText(error, request.error ?? "");
    element.classList.toggle("is-failed", request.status >= 400);
  };
  return { element, update };
}

/** What an answer says of itself, where it was kept: 35 tok · stop. */
function answerWords({ answer_tokens: tokens, finish }) {
  return [tokens === null ? null : `${tokens} tok`, finish].filter(Boolean).join(" · ");
}
