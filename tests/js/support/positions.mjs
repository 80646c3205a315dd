// Shared rooms and the positions in them, as a client keeps them.

import assert from 'node:assert/strict';
import { uniqueId } from './waiting.mjs';

const POSITION = /^\d+-\d+$/;

/** A fresh owner, and the three shared rooms of its jobs: `{owner, rooms: [{room, payload, path}]}`. */
export function sharedRooms() {
  const [userId, tenantId] = [uniqueId('anna'), uniqueId('acme')];
  const rooms = [
    { room: `user:${userId}`, payload: { userId }, path: `/api/users/${userId}/events` },
    { room: `tenant:${tenantId}`, payload: { tenantId }, path: `/api/tenants/${tenantId}/events` },
    { room: 'all-jobs', payload: {}, path: '/api/events' },
  ];
  return { owner: { userId, tenantId }, rooms };
}

/** Expects a position, and that it begins with a time not far from now. */
export function assertPosition(position) {
  assert.match(position, POSITION);
  const away = Math.abs(parseInt(position, 10) - Date.now());
  assert.ok(away < 60_000, `${position} is ${away} ms from now`);
}

/** Whether one position of a room is before another one of the same room. */
export function isBefore(one, other) {
  const [[time, number], [otherTime, otherNumber]] = [one, other].map((position) => position.split('-').map(BigInt));
  return time < otherTime || (time === otherTime && number < otherNumber);
}

/**
 * What a client got by a shared room of some jobs, in order: `{job, seq, position}`, or `{job, gap, position}`. Expects
 * that positions rise.
 */
export function entriesOf(watcher, room, jobs) {
  const entries = watcher.log.items
    .filter(({ name, payload }) => name.startsWith('job:') && jobs.includes(payload.jobId))
    .map(({ name, payload, args }) => {
      const position = args[1]?.[room];
      assert.match(position ?? '', POSITION, `${name} ${JSON.stringify(args)} in ${room}`);
      const { jobId: job } = payload;
      if (name !== 'job:gap') return { job, seq: payload.seq, position };
      assert.equal(payload.from, payload.to, 'in a shared room a gap names one event');
      return { job, gap: payload.from, position };
    });
  assertRising(entries.map(({ position }) => position));
  return entries;
}

/** Expects positions in the order of their room. */
export function assertRising(positions) {
  for (let at = 1; at < positions.length; at += 1) {
    assert.ok(isBefore(positions[at - 1], positions[at]), `${positions[at - 1]} before ${positions[at]}`);
  }
}
