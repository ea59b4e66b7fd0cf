/* The server's HTTP: the key goes with every request, streams are read as they come. */

const KEY = "swapper-key";

/** An answer that says no. `status` is 0 where there was no answer at all. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  /** The folder above the page: all paths are relative to it, whatever prefix a proxy has put before. */
  #base = new URL("../", document.baseURI);

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  async json(path, options) {
    return (await this.#fetch(path, options)).json();
  }

  post(path, body) {
    return this.json(path, { method: "POST", body: JSON.stringify(body ?? {}) });
  }

  /** An action on a model, whose name may hold slashes. */
  act(model, action) {
    return this.post(`swapper/v1/models/${encodeURIComponent(model)}/${action}`);
  }

  /** The lines of a text stream. */
  async *lines(path, options) {
    const response = await this.#fetch(path, options);
    yield* lines(response.body);
  }

  /** The data of server-sent events. `onHead` is given the answer's headers. */
  async *events(path, options = {}) {
    const { onHead, ...init } = options;
    const response = await this.#fetch(path, init);
    onHead?.(response.headers);
    let data = [];
    for await (const line of lines(response.body)) {
      if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      if (line === "" && data.length > 0) {
        yield data.join("\n");
        data = [];
      }
    }
  }

  async #fetch(path, options = {}) {
    const headers = {
      ...(options.body ? { "content-type": "application/json" } : {}),
      ...(this.key ? { authorization: `Bearer ${this.key}` } : {}),
    };
    let response;
    try {
      response = await fetch(new URL(path, this.#base), { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "the server does not answer");
    }
    if (!response.ok) throw new ApiError(response.status, await reasonOf(response));
    return response;
  }
}

async function reasonOf(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text.slice(0, 300) || `the server answered ${response.status}`;
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) yield part.endsWith("\r") ? part.slice(0, -1) : part;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening wants nothing more of it
  }
}
