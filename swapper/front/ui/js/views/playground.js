/* The playground: a chat with any model, and what it cost in seconds. */

import { h, keyed, setAttribute, setText } from "../dom.js";
import { count, percent, rate, took } from "../format.js";

const TICK_MS = 250;
const LOADS = "Whatever you ask loads the model if it has to.";
const UNKEPT = "Nothing of it is kept here or sent elsewhere.";
const KEPT = "It is sent nowhere else, but this server keeps the last requests in its memory: see Requests.";
const READING = "Reading the prompt";

export function mountPlayground(section, store, api) {
  const choice = h("select", { "aria-label": "Model" });
  const clear = h("button", { type: "button", class: "quiet" }, "Clear");
  const system = h("textarea", { rows: 2, id: "play-system" });
  const temperature = h("input", { type: "number", id: "play-temperature", min: 0, max: 2, step: 0.1, placeholder: "default" });
  const longest = h("input", { type: "number", id: "play-longest", min: 1, step: 1, placeholder: "default" });
  const settings = h(
    "details", { class: "settings" },
    h("summary", {}, "Settings"),
    labelled("System prompt", system),
    labelled("Temperature", temperature),
    labelled("Most tokens", longest),
  );
  const talk = h("div", { class: "talk", role: "log", "aria-label": "Conversation", "aria-live": "off", tabindex: "0" });
  const input = h("textarea", { rows: 2, "aria-label": "Message", placeholder: "Ask something" });
  const send = h("button", {}, "Send");
  const stop = h("button", { type: "button", hidden: true }, "Stop");
  const form = h("form", { class: "ask" }, input, send, stop);
  section.append(h("div", { class: "tools" }, choice, clear), settings, talk, form);

  let messages = [];
  let running = null; // an AbortController while an answer is made

  const ask = async (text) => {
    const controller = (running = new AbortController());
    const answer = answerArticle(choice.value);
    messages.push({ role: "user", content: text });
    talk.append(h("article", { class: "said by-user" }, h("p", {}, text)), answer.element);
    talk.scrollTop = talk.scrollHeight;
    setBusy(true);
    const asked = {
      model: choice.value,
      messages: [...(system.value.trim() ? [{ role: "system", content: system.value }] : []), ...messages],
      stream: true,
      stream_options: { include_usage: true },
      ...(temperature.value ? { temperature: temperature.valueAsNumber } : {}),
      ...(longest.value ? { max_tokens: longest.valueAsNumber } : {}),
    };
    const content = await receive(api, store, asked, answer, controller.signal, talk);
    messages = content ? [...messages, { role: "assistant", content }] : messages.slice(0, -1);
    if (running === controller) setBusy(false);
  };
  const setBusy = (isBusy) => {
    if (!isBusy) running = null;
    const hadFocus = document.activeElement === send || document.activeElement === stop;
    send.hidden = isBusy;
    stop.hidden = !isBusy;
    if (hadFocus) (isBusy ? stop : input).focus();
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text || running || !choice.value) return;
    input.value = "";
    ask(text);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => running?.abort());
  clear.addEventListener("click", () => {
    running?.abort();
    messages = [];
    talk.replaceChildren();
    input.focus();
  });
  store.subscribe(() => {
    if (!store.snapshot) return;
    keyed(choice, store.snapshot.models, (model) => model.name, (model) => option(model.name));
    setAttribute(talk, "data-empty", `${LOADS} ${store.snapshot.capture === null ? UNKEPT : KEPT}`);
  });
}

function labelled(words, input) {
  return h("div", { class: "setting" }, h("label", { for: input.id }, words), input);
}

function option(name) {
  return { element: h("option", { value: name }, name), update() {} };
}

/** Fill `answer` as it comes; returns its text, as far as it came. */
async function receive(api, store, asked, answer, signal, talk) {
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  const seen = { content: "", reasoning: "", first: null, waited: 0, usage: null, finish: null, chunks: 0 };
  const wait = setInterval(() => {
    if (seen.first !== null) return;
    const words = reason(store.snapshot, asked.model);
    if (words !== READING) seen.waited = since();
    answer.waits(`${words} · ${Math.floor(since())} s`);
  }, TICK_MS);
  answer.waits("Asked");
  let outcome = "";
  try {
    const onHead = (headers) => {
      const waited = headers.get("x-swapper-queue-ms");
      if (waited !== null) seen.waited = Number(waited) / 1000; // exact, unless we had to wait for long
    };
    const options = { method: "POST", body: JSON.stringify(asked), signal, onHead };
    for await (const data of api.events("v1/chat/completions", options)) {
      if (data === "[DONE]") break;
      take(JSON.parse(data), seen, since);
      if (seen.first !== null) show(answer, seen, talk);
    }
  } catch (error) {
    if (error.name === "AbortError") outcome = "stopped";
    else answer.fails(error.message);
  } finally {
    clearInterval(wait);
  }
  show(answer, seen, talk);
  answer.ends(costWords(seen, since(), outcome));
  return seen.content;
}

/** Take one chunk in. Raises what the stream says went wrong. */
function take(chunk, seen, since) {
  if (chunk.error) throw new Error(chunk.error.message ?? "the answer broke off");
  seen.usage = chunk.usage ?? seen.usage;
  const [first] = chunk.choices ?? [];
  if (!first) return;
  const { content, reasoning_content: reasoning } = first.delta ?? {};
  seen.finish = first.finish_reason ?? seen.finish;
  seen.content += content ?? "";
  seen.reasoning += reasoning ?? "";
  if (content || reasoning) {
    seen.first ??= since();
    seen.chunks += 1;
  }
}

function show(answer, seen, talk) {
  const isAtEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60;
  answer.shows(seen.content, seen.reasoning);
  if (isAtEnd) talk.scrollTop = talk.scrollHeight;
}

/** Why there is no answer yet, in words. */
function reason(snapshot, name) {
  const model = snapshot?.models.find((one) => one.name === name);
  if (!model) return "Waiting";
  switch (model.state) {
    case "starting":
      return `Loading ${name}, ${percent(model.progress)}`;
    case "waking":
      return `Waking ${name}`;
    case "ready":
      return model.waiting ? `${name} is busy with ${count(model.in_flight, "request")}` : READING;
    case "draining":
      return `${name} finishes, to make room for another`;
    default: {
      const others = snapshot.models.filter((one) => one.name !== name && one.worker !== null);
      const busy = others.filter((one) => one.in_flight > 0).map((one) => one.name);
      if (busy.length > 0) return `Waiting for room: ${busy.join(", ")} has to finish`;
      const going = others.find((one) => ["draining", "stopping"].includes(one.state));
      return going ? `Making room: ${going.name} goes` : `Waiting for room for ${name}`;
    }
  }
}

function costWords(seen, total, outcome) {
  const words = [];
  if (outcome) words.push(outcome);
  if (seen.waited > 0.01) words.push(`waited ${took(seen.waited)}`);
  if (seen.first !== null) words.push(`first token ${took(seen.first)}`);
  const tokens = seen.usage?.completion_tokens ?? seen.chunks;
  const streamed = total - (seen.first ?? total);
  if (tokens > 1 && streamed > 0) words.push(`${rate((tokens - 1) / streamed)} tok/s`);
  if (tokens > 0) words.push(count(tokens, "token"));
  words.push(`${took(total)} in all`);
  if (seen.finish === "length") words.push("cut at the most tokens");
  return words;
}

function answerArticle(model) {
  const status = h("p", { class: "status muted", role: "status" });
  const thought = h("div", { class: "reasoning-text" });
  const reasoning = h("details", { class: "reasoning", hidden: true }, h("summary", {}, "Reasoning"), thought);
  const body = h("div", { class: "body" });
  const cost = h("p", { class: "cost muted number" });
  const element = h("article", { class: "said by-model", "aria-busy": "true" },
    h("h3", { class: "muted" }, model), reasoning, body, status, cost);
  let saidPhase = "";
  return {
    element,
    waits(words) {
      const phase = words.replace(/[\d.]+/g, "");
      setAttribute(status, "aria-live", phase === saidPhase ? "off" : "polite"); // not every second
      saidPhase = phase;
      setText(status, words);
    },
    shows(content, reasoned) {
      setText(status, "");
      reasoning.hidden = reasoned === "";
      if (reasoned && !content) reasoning.open = true;
      setText(thought, reasoned);
      body.replaceChildren(...blocks(content));
    },
    fails(message) {
      element.append(h("p", { class: "problem", role: "alert" }, message));
    },
    ends(words) {
      setText(status, "");
      setAttribute(element, "aria-busy", null);
      cost.replaceChildren(...words.map((text) => h("span", {}, text)));
    },
  };
}

/** Paragraphs, and code between fences. */
function blocks(text) {
  return text.split(/^```.*$/m).map((part, index) => {
    const trimmed = part.replace(/^\n|\n$/g, "");
    return index % 2 === 1 ? h("pre", { tabindex: "0" }, trimmed) : h("p", {}, trimmed);
  }).filter((block) => block.textContent !== "");
}
