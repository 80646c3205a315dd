// Job events as they came, with every digit of their numbers.

const LONG_NUMBER = /\d[\d.]{14}|\d[eE]/;

function keepDigits(_key, value, context) {
  if (typeof value !== 'number' || !context?.source || String(value) === context.source) return value;
  return JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

// For showing and for writing out again, not for computing: a number may come back as an opaque raw one.
function parseExact(text) {
  return LONG_NUMBER.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text);
}

// An event keeps the text it came as, so that its payload is formatted only when it is shown, with every digit.
export function readEvent(text) {
  return { ...JSON.parse(text), text };
}

export function readEvents(body, field) {
  return parseExact(body)[field].map((event) => readEvent(JSON.stringify(event)));
}

export function payload(event, indent) {
  const { data, result } = parseExact(event.text);
  const value = data ?? result ?? null;
  return value === null ? '' : JSON.stringify(value, null, indent);
}
