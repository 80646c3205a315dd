// The token or API key of this tab, where the gateway asks for one: the form for it, and signing out.

import { $, setAttribute, setText } from './dom.js';

const KEPT_AS = 'jobcast.credential';
const NEEDS = 'The dashboard needs a token with the scope jobs:admin, or an API key without bounds.';

const account = { credential: stored(), isAsked: false };

// A browser that keeps nothing for the tab still has it until the page is left.
function stored() {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? '';
  } catch {
    return '';
  }
}

function keep(credential) {
  account.credential = credential;
  try {
    if (credential) sessionStorage.setItem(KEPT_AS, credential);
    else sessionStorage.removeItem(KEPT_AS);
  } catch {
    // As above.
  }
}

// What calls are made with. It never goes into an address.
export function authorization() {
  return account.credential ? { Authorization: `Bearer ${account.credential}` } : {};
}

export function isSignedIn() {
  return account.credential !== '';
}

// Asks for a token or key because a call that was made with `sent` was refused.
export function askAfter({ status, message }, sent) {
  // Meanwhile there may be a better one.
  if (sent.Authorization !== authorization().Authorization) return;
  const why = status === 403 ? `${message}. ${NEEDS}` : message;
  const hadOne = isSignedIn();
  keep('');
  account.isAsked = true;
  paint();
  showForm(hadOne || status === 403 ? why : '');
}

// The gateway has taken what was sent.
export function accepted() {
  account.isAsked = false;
  $('sign-in').close();
  paint();
}

function paint() {
  $('account').hidden = !account.isAsked && !isSignedIn();
  setText($('account'), isSignedIn() ? 'Sign out' : 'Sign in');
  $('sign-in-form').ariaBusy = 'false';
}

function showForm(why) {
  setText($('sign-in-error'), why);
  setAttribute($('credential'), 'aria-invalid', why ? 'true' : null);
  if (!$('sign-in').open) $('sign-in').showModal();
  if (why) $('credential').select();
}

function submit(submission, onSignIn) {
  submission.preventDefault();
  const credential = $('credential').value.trim();
  if (!/^[\x21-\x7e]+$/.test(credential)) {
    showForm(credential ? 'A token or key has no spaces and no letters with accents.' : 'Paste a token or an API key.');
    return;
  }
  keep(credential);
  setText($('sign-in-error'), '');
  $('sign-in-form').ariaBusy = 'true';
  onSignIn();
}

export function startAccount({ onSignIn, onSignOut }) {
  $('sign-in-form').addEventListener('submit', (submission) => submit(submission, onSignIn));
  $('sign-in-later').addEventListener('click', () => $('sign-in').close());
  // What was typed does not stay in the page.
  $('sign-in').addEventListener('close', () => $('sign-in-form').reset());
  $('account').addEventListener('click', () => {
    if (isSignedIn()) {
      keep('');
      account.isAsked = true;
      onSignOut();
      paint();
    }
    showForm('');
  });
  paint();
}
