/* Where a request's time went, as a bar of its parts. */

import { h, setAttribute } from "../dom.js";
import { took } from "../format.js";

export const PARTS = [
  ["waiting", "waited"],
  ["loading", "model loaded"],
  ["first", "to the first byte"],
  ["streaming", "answer"],
];

/** As long as its seconds: of `--longest`, which whoever holds the bar sets. */
export function partsBar() {
  const element = h("span", { class: "request-bar", role: "img" });
  const update = (request) => {
    const parts = partsOf(request);
    setAttribute(element, "aria-label", parts.map((part) => `${part.words} ${took(part.seconds)}`).join(", ") || "no time");
    setAttribute(element, "title", element.getAttribute("aria-label"));
    element.replaceChildren(
      ...parts.map((part) => h("span", { class: "part", "data-part": part.kind, style: { "--seconds": part.seconds } })),
    );
  };
  return { element, update };
}

/** Seconds of each part; together they are the request's whole time. */
export function partsOf(request) {
  const queue = request.queue_s ?? 0;
  const loading = Math.min(queue, request.load_s ?? 0);
  const first = request.first_byte_s === null ? 0 : Math.max(0, request.first_byte_s - queue);
  const streaming = Math.max(0, request.total_s - queue - first);
  const seconds = { waiting: queue - loading, loading, first, streaming };
  return PARTS.map(([kind, words]) => ({ kind, words, seconds: seconds[kind] })).filter((part) => part.seconds > 0.0005);
}
