/* What workers write, live. */

import { h, keyed, setAttribute, setText } from "../dom.js";

const KEPT = 2000; // lines on the page
const RETRY_MS = 2000;
const COLOURS = /\u001b\[[0-9;]*[A-Za-z]/g;

export function mountLogs(section, store, api) {
  const choice = h("select", { "aria-label": "Logs of" });
  const find = h("input", { type: "search", placeholder: "Find", "aria-label": "Show lines with" });
  const pause = h("button", { type: "button", class: "quiet toggle", "aria-pressed": "false" }, "Pause");
  const output = h("div", {
    class: "log", role: "log", "aria-live": "off", "aria-label": "Output of workers", tabindex: "0",
  });
  section.append(h("div", { class: "tools" }, choice, find, pause), output);

  const isPaused = () => pause.getAttribute("aria-pressed") === "true";
  let pending = [];
  let isDrawing = false;
  const draw = () => {
    isDrawing = false;
    if (isPaused()) return;
    const isAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    output.append(...pending.slice(-KEPT).map((text) => line(text, store, find.value)));
    pending = [];
    while (output.childElementCount > KEPT) output.firstElementChild.remove();
    if (isAtEnd) output.scrollTop = output.scrollHeight;
  };
  const drawSoon = () => {
    if (isDrawing) return;
    isDrawing = true;
    setTimeout(draw, 100);
  };

  let current = null;
  const follow = async () => {
    current?.abort();
    const mine = (current = new AbortController());
    const { signal } = mine;
    const model = choice.value ? `&model=${encodeURIComponent(choice.value)}` : "";
    while (!signal.aborted) {
      output.replaceChildren();
      pending = [];
      try {
        for await (const text of api.lines(`logs?follow=1${model}`, { signal })) {
          if (signal.aborted) return;
          pending.push(text);
          if (pending.length > 2 * KEPT) pending = pending.slice(-KEPT);
          drawSoon();
        }
      } catch {
        // it ended, as the other stream will say
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  };

  choice.addEventListener("change", follow);
  pause.addEventListener("click", () => {
    setAttribute(pause, "aria-pressed", String(!isPaused()));
    setText(pause, isPaused() ? "Go on" : "Pause");
    drawSoon();
  });
  find.addEventListener("input", () => {
    for (const element of output.children) element.hidden = !matches(element.textContent, find.value);
    output.scrollTop = output.scrollHeight;
  });
  store.subscribe(() => {
    if (!store.snapshot) return;
    const names = ["", ...store.snapshot.models.map((model) => model.name)];
    keyed(choice, names, (name) => name, option);
  });
  return { follow };
}

function option(name) {
  return { element: h("option", { value: name }, name || "All models"), update() {} };
}

function line(text, store, wanted) {
  const plain = text.replace(COLOURS, "");
  const name = /^\[([^\]]+)\] /.exec(plain)?.[1];
  const isNamed = name !== undefined && store.model(name) !== null;
  const element = isNamed
    ? h("div", {}, h("span", { class: "log-model", "data-hue": store.hueOf(name) }, `${name} `), plain.slice(name.length + 3))
    : h("div", {}, plain || "\u00a0");
  element.hidden = !matches(plain, wanted);
  return element;
}

function matches(text, wanted) {
  return text.toLowerCase().includes(wanted.trim().toLowerCase());
}
