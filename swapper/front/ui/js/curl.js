/* A request as a command for a shell. Pure, but for where the page came from. */

const SENT = /^(content-type|accept|anthropic-[\w-]+|openai-[\w-]+)$/; // headers that make a difference

/** An exchange as the server tells it; the key that it came with is left to a variable. */
export function curl({ key, request: { method, target, headers, text } }, origin = originOf(document.baseURI)) {
  const parts = ["curl", "-N"];
  if (method !== "POST") parts.push("-X", method);
  const lines = [`${parts.join(" ")} ${quoted(origin + target)}`];
  for (const [name, value] of headers) {
    if (SENT.test(name)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  }
  if (key) lines.push('-H "authorization: Bearer $SWAPPER_API_KEY"');
  if (text) lines.push(`--data-binary ${quoted(text)}`);
  return lines.join(" \\\n  ");
}

/** Where the server is, behind whatever prefix; a key that stands in the path is nobody's to copy. */
function originOf(page) {
  const base = new URL("../", page);
  return base.origin + base.pathname.replace(/\/key\/[^/]+(?=\/$)/, "").replace(/\/$/, "");
}

function quoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
