/* The last ten minutes: a lane for each model, with what it was and who asked it; the decisions beneath. */

import { h, keyed, s, setAttribute, setText } from "../dom.js";
import { clock, count, left, took } from "../format.js";
import { WINDOW_S } from "../history.js";

const LANE = 40;
const LABEL = 15; // of a lane, for its name
const BAR = 12;
const AXIS = 18;
const SHOWN = 6;
const SCALES = [{ span_s: 120, tick_s: 30 }, { span_s: WINDOW_S, tick_s: 120 }];
const NAMES = { starting: "loading", waking: "waking" };

export function mountTimeline(section, store) {
  const svg = s("svg", { class: "lanes", role: "img" });
  const readout = h("p", { class: "readout muted" });
  const key = h("ul", { class: "legend timeline-key", "aria-label": "Signs" }, ...KEY.map(keyItem));
  const decisions = h("ol", { class: "decisions" });
  const more = h("button", { type: "button", class: "quiet", "aria-expanded": "false" }, "All decisions");
  const choice = h("div", { class: "choice", role: "group", "aria-label": "Time shown" });
  choice.append(...SCALES.map(({ span_s }) => spanButton(span_s, store)));
  section.querySelector("h2").after(choice);
  section.append(svg, readout, key, h("h3", { class: "sub" }, "Decisions"), decisions, more);

  let pointer = null;
  const render = () => {
    if (!store.snapshot) return;
    const lanes = store.snapshot.models.filter((model) => store.history.isActive(model.name));
    draw(svg, store, lanes);
    setText(readout, pointer ? told(svg, store, lanes, pointer) : quietWords(lanes));
    const isOpen = more.getAttribute("aria-expanded") === "true";
    const shown = store.decisions.slice(0, isOpen ? undefined : SHOWN);
    keyed(decisions, shown, (d) => `${d.at} ${d.model} ${d.action}`, decisionRow);
    more.hidden = store.decisions.length <= SHOWN;
  };
  svg.addEventListener("pointermove", (event) => {
    pointer = { x: event.offsetX, y: event.offsetY };
    render();
  });
  svg.addEventListener("pointerleave", () => {
    pointer = null;
    render();
  });
  more.addEventListener("click", () => {
    const isOpen = more.getAttribute("aria-expanded") !== "true";
    setAttribute(more, "aria-expanded", String(isOpen));
    setText(more, isOpen ? "Fewer decisions" : "All decisions");
    render();
  });
  new ResizeObserver(render).observe(section);
  store.subscribe(render);
}

const KEY = [
  ["starting", "loading"], ["ready", "ready"], ["busy", "answering"], ["draining", "finishing, to make room"],
  ["sleeping", "asleep"], ["waiting", "requests wait"], ["request", "a request"], ["failed", "a request failed"],
];

function spanButton(span_s, store) {
  const button = h("button", { type: "button", class: "quiet toggle" }, `${span_s / 60} min`);
  button.addEventListener("click", () => store.setSpan(span_s));
  store.subscribe(() => setAttribute(button, "aria-pressed", String(store.span_s === span_s)));
  return button;
}

function keyItem([kind, words]) {
  const sample = s("svg", { viewBox: "0 0 22 12", width: 22, height: 12, "aria-hidden": "true" });
  sample.append(...sampleOf(kind));
  return h("li", { "data-hue": "none" }, sample, words);
}

function sampleOf(kind) {
  if (kind === "waiting") return shapes(kind, 0, 8, 22, 12);
  if (kind === "request") return [s("rect", { x: 0, y: 5, width: 22, height: 3, class: "mark" })];
  if (kind === "failed") return [failure(11, 6)];
  return shapes(kind, 0, 0, 22, 12);
}

/* ---------------------------------------------------------------- drawing */

function draw(svg, store, lanes) {
  const width = Math.max(200, Math.floor(svg.parentElement.clientWidth));
  const height = Math.max(1, lanes.length) * LANE + AXIS;
  const { now } = store.snapshot;
  const { span_s } = store;
  const since = now - span_s;
  const x = (at) => Math.max(0, ((at - since) / span_s) * width);
  setAttribute(svg, "viewBox", `0 0 ${width} ${height}`);
  setAttribute(svg, "height", height);
  setAttribute(svg, "aria-label", summary(store, lanes));
  const drawn = [patterns(), ...axis(width, height, span_s)];
  lanes.forEach((model, index) => drawn.push(lane(store, model, index * LANE, { since, x, width })));
  svg.replaceChildren(...drawn);
}

function axis(width, height, span_s) {
  const { tick_s } = SCALES.find((scale) => scale.span_s === span_s);
  const step_s = width < 480 ? span_s / 2 : tick_s;
  const drawn = [];
  for (let ago = 0; ago <= span_s; ago += step_s) {
    const at = width - (ago / span_s) * width;
    const anchor = ago === 0 ? "end" : ago === span_s ? "start" : "middle";
    drawn.push(
      s("line", { x1: at, x2: at, y1: 0, y2: height - AXIS, class: "grid" }),
      s("text", { x: at, y: height - 4, "text-anchor": anchor, class: "tick" }, ago ? `−${left(ago).replace(" 00 s", "")}` : "now"),
    );
  }
  return drawn;
}

function lane(store, model, top, { since, x, width }) {
  const group = s("g", { "data-hue": store.hueOf(model.name) });
  const bar = top + LABEL + 3;
  group.append(
    s("line", { x1: 0, x2: width, y1: bar + BAR, y2: bar + BAR, class: "ground" }),
    s("text", { x: 0, y: top + LABEL - 3, class: "lane-name" }, model.name),
  );
  for (const span of store.history.spans.get(model.name) ?? []) {
    if (span.to < since) continue;
    const kind = span.state === "ready" && span.inFlight > 0 ? "busy" : span.state;
    const from = x(span.from);
    group.append(...shapes(kind, from, bar, Math.max(1, x(span.to) - from), BAR));
  }
  for (const wait of store.history.waits.get(model.name) ?? []) {
    if (wait.to < since) continue;
    group.append(...shapes("waiting", x(wait.from), bar, Math.max(2, x(wait.to) - x(wait.from)), BAR));
  }
  for (const request of store.history.requests) {
    if (request.model === model.name && request.at >= since) group.append(mark(request, x, bar + BAR));
  }
  return group;
}

function shapes(kind, x, y, width, height) {
  const rect = (given) => s("rect", { x, y, width, height, rx: Math.min(2, width / 2), ...given });
  switch (kind) {
    case "starting":
    case "waking":
      return [rect({ class: "span-pale" }), rect({ fill: "url(#hatch)" })];
    case "draining":
      return [rect({ class: "span-strong" }), rect({ fill: "url(#dots)" })];
    case "sleeping":
      return [rect({ class: "span-outline", y: y + 3, height: height - 6 })];
    case "stopping":
      return [rect({ class: "span-faint" })];
    case "waiting":
      return [s("line", { x1: x, x2: x + width, y1: y - 2, y2: y - 2, class: "span-waiting" })];
    case "busy":
      return [rect({ class: "span-strong" })];
    default:
      return [rect({ class: "span-pale" })];
  }
}

function mark(request, x, y) {
  const at = x(request.at);
  if (request.status >= 400) {
    return failure(at - 3, y + 4);
  }
  const from = x(request.at - request.total_s + (request.queue_s ?? 0));
  return s("rect", { x: from, y: y + 2, width: Math.max(1.5, at - from), height: 3, class: "mark" });
}

function failure(x, y) {
  return s("path", { d: `M${x - 2.5} ${y - 2.5}l5 5m0-5l-5 5`, class: "mark-failed" });
}

/** Drawn in the colour of the ground, over a bar of any colour. */
function patterns() {
  const square = (id, ...inner) =>
    s("pattern", { id, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, ...inner);
  return s(
    "defs", {},
    square("hatch", s("rect", { width: 2, height: 5, class: "pattern-ink" })),
    square("dots", s("rect", { width: 2, height: 2, class: "pattern-ink" })),
  );
}

/* ---------------------------------------------------------------- words */

function quietWords(lanes) {
  return lanes.length > 0 ? "Point at the lanes to read them." : "Nothing was loaded or asked in the last ten minutes.";
}

function told(svg, store, lanes, { x, y }) {
  const model = lanes[Math.floor(y / LANE)];
  const { span_s, snapshot: { now } } = store;
  const at = now - span_s + (x / svg.viewBox.baseVal.width) * span_s;
  if (!model) return clock(at);
  const covers = (span) => span.from - 0.5 <= at && at <= span.to + 0.5;
  const span = (store.history.spans.get(model.name) ?? []).find(covers);
  const words = [clock(at), model.name, span ? NAMES[span.state] ?? span.state : "not loaded"];
  if (span?.inFlight) words.push(`${span.inFlight} answered`);
  if ((store.history.waits.get(model.name) ?? []).some(covers)) words.push("requests wait");
  const near = store.history.requests.find(
    (request) => request.model === model.name && request.at - request.total_s <= at && at <= request.at + 1,
  );
  if (near) words.push(`request of ${took(near.total_s)}, status ${near.status}`);
  return words.join(" · ");
}

function summary(store, lanes) {
  const each = lanes.map((model) => {
    const asked = store.history.requests.filter((request) => request.model === model.name).length;
    const loads = (store.history.spans.get(model.name) ?? []).filter((span) => span.state === "starting").length;
    return `${model.name}: ${count(asked, "request")}, ${count(loads, "load")}`;
  });
  return `The last ${left(WINDOW_S)} by model. ${each.join("; ") || "Nothing happened."}`;
}

function decisionRow(decision) {
  const element = h(
    "li", {},
    h("time", { class: "number muted" }, clock(decision.at)),
    h("span", { class: "decision-action", "data-action": decision.action }, decision.action),
    h("span", { class: "decision-model" }, decision.model),
    h("span", { class: "decision-reason muted" }, decision.reason),
  );
  return { element, update() {} };
}
