/* Making and changing elements, without a framework and without HTML in strings. */

const SVG = "http://www.w3.org/2000/svg";

/** An element. `given`: attributes; `on`: listeners by event; `style`: CSS properties, custom ones too. */
export function h(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** An SVG element, as `h`. */
export function s(tag, given = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), given, children);
}

function filled(element, { on = {}, style = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set, or take away where the value is null or false. Nothing is touched that is so already. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** Change a text only when it differs, so that selections and screen readers are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make `parent` hold one element for each item, in order. Elements live as long as their item's key:
 * `make(item)` returns `{element, update(item)}`.
 */
export function keyed(parent, items, keyOf, make) {
  const known = (parent.known ??= new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, part] of known) {
    if (!wanted.has(key)) {
      part.element.remove();
      known.delete(key);
    }
  }
  items.forEach((item, index) => {
    const key = keyOf(item);
    if (!known.has(key)) known.set(key, make(item));
    const part = known.get(key);
    part.update(item);
    if (parent.children[index] !== part.element) {
      parent.insertBefore(part.element, parent.children[index] ?? null);
    }
  });
}
