/* The question for the API key, when the server wants one. */

import { h, setText } from "../dom.js";

/** `ask(problem)` resolves once a key was given; it is kept for this tab. */
export function mountKey(dialog, forget, api) {
  const input = h("input", { type: "password", id: "key-input", autocomplete: "current-password", required: true });
  const words = h("p", { class: "muted" });
  const form = h(
    "form", {},
    h("h2", { id: "key-title" }, "API key"),
    words,
    h("input", { autocomplete: "username", value: "swapper", hidden: true }), // for password managers
    h("label", { for: "key-input" }, "Key"),
    input,
    h("button", {}, "Continue"),
  );
  dialog.append(form);
  dialog.addEventListener("cancel", (event) => event.preventDefault()); // there is nothing to see without

  let given = null;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    api.key = input.value.trim();
    input.value = "";
    dialog.close();
    forget.hidden = false;
    given?.();
  });
  forget.addEventListener("click", () => {
    api.key = "";
    location.reload();
  });
  forget.hidden = !api.key;

  const ask = (problem) => {
    setText(words, api.key ? `This key does not do: ${problem}.` : "This server asks for one. It is kept in this tab, until you close it.");
    if (!dialog.open) dialog.showModal();
    return new Promise((resolve) => {
      given = resolve;
    });
  };
  return { ask };
}
