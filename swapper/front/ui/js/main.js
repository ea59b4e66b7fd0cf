/* Puts the page together: one store, the views on it, and the streams that feed it. */

import { Api } from "./api.js";
import { h, setAttribute, setText } from "./dom.js";
import { count, left } from "./format.js";
import { glyph } from "./states.js";
import { Store } from "./store.js";
import { mountInspector } from "./views/inspector.js";
import { mountKey } from "./views/key.js";
import { mountLogs } from "./views/logs.js";
import { mountMemory } from "./views/memory.js";
import { mountModels } from "./views/models.js";
import { mountPlayground } from "./views/playground.js";
import { mountRequests } from "./views/requests.js";
import { mountSpeed } from "./views/speed.js";
import { mountTimeline } from "./views/timeline.js";

const LONGEST_PAUSE_S = 10;

const api = new Api();
const store = new Store();
const part = (id) => document.getElementById(id);

const key = mountKey(part("key"), part("forget"), api);
mountMemory(part("memory"), store);
mountModels(part("models"), store, api);
mountTimeline(part("timeline"), store);
mountSpeed(part("speed"), store);
mountRequests(part("requests"), store, api, mountInspector(part("inspector"), store, api));
mountPlayground(part("playground"), store, api);
const logs = mountLogs(part("logs"), store, api);
store.subscribe(showHead);
watchDecisions();
watchChanges();
await follow();

/** Read the state as it comes, for as long as the page is open. */
async function follow() {
  let pause_s = 0;
  for (let isFirst = true; ; ) {
    try {
      for await (const data of api.events("swapper/v1/events")) {
        pause_s = 0;
        store.observe(JSON.parse(data));
        if (isFirst) logs.follow();
        isFirst = false;
      }
    } catch (error) {
      if (error.status === 401 || (error.status === 403 && api.key)) {
        await key.ask(error.message);
        continue;
      }
      store.setLink("lost", error.message);
    }
    pause_s = Math.min(LONGEST_PAUSE_S, pause_s * 2 || 1);
    store.setLink("lost", `trying again in ${left(pause_s)}`);
    await new Promise((resolve) => setTimeout(resolve, pause_s * 1000));
  }
}

/** Fetch the decision log whenever a worker came or went, which is when something was decided; and once
 * more, for what is written down a little later. */
function watchDecisions() {
  let workers = null;
  let due = 0;
  let isAsking = false;
  store.subscribe(async () => {
    if (!store.snapshot || isAsking) return;
    const present = store.snapshot.models.map((m) => `${m.worker} ${m.state} ${m.waiting > 0}`).join();
    if (present !== workers) due = 3;
    workers = present;
    if (due === 0) return;
    due -= 1;
    isAsking = true;
    try {
      store.setDecisions((await api.json("swapper/v1/decisions")).decisions);
    } catch {
      due = 1; // with the next state
    } finally {
      isAsking = false;
    }
  });
}

/** Say aloud, to who cannot see it, what a model has become. */
function watchChanges() {
  const known = new Map();
  store.subscribe(() => {
    const news = [];
    for (const { name, state } of store.snapshot?.models ?? []) {
      if (known.has(name) && known.get(name) !== state) {
        news.push(`${name}: ${state === "stopped" ? "not loaded" : state}`);
      }
      known.set(name, state);
    }
    if (news.length > 0) setText(part("announcer"), news.join(". "));
  });
}

function showHead() {
  const { state, detail } = store.link;
  const words = { connecting: "Connecting", live: "Live", lost: `No connection, ${detail}` }[state];
  const link = part("link");
  if (link.dataset.words !== words) {
    link.dataset.words = words;
    link.dataset.state = state;
    link.replaceChildren(glyph(state === "live" ? "ready" : "waiting"), h("span", {}, words));
  }
  setAttribute(document.documentElement, "data-link", state);
  if (!store.snapshot) return;
  const { models, version } = store.snapshot;
  const loaded = models.filter((model) => model.worker !== null).length;
  const waiting = models.reduce((sum, model) => sum + model.waiting, 0);
  const answered = models.reduce((sum, model) => sum + model.in_flight, 0);
  setText(part("summary"), [
    `${version}`, `${loaded} of ${count(models.length, "model")} loaded`, `${answered} in flight`, `${waiting} waiting`,
  ].join(" · "));
  document.title = `${loaded ? `${loaded} loaded` : "idle"} · swapper`;
}
