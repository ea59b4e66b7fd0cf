/* All that the page knows, in one place. Views read it and are told when it has changed. */

import { History, WINDOW_S } from "./history.js";
import { recent } from "./recent.js";

export class Store {
  snapshot = null; // the last state that the server told, with all of the last requests
  decisions = []; // newest first
  history = new History();
  span_s = WINDOW_S; // how far back timeline and plots go
  link = { state: "connecting", detail: "" }; // connecting, live, lost
  #listeners = [];

  /** Call `listener` after every change. */
  subscribe(listener) {
    this.#listeners.push(listener);
  }

  /** A state as the server tells it. */
  observe(told) {
    this.snapshot = { ...told, requests: recent(this.snapshot?.requests ?? [], told) };
    this.history.observe(this.snapshot);
    this.link = { state: "live", detail: "" };
    this.#tell();
  }

  setDecisions(decisions) {
    this.decisions = decisions;
    this.history.backfill(decisions);
    this.#tell();
  }

  setLink(state, detail = "") {
    this.link = { state, detail };
    this.#tell();
  }

  setSpan(span_s) {
    this.span_s = span_s;
    this.#tell();
  }

  model(name) {
    return this.snapshot?.models.find((model) => model.name === name) ?? null;
  }

  /** The model's place in the configuration, which gives it its colour. */
  hueOf(name) {
    return Math.max(0, this.snapshot?.models.findIndex((model) => model.name === name) ?? 0) % 8;
  }

  /** Why the model failed, if that is the last thing that happened to it lately. */
  failureOf(name) {
    const last = this.decisions.find((decision) => decision.model === name);
    const isFailure = last?.action === "fail" && last.at > this.snapshot.now - WINDOW_S;
    return isFailure ? last : null;
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}
