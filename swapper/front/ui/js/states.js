/* What a model's state is called, and its sign: a shape of its own for each, so that colour is not needed. */

import { s } from "./dom.js";
import { percent } from "./format.js";

const ROUND = 2 * Math.PI * 5;

/** The state in words. */
export function stateWords(model, failure) {
  if (model.state === "stopped") {
    if (model.waiting) return "waiting for room";
    return failure ? "failed" : "not loaded";
  }
  if (model.state === "starting") return `loading ${percent(model.progress)}`;
  if (model.state === "ready") return model.in_flight ? "answering" : "ready";
  return model.state;
}

/** The sign of a state; `progress` is drawn as an arc while it loads. */
export function glyph(state, progress = 0) {
  const svg = s("svg", { viewBox: "0 0 14 14", class: "glyph", "aria-hidden": "true", "data-state": state });
  svg.append(...(SHAPES[state] ?? SHAPES.stopped)(progress));
  return svg;
}

const ring = (given = {}) => s("circle", { cx: 7, cy: 7, r: 5, class: "stroke", ...given });
const disc = (given = {}) => s("circle", { cx: 7, cy: 7, r: 5.6, class: "fill", ...given });
const arc = (part) =>
  ring({
    class: "stroke strong",
    "stroke-dasharray": `${ROUND * part} ${ROUND}`,
    transform: "rotate(-90 7 7)",
  });

const SHAPES = {
  stopped: () => [ring({ class: "stroke faint" })],
  waiting: () => [ring({ class: "stroke", "stroke-dasharray": "2 2" })],
  starting: (progress) => [ring({ class: "stroke faint" }), arc(Math.max(0.06, progress))],
  waking: () => [ring({ class: "stroke faint" }), arc(0.5)],
  ready: () => [disc()],
  draining: () => [ring(), s("path", { d: "M7 1.4a5.6 5.6 0 0 0 0 11.2z", class: "fill" })],
  sleeping: () => [s("path", { d: "M9.4 1.9A5.6 5.6 0 1 0 12.3 9 4.6 4.6 0 0 1 9.4 1.9z", class: "fill" })],
  stopping: () => [ring({ "stroke-dasharray": "1 2.2" })],
  failed: () => [s("path", { d: "M3 3l8 8M11 3l-8 8", class: "stroke strong" })],
};
