/* Speed: for each model its tokens per second and its times to first byte, one beside the other. */

import { h, keyed, s, setAttribute, setText } from "../dom.js";
import { rate, took } from "../format.js";

const HEIGHT = 34;

export function mountSpeed(section, store) {
  const list = h("ul", { class: "speeds" });
  const empty = h("p", { class: "note" }, "Plots appear with the first answer.");
  section.append(list, empty);
  const render = () => {
    if (!store.snapshot) return;
    const shown = store.snapshot.models.filter((model) => hasNews(store, model.name));
    keyed(list, shown, (model) => model.name, () => speedRow(store));
    empty.hidden = shown.length > 0;
  };
  new ResizeObserver(render).observe(section);
  store.subscribe(render);
}

function hasNews({ history }, name) {
  return (
    (history.rates.get(name) ?? []).some((sample) => sample.rate > 0) ||
    history.requests.some((request) => request.model === name && request.first_byte_s !== null)
  );
}

function speedRow(store) {
  const name = h("h3", {});
  const tokens = plot("tokens per second");
  const first = plot("to the first byte");
  const element = h("li", { class: "speed" }, name, tokens.element, first.element);
  const update = (model) => {
    setText(name, model.name);
    element.dataset.hue = store.hueOf(model.name);
    const { span_s } = store;
    const since = store.snapshot.now - span_s;
    const rates = (store.history.rates.get(model.name) ?? []).filter((sample) => sample.at >= since);
    drawRates(tokens, rates, { since, span_s });
    const requests = store.history.requests.filter(
      (request) => request.model === model.name && request.first_byte_s !== null && request.at >= since,
    );
    drawFirst(first, requests, { since, span_s });
  };
  return { element, update };
}

function plot(words) {
  const value = h("b", { class: "number" });
  const detail = h("span", { class: "muted" });
  const svg = s("svg", { class: "plot", height: HEIGHT, role: "img" });
  const element = h("figure", {}, h("figcaption", {}, value, ` ${words} `, detail), svg);
  return { element, svg, value, detail };
}

function drawRates({ svg, value, detail }, samples, scale) {
  const { width, x } = fitted(svg, scale);
  const most = Math.max(0, ...samples.map((sample) => sample.rate));
  const top = most || 1;
  const y = (perSecond) => HEIGHT - 1 - (perSecond / top) * (HEIGHT - 6);
  const points = samples.map((sample) => `${x(sample.at).toFixed(1)},${y(sample.rate).toFixed(1)}`);
  const lowest = HEIGHT - 1;
  const drawn = [s("line", { x1: 0, x2: width, y1: lowest, y2: lowest, class: "ground" })];
  if (points.length > 1) {
    const [start, end] = [x(samples[0].at), x(samples.at(-1).at)];
    drawn.push(
      s("polygon", { points: `${start},${lowest} ${points.join(" ")} ${end},${lowest}`, class: "plot-area" }),
      s("polyline", { points: points.join(" "), class: "plot-line" }),
    );
  }
  svg.replaceChildren(...drawn);
  const last = samples.length > 0 ? rate(samples.at(-1).rate) : "–";
  setText(value, last);
  setText(detail, most > 0 ? `at most ${rate(most)}` : "");
  setAttribute(svg, "aria-label", `${last} tokens per second now, at most ${rate(most)}`);
}

function drawFirst({ svg, value, detail }, requests, scale) {
  const { width, x } = fitted(svg, scale);
  const times = requests.map((request) => request.first_byte_s);
  const top = Math.max(0.001, ...times);
  const lowest = HEIGHT - 1;
  const drawn = [s("line", { x1: 0, x2: width, y1: lowest, y2: lowest, class: "ground" })];
  for (const request of requests) {
    const at = Math.min(width - 2.5, Math.max(2.5, x(request.at - request.total_s + request.first_byte_s)));
    const y = lowest - (request.first_byte_s / top) * (HEIGHT - 6);
    drawn.push(s("line", { x1: at, x2: at, y1: lowest, y2: y, class: "plot-stem" }));
    drawn.push(s("circle", { cx: at, cy: y, r: 2.2, class: "plot-dot" }));
  }
  svg.replaceChildren(...drawn);
  setText(value, times.length ? took(times.at(-1)) : "–");
  setText(detail, times.length ? `median ${took(median(times))}` : "");
  setAttribute(svg, "aria-label", times.length ? `${times.length} requests, median ${took(median(times))}` : "none");
}

function fitted(svg, { since, span_s }) {
  const width = Math.max(80, Math.floor(svg.parentElement.clientWidth));
  setAttribute(svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
  return { width, x: (at) => Math.max(0, ((at - since) / span_s) * width) };
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)];
}
