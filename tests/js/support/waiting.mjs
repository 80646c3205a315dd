// Waiting for what happens, instead of for time to pass.

import { setTimeout as pause } from 'node:timers/promises';
import { inspect } from 'node:util';

const PATIENCE_MS = 10_000;

/** A list that grows as things arrive, and whose conditions can be awaited. */
export class Collector {
  items = [];
  #waiting = new Set();

  push(item) {
    this.items.push(item);
    for (const check of this.#waiting) check();
  }

  /** Resolves with what `condition(items)` answers once that is truthy. */
  until(condition, what = condition.toString(), patience = PATIENCE_MS) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        settle(value);
      };
      const timer = setTimeout(() => {
        const seen = inspect(this.items.slice(-30), { depth: 6 });
        finish(reject, new Error(`waited ${patience} ms in vain for: ${what}\nlast of ${this.items.length}: ${seen}`));
      }, patience);
      const check = () => {
        let answer;
        try {
          answer = condition(this.items);
        } catch (error) {
          finish(reject, error);
          return;
        }
        if (answer) finish(resolve, answer);
      };
      this.#waiting.add(check);
      check();
    });
  }

  find(match, what) {
    return this.until((items) => items.find(match), what ?? match.toString());
  }
}

/** Asks again and again until `probe` answers something truthy: for state that announces no change. */
export async function eventually(probe, what = probe.toString(), patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`waited ${patience} ms in vain for: ${what}`);
    await pause(20);
  }
}

/** Rejects with `what` where the promise takes longer than a test has patience. */
export function inTime(promise, what, patience = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${patience} ms in vain for: ${what}`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Lets the clock pass `time`, so that what is published next bears a later millisecond. */
export async function clockPast(time) {
  while (Date.now() <= new Date(time).getTime()) await pause(1);
}

/** A time at which what was accepted then has its place in every room, and whatever comes next has a later one. */
export async function timeAfter(timestamp) {
  // In a cluster the room's server writes an event a moment after the job's has accepted it.
  const time = Date.parse(timestamp) + 500;
  await clockPast(time);
  return time;
}

let counter = 0;

/** An id that no other test uses. */
export function uniqueId(name) {
  counter += 1;
  return `${name}-${process.pid}-${counter}`;
}
