// Tokens and keys, made by hand: what a gateway accepts must not depend on what made them.

import { createHash, createHmac, randomBytes } from 'node:crypto';

export const SECRET = randomBytes(32).toString('hex');

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

export const nowInSeconds = () => Math.floor(Date.now() / 1000);

/** A token signed with HS256; good for five minutes unless `claims` say otherwise. */
export function token(claims = {}, secret = SECRET) {
  const now = Date.now() / 1000;
  const all = { iat: now, exp: now + 300, ...claims };
  const text = `${encoded({ alg: 'HS256', typ: 'JWT' })}.${encoded(all)}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

/** An API key, and the entry of the configuration that makes it one. */
export function apiKey(name, bounds = {}) {
  const key = `jc_${randomBytes(32).toString('base64url')}`;
  return { key, entry: { name, sha256: createHash('sha256').update(key).digest('hex'), ...bounds } };
}

/** The settings of a gateway that asks for tokens, or one of these keys. */
export function authSettings({ keys = [], ...settings } = {}) {
  return {
    JOBCAST_AUTH__MODE: 'jwt',
    JOBCAST_AUTH__SECRET: SECRET,
    JOBCAST_AUTH__API_KEYS: JSON.stringify(keys.map(({ entry }) => entry)),
    ...settings,
  };
}

export const bearer = (credential) => ({ authorization: `Bearer ${credential}` });
