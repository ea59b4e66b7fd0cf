/* Copying, also where the page came over plain HTTP and has no clipboard of its own. */

import { h } from "./dom.js";

/** Put `text` into the clipboard; false where the browser does not allow it. `near`: an element that takes
 * a helper for the moment; within a dialog it has to be of the dialog. */
export async function copy(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text, near);
  }
}

function copyBySelection(text, near) {
  const helper = h("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
  const focused = document.activeElement;
  helper.value = text;
  near.append(helper);
  helper.select();
  const isCopied = document.execCommand("copy");
  helper.remove();
  focused?.focus();
  return isCopied;
}
