// The form that publishes an event.

import { Problem, describe, publish, randomName } from './api.js';
import { $, setAttribute, setText } from './dom.js';

const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const FIELD_AS_JSON = {
  status: JSON.stringify,
  message: JSON.stringify,
  error: JSON.stringify,
  userId: JSON.stringify,
  tenantId: JSON.stringify,
  progress: (text) => (JSON_NUMBER.test(text.trim()) ? text.trim() : JSON.stringify(text)),
  data: checkedJson,
  result: checkedJson,
};

// Passed on as it was typed, so that its numbers keep their digits.
function checkedJson(text, name) {
  try {
    JSON.parse(text);
    return text;
  } catch (error) {
    throw new Problem(0, '', `${name} is not JSON: ${error.message}. Plain text goes in quotation marks.`);
  }
}

function bodyOf(form) {
  const members = Object.entries(FIELD_AS_JSON)
    .filter(([name]) => fieldApplies(form.elements[name]) && form.elements[name].value.trim() !== '')
    .map(([name, write]) => `${JSON.stringify(name)}:${write(form.elements[name].value, name)}`);
  return `{${members.join(',')}}`;
}

function fieldApplies(input) {
  return !input.closest('.field').hidden;
}

function showFieldsOfKind() {
  const { kind } = $('publish').elements;
  for (const field of $('publish').querySelectorAll('[data-kinds]')) {
    field.hidden = field.dataset.kinds !== kind.value;
  }
}

// Nobody knows what became of a call that was cut off: pressing again repeats it under the same key.
const unanswered = { call: '', key: '' };

function keyFor(call) {
  if (unanswered.call !== call) Object.assign(unanswered, { call, key: randomName() });
  return unanswered.key;
}

async function submitPublish(submission) {
  submission.preventDefault();
  const form = $('publish');
  if (form.ariaBusy === 'true') return;
  showPublishOutcome(form, '', null);
  try {
    form.ariaBusy = 'true';
    const job = form.elements.job.value.trim();
    const kind = form.elements.kind.value;
    if (!job) throw new Problem(0, '', 'job: say which job this event is about.');
    const body = bodyOf(form);
    const { seq } = await publish(job, kind, body, keyFor(`${job} ${kind} ${body}`));
    unanswered.call = '';
    showPublishOutcome(form, `Accepted: ${kind} of ${job}, seq ${seq}.`, null);
  } catch (error) {
    if (error instanceof Problem && error.status < 500) unanswered.call = '';
    showPublishOutcome(form, '', error);
  } finally {
    form.ariaBusy = 'false';
  }
}

function showPublishOutcome(form, text, error) {
  setText($('publish-result'), text);
  setText($('publish-error'), error ? describe(error) : '');
  const named = error?.status === 0 || error?.status === 422 ? fieldNamedBy(form, error.message) : null;
  for (const input of form.elements) {
    if (!input.name) continue;
    setAttribute(input, 'aria-invalid', input === named ? 'true' : null);
    setAttribute(input, 'aria-describedby', input === named ? 'publish-error' : null);
  }
  named?.focus();
}

function fieldNamedBy(form, message) {
  const words = message.match(/[A-Za-z]+/g) ?? [];
  const names = words.map((word) => (word === 'jobId' ? 'job' : word));
  const name = names.find((word) => (Object.hasOwn(FIELD_AS_JSON, word) || word === 'job') && fieldApplies(form.elements[word]));
  return name ? form.elements[name] : null;
}

export function startForm() {
  $('publish').addEventListener('submit', submitPublish);
  $('publish').elements.kind.addEventListener('change', showFieldsOfKind);
  showFieldsOfKind();
}
