/* The inspector: one request with its times, and, where the server keeps them, all that was said. */

import { copy } from "../clipboard.js";
import { curl } from "../curl.js";
import { h, setAttribute, setText } from "../dom.js";
import { bytes, clock, count, rate, took } from "../format.js";
import { partsBar, partsOf } from "./parts.js";

const SHOWN = 200_000; // characters of a body on the page; copies are whole
const COPIED_MS = 1500;
const OFF = "What was said is not kept. `capture` in the configuration keeps it for the last requests, in memory.";

export function mountInspector(dialog, store, api) {
  const title = h("h2", { id: "inspector-title" });
  const close = h("button", { type: "button", class: "quiet" }, "Close");
  const facts = h("dl", { class: "facts" });
  const bar = partsBar();
  const problem = h("p", { class: "problem" });
  const content = h("div", { class: "exchange" });
  dialog.classList.add("inspector");
  dialog.append(h("header", {}, title, close), facts, bar.element, problem, content);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });

  /** Show a request of the list; whether it is kept may have changed since it was drawn. */
  const open = async (listed) => {
    const request = store.snapshot.requests.find(({ number }) => number === listed.number) ?? { ...listed, is_kept: false };
    setText(title, `${request.model ?? "No model"} · ${request.status}`);
    title.classList.toggle("is-failed", request.status >= 400);
    facts.replaceChildren(...factsOf(request, null));
    bar.update(request);
    bar.element.style.setProperty("--longest", request.total_s);
    setText(problem, request.error ?? "");
    const isOff = store.snapshot.capture === null;
    content.replaceChildren(...(request.is_kept ? [] : [note(isOff ? OFF : "This one is not kept any more.")]));
    dialog.showModal();
    dialog.scrollTop = 0;
    if (!request.is_kept) return;
    try {
      const exchange = await api.json(`swapper/v1/requests/${request.number}`);
      facts.replaceChildren(...factsOf(request, exchange));
      content.replaceChildren(asked(exchange), answered(exchange));
    } catch (error) {
      content.replaceChildren(note(error.message));
    }
  };
  return { open };
}

function note(text) {
  return h("p", { class: "note" }, text);
}

/* ---------------------------------------------------------------- facts */

function factsOf(request, exchange) {
  const { answer_tokens: answer, prompt_tokens: prompt } = request;
  const streamed = partsOf(request).find((part) => part.kind === "streaming")?.seconds ?? 0;
  const facts = [
    ["Asked at", clock(request.at - request.total_s)],
    ["Dialect", request.dialect],
    ["Path", request.route],
    ["Waited", request.queue_s === null ? null : took(request.queue_s)],
    ["Of that, loading", request.load_s ? took(request.load_s) : null],
    ["First byte", request.first_byte_s === null ? null : took(request.first_byte_s)],
    ["In all", took(request.total_s)],
    ["Prompt", prompt === null ? null : count(prompt, "token")],
    ["Answer", answer === null ? null : count(answer, "token")],
    ["Speed", answer > 1 && streamed > 0.01 ? `${rate((answer - 1) / streamed)} tok/s` : null],
    ["Ended by", request.finish],
    ["Key of", exchange?.key || null],
    ["Worker", exchange?.worker ?? null],
    ["Engine", exchange?.engine ?? null],
    ["Request id", exchange?.request_id ?? null],
  ];
  return facts
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, value)));
}

/* ---------------------------------------------------------------- what was said */

function asked(exchange) {
  const { request } = exchange;
  const command = request.text === null || request.is_cut ? null : curl(exchange);
  return side("Asked", request, [
    command && copyButton("Copy as curl", () => command),
    request.text !== null && copyButton("Copy", () => request.text),
  ], body(request.text, request));
}

function answered({ response }) {
  const { text, reasoning, calls } = response.said;
  const raw = body(response.text, response);
  const isRead = text !== "" || reasoning !== "" || calls.length > 0;
  if (!isRead) return side("Answered", response, [response.text !== null && copyButton("Copy", () => response.text)], raw);
  const joined = h(
    "div", { class: "joined" },
    reasoning && h("div", { class: "reasoning" }, h("h4", {}, "Reasoning"), h("p", {}, shortened(reasoning))),
    text && h("p", {}, shortened(text)),
    ...calls.map((call) => h("div", { class: "tool-call" }, h("h4", {}, call.name), pre(pretty(call.arguments)))),
  );
  const choice = h("button", { type: "button", class: "quiet toggle", "aria-pressed": "false" }, "As sent");
  const isRaw = () => choice.getAttribute("aria-pressed") === "true";
  const place = h("div", {}, joined);
  choice.addEventListener("click", () => {
    setAttribute(choice, "aria-pressed", String(!isRaw()));
    place.replaceChildren(isRaw() ? raw : joined);
  });
  return side("Answered", response, [choice, copyButton("Copy", () => (isRaw() ? response.text : text))], place);
}

function side(title, { bytes: size, is_cut: isCut, headers }, buttons, content) {
  const lines = headers.map(([name, value]) => `${name}: ${value}`).join("\n");
  return h(
    "section", { class: "side", "aria-label": title },
    h("header", {}, h("h3", {}, title), h("span", { class: "muted number" }, bytes(size)), ...buttons.filter(Boolean)),
    isCut ? note("It was longer than what is kept of one: this is its beginning.") : null,
    content,
    headers.length > 0 ? h("details", { class: "headers" }, h("summary", {}, "Headers"), pre(lines)) : null,
  );
}

function body(text, { bytes: size }) {
  if (text === null) return note("It is no text.");
  return size === 0 ? note("Nothing.") : pre(pretty(text));
}

function pre(text) {
  return h("pre", { tabindex: "0" }, shortened(text));
}

function shortened(text) {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}\n… ${count(text.length - SHOWN, "character")} more` : text;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function copyButton(words, textOf) {
  const button = h("button", { type: "button", class: "quiet" }, words);
  button.addEventListener("click", async () => {
    const isCopied = await copy(textOf(), button.closest("dialog"));
    setText(button, isCopied ? "Copied" : "Not allowed here");
    setTimeout(() => setText(button, words), COPIED_MS);
  });
  return button;
}
