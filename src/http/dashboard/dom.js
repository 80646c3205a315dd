// Small helpers for the page's nodes. Job data reaches them as text and attributes only, never as markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function shorten(text, most) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

// Puts off `paint` to the next frame, and many calls until then into one.
export function inNextFrame(paint) {
  let awaited = false;
  return () => {
    if (awaited) return;
    awaited = true;
    requestAnimationFrame(() => {
      awaited = false;
      paint();
    });
  };
}
