// Positions of shared rooms: acknowledgements, second arguments, coming back by them, gaps in their place (contract,
// section 2).

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  assertPosition,
  assertRefused,
  assertRising,
  connect,
  entriesOf,
  isBefore,
  publishUntilStopped,
  sequenceNumbers,
  sharedRooms,
  timeAfter,
  uniqueId,
  updatesOf,
} from './support/clients.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';

const promises = ({ recovered, replaying }) => ({ recovered, replaying });
const named = ({ jobId, seq }) => [jobId, seq];

/** Events of two jobs of an owner by turns, one after the other; answers what was answered. */
async function publishByTurns(api, jobs, owner, count) {
  const published = [];
  for (let step = 0; step < count; step += 1) {
    published.push(await api.update(jobs[step % jobs.length], { status: `step-${step}`, ...owner }));
  }
  return published;
}

describeEachStoreAndCluster('positions of shared rooms', (context) => {
  const { api } = context;
  const join = (t, options) => connect(t, context.gateway, options);
  const jobsOf = (name, count = 2) => Array.from({ length: count }, () => uniqueId(name));

  it('are in the acknowledgement, where the subscription begins, and in none of a job', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('ack');
    for (const { room, payload } of rooms) {
      const [early, late] = [await join(t), await join(t)];
      const { position, ...answer } = await early.subscribe(payload);
      assert.equal(answer.room, room);
      assertPosition(position);
      assert.equal('recovered' in answer || 'replaying' in answer, false);
      const published = await publishByTurns(api, jobs, owner, 4);
      // Whoever keeps it before anything has come loses nothing.
      assert.equal((await late.subscribe({ ...payload, since: position })).recovered, true);
      for (const watcher of [early, late]) {
        await watcher.through(published.at(-1));
        assert.deepEqual(watcher.jobEvents().filter(({ jobId }) => jobs.includes(jobId)).map(named), published.map(named));
      }
    }
    const watcher = await join(t);
    assert.equal('position' in (await watcher.subscribe({ jobId: jobs[0] })), false);
    assert.equal('position' in (await watcher.subscribe({ jobId: jobs[0], since: 0 })), false);
  });

  it('come with each event of the client’s shared rooms, and of no other', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('second');
    const watchers = await Promise.all(rooms.map(() => join(t)));
    for (const [index, { payload }] of rooms.entries()) await watchers[index].subscribe(payload);
    const [ofJob, ofBoth] = [await join(t), await join(t)];
    await ofJob.subscribe({ jobId: jobs[0] });
    await ofBoth.subscribe({ jobId: jobs[0] });
    await ofBoth.subscribe(rooms[0].payload);
    const published = await publishByTurns(api, jobs, owner, 6);

    for (const [index, { room }] of rooms.entries()) {
      await watchers[index].through(published.at(-1));
      const entries = entriesOf(watchers[index], room, jobs);
      assert.deepEqual(entries.map(({ job, seq }) => [job, seq]), published.map(named));
      for (const { args } of watchers[index].log.items.slice(1)) assert.deepEqual(Object.keys(args[1]), [room]);
    }
    const last = published.findLast(({ jobId }) => jobId === jobs[0]);
    await ofJob.through(last);
    for (const { args } of ofJob.log.items.slice(1)) assert.equal(args.length, 1);
    await ofBoth.through(published.at(-1));
    assert.deepEqual(ofBoth.jobEvents().map(named), published.map(named));
  });

  it('begin with a time at or after the event’s', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('time', 1);
    const watcher = await join(t);
    await watcher.subscribe(rooms[0].payload);
    const { timestamp, ...last } = await api.update(jobs[0], { status: 'queued', ...owner });
    await watcher.through(last);
    const [{ position }] = entriesOf(watcher, rooms[0].room, jobs);
    assertPosition(position);
    assert.ok(parseInt(position, 10) >= Date.parse(timestamp), `${position} for ${timestamp}`);
  });

  it('bring whoever comes back by one all that came after it, across jobs, in the room’s order', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('since', 3);
    const stayed = await Promise.all(rooms.map(() => join(t)));
    for (const [index, { payload }] of rooms.entries()) await stayed[index].subscribe(payload);
    const published = await publishByTurns(api, jobs, owner, 12);
    for (const [index, { room, payload }] of rooms.entries()) {
      for (const from of [0, 4, 11]) {
        await stayed[index].through(published.at(-1));
        const entries = entriesOf(stayed[index], room, jobs);
        const { position } = entries[from];
        const back = await join(t);
        const answer = await back.subscribe({ ...payload, since: position });
        assert.equal(answer.position, position, 'the place that was asked for');
        assert.deepEqual(promises(answer), { recovered: true, replaying: entries.length - 1 - from });
        assert.equal(back.log.items[0].name, 'ack');
        const live = await api.progress(jobs[1], 50);
        for (const watcher of [back, stayed[index]]) await watcher.through(live);
        assert.deepEqual(entriesOf(back, room, jobs), entriesOf(stayed[index], room, jobs).slice(from + 1));
        published.push(live);
      }
    }
  });

  it('replay nothing to whoever has the newest, and again to whoever asks again', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('again');
    for (const { room, payload } of rooms.slice(0, 2)) {
      const watcher = await join(t);
      await watcher.subscribe(payload);
      const published = await publishByTurns(api, jobs, owner, 4);
      await watcher.through(published.at(-1));
      const entries = entriesOf(watcher, room, jobs);
      const newest = await watcher.subscribe({ ...payload, since: entries.at(-1).position });
      assert.deepEqual(promises(newest), { recovered: true, replaying: 0 });
      const again = await watcher.subscribe({ ...payload, since: entries[1].position });
      assert.deepEqual(promises(again), { recovered: true, replaying: 2 });
      await watcher.log.until((items) => items.filter(({ name }) => name === 'job:update').length === 6, 'the replay');
      const replayed = watcher.log.items.slice(-2);
      assert.deepEqual(replayed.map(({ args }) => args[1][room]), entries.slice(2).map(({ position }) => position));
    }
  });

  it('are the same for everybody, and hold for who comes back again and again', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('busy', 8);
    const [{ room, payload }] = rooms;
    const stays = await join(t);
    const { position } = await stays.subscribe(payload);
    for (const jobId of jobs) await api.update(jobId, { status: 'queued', ...owner });
    const stops = jobs.map((jobId) => publishUntilStopped(t, api, jobId));

    const seen = [];
    let since = position;
    for (let turn = 0; turn < 15; turn += 1) {
      const comes = await join(t);
      assert.equal((await comes.subscribe({ ...payload, since })).recovered, true);
      await comes.log.until((items) => items.length > 20, 'some events');
      comes.close();
      seen.push(...entriesOf(comes, room, jobs));
      since = seen.at(-1).position;
    }
    const last = await Promise.all(stops.map((stop) => stop()));
    const end = await join(t);
    await end.subscribe({ ...payload, since });
    for (const event of last) {
      await stays.through(event);
      if (!seen.some(({ job, seq }) => job === event.jobId && seq === event.seq)) await end.through(event);
    }
    seen.push(...entriesOf(end, room, jobs));
    assert.deepEqual(seen, entriesOf(stays, room, jobs));
  });

  it('hold for a client of several rooms that keeps the newest of each', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('several', 3);
    const resume = {};
    let newest = 0;
    const had = new Set();
    const published = [];
    for (let turn = 0; turn < 4; turn += 1) {
      const watcher = await join(t);
      for (const { room, payload } of rooms) {
        const since = resume[room];
        const answer = await watcher.subscribe(since ? { ...payload, since } : payload);
        if (since) assert.equal(answer.recovered, true);
        resume[room] = answer.position;
      }
      await watcher.subscribe({ jobId: jobs[0], since: newest });
      published.push(...(await publishByTurns(api, jobs, owner, 6)));
      await watcher.through(published.at(-1));
      const here = watcher.log.items.filter(({ name, payload }) => name === 'job:update' && jobs.includes(payload.jobId));
      for (const { payload, args } of here) {
        Object.assign(resume, args[1]);
        if (payload.jobId === jobs[0]) newest = payload.seq;
        had.add(`${payload.jobId} ${payload.seq}`);
      }
      // What it has missed may come by each of its rooms; what happens while it is there comes once.
      const live = published.slice(-6).map(({ jobId, seq }) => `${jobId} ${seq}`);
      assert.deepEqual(here.slice(-6).map(({ payload }) => `${payload.jobId} ${payload.seq}`), live);
      for (const { room } of rooms) {
        assertRising(here.map(({ args }) => args[1]?.[room]).filter((position) => position !== undefined));
      }
      watcher.close();
      // Missed by this client.
      published.push(...(await publishByTurns(api, jobs, owner, 5)));
    }
    const back = await join(t);
    await back.subscribe({ ...rooms[0].payload, since: resume[rooms[0].room] });
    await back.through(published.at(-1));
    for (const { jobId, seq } of back.jobEvents()) had.add(`${jobId} ${seq}`);
    assert.deepEqual([...had].sort(), published.map(({ jobId, seq }) => `${jobId} ${seq}`).sort());
  });

  for (const [form, of] of Object.entries({
    'milliseconds as text': (time) => String(time),
    milliseconds: (time) => time,
    'a date': (time) => new Date(time).toISOString(),
  })) {
    it(`may be a time: ${form}`, async (t) => {
      const { owner, rooms } = sharedRooms();
      const jobs = jobsOf('time');
      const [before] = await publishByTurns(api, jobs, owner, 1);
      const since = of(await timeAfter(before.timestamp));
      const published = await publishByTurns(api, jobs, owner, 4);
      for (const { room, payload } of rooms) {
        const watcher = await join(t);
        const answer = await watcher.subscribe({ ...payload, since });
        assertPosition(answer.position);
        assert.equal(answer.recovered, true);
        await watcher.through(published.at(-1));
        const entries = entriesOf(watcher, room, jobs).map(({ job, seq }) => [job, seq]);
        assert.deepEqual(entries.slice(-4), published.map(named));
        // Servers of a cluster have clocks of their own: there it may be more, and never less.
        if (context.kind !== 'cluster') assert.equal(entries.length, 4);
      }
    });
  }

  it('beyond the end are of a tail that is lost: all that is kept is replayed', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('beyond');
    const published = await publishByTurns(api, jobs, owner, 5);
    const beyond = `${Date.now() + 3_600_000}-1`;
    for (const { room, payload } of rooms) {
      const watcher = await join(t);
      const answer = await watcher.subscribe({ ...payload, since: beyond });
      assert.equal(answer.recovered, false);
      assert.ok(answer.replaying >= published.length);
      await watcher.through(published.at(-1));
      const entries = entriesOf(watcher, room, jobs);
      assert.deepEqual(entries.map(({ job, seq }) => [job, seq]), published.map(named));
      // And it goes on from there.
      const live = await api.progress(jobs[0], 50);
      await watcher.through(live);
      const back = await join(t);
      const [next] = entriesOf(watcher, room, jobs).slice(-1);
      assert.deepEqual(promises(await back.subscribe({ ...payload, since: next.position })), { recovered: true, replaying: 0 });
      published.push(live);
    }
  });

  it('that are long ago, or times before everything, are honest', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobs = jobsOf('ago');
    const published = await publishByTurns(api, jobs, owner, 3);
    const [{ payload }] = rooms;
    for (const [since, recovered] of [
      [Date.now() - 3_600_000, true],
      [`${Date.now() - 3_600_000}-7`, true],
      // Longer ago than histories are kept: nobody knows what there was.
      [Date.now() - 48 * 3_600_000, false],
    ]) {
      const watcher = await join(t);
      const answer = await watcher.subscribe({ ...payload, since });
      assert.deepEqual(promises(answer), { recovered, replaying: 3 }, String(since));
      await watcher.through(published.at(-1));
      assert.deepEqual(watcher.jobEvents().map(named), published.map(named));
    }
  });

  it('of an owner begin where the owner is known', async (t) => {
    const { owner, rooms } = sharedRooms();
    const jobId = uniqueId('late');
    const watcher = await join(t);
    const { position } = await watcher.subscribe(rooms[0].payload);
    await api.update(jobId);
    const published = [await api.update(jobId, { status: 'owned', ...owner }), await api.progress(jobId, 50)];
    await watcher.through(published[1]);
    assert.deepEqual(sequenceNumbers(watcher.jobEvents()), sequenceNumbers(published));
    const back = await join(t);
    await back.subscribe({ ...rooms[0].payload, since: position });
    await back.through(published[1]);
    assert.deepEqual(entriesOf(back, rooms[0].room, [jobId]), entriesOf(watcher, rooms[0].room, [jobId]));
  });

  describe('of the wrong form are refused with what would be right', () => {
    const wrong = ['x', 'yesterday', true, {}, [], -1, 1.5, '', '-1', '1-', '1-2-3', 'a-1', '1-a'];
    for (const payload of [{ userId: 'anna' }, { tenantId: 'acme' }, {}]) {
      it(JSON.stringify(payload), async (t) => {
        const watcher = await join(t);
        for (const since of wrong) {
          const answer = await watcher.ask('subscribe:jobs', { ...payload, since });
          assert.equal(answer.success, false, JSON.stringify(since));
          assertRefused(answer, 'invalid_payload');
          assert.match(answer.message, /since/, JSON.stringify(since));
          assert.match(answer.message, /position|RFC 3339|milliseconds/, `${JSON.stringify(since)}: ${answer.message}`);
        }
      });
    }

    it('and a job is resumed by number', async (t) => {
      const watcher = await join(t);
      for (const since of ['1795892034735-0', new Date().toISOString(), -1]) {
        const answer = await watcher.ask('subscribe:jobs', { jobId: 'x', since });
        assertRefused(answer, 'invalid_payload');
        assert.match(answer.message, /since/, answer.message);
      }
    });
  });
});

describeEachStoreAndCluster(
  'positions over short histories',
  (context) => {
    const { api } = context;

    it('name in its place each event that is gone', async (t) => {
      const { owner, rooms } = sharedRooms();
      const [busy, calm] = [uniqueId('busy'), uniqueId('calm')];
      const [first] = await publishByTurns(api, [uniqueId('first')], owner, 1);
      const since = await timeAfter(first.timestamp);
      // Nobody watches: a gateway may remember more than history of what it has just delivered.
      const published = [];
      for (const jobId of [busy, calm, busy, busy, calm, busy, busy]) {
        published.push(await api.update(jobId, { status: 'step', ...owner }));
      }
      const gone = new Set(sequenceNumbers(published.filter(({ jobId }) => jobId === busy).slice(0, 2)));
      const expected = published.map(({ jobId: job, seq }) =>
        job === busy && gone.has(seq) ? { job, gap: seq } : { job, seq },
      );
      for (const { room, payload } of rooms) {
        const late = await connect(t, context.gateway);
        const answer = await late.subscribe({ ...payload, since });
        // The room's log reaches back that far.
        assert.equal(answer.recovered, true);
        if (context.kind !== 'cluster') assert.equal(answer.replaying, 5);
        await late.through(published.at(-1));
        const entries = entriesOf(late, room, [busy, calm]);
        assert.deepEqual(entries.map(({ position, ...entry }) => entry), expected);
        // A gap has a place like any event: whoever goes on from it gets what follows.
        const after = await connect(t, context.gateway);
        await after.subscribe({ ...payload, since: entries[2].position });
        await after.through(published.at(-1));
        assert.deepEqual(entriesOf(after, room, [busy, calm]), entries.slice(3));
        for (const watcher of [late, after]) watcher.close();
      }
    });

    it('and of a job by number, all at once', async (t) => {
      const jobId = uniqueId('job');
      const published = sequenceNumbers(await api.publishAll(updatesOf(jobId, 8)));
      const watcher = await connect(t, context.gateway);
      await watcher.subscribe({ jobId, since: published[1] });
      await watcher.through({ jobId, seq: published.at(-1) });
      const [gap] = watcher.log.items.filter(({ name }) => name === 'job:gap');
      assert.deepEqual(gap.args, [{ jobId, from: published[2], to: published[4] }]);
    });
  },
  { env: { JOBCAST_HISTORY__MAX_EVENTS: '3' } },
);

describeEachStoreAndCluster(
  'positions in rooms that keep little',
  (context) => {
    const { api } = context;

    it('say where the log does not reach back, and bring what it has', async (t) => {
      const { owner, rooms } = sharedRooms();
      const jobs = Array.from({ length: 20 }, () => uniqueId('little'));
      const stayed = await connect(t, context.gateway);
      const [{ room, payload }] = rooms;
      const { position } = await stayed.subscribe(payload);
      const published = [];
      for (let batch = 0; batch < 20; batch += 1) {
        published.push(...(await api.publishAll(jobs.flatMap((jobId) => updatesOf(jobId, 5, owner)))));
      }
      for (const jobId of jobs) await stayed.through(published.findLast((event) => event.jobId === jobId));
      const all = entriesOf(stayed, room, jobs);
      assert.equal(all.length, published.length);

      const late = await connect(t, context.gateway);
      const answer = await late.subscribe({ ...payload, since: position });
      assert.equal(answer.recovered, false);
      // About so many; a store may trim in blocks.
      assert.ok(answer.replaying >= 50 && answer.replaying <= 500, `${answer.replaying}`);
      await late.through({ jobId: all.at(-1).job, seq: all.at(-1).seq });
      const entries = entriesOf(late, room, jobs);
      assert.deepEqual(entries, all.slice(-entries.length));

      const [from] = all.slice(-20);
      const recent = await connect(t, context.gateway);
      const resumed = await recent.subscribe({ ...payload, since: from.position });
      assert.deepEqual(promises(resumed), { recovered: true, replaying: 19 });
      await recent.through({ jobId: all.at(-1).job, seq: all.at(-1).seq });
      assert.deepEqual(entriesOf(recent, room, jobs), all.slice(-19));
      assert.ok(isBefore(position, from.position));
    });
  },
  { env: { JOBCAST_HISTORY__ROOM_ENTRIES: '50', JOBCAST_HISTORY__MAX_EVENTS: '1000' } },
);
