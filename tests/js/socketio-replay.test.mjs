// Coming back: since, replay, recovered, replaying and job:gap.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  connect,
  numbersBetween,
  publishUntilStopped,
  sequenceNumbers,
  timeAfter,
  uniqueId,
  updatesOf,
} from './support/clients.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';

/** What a client saw of a job, in order: acknowledgements, gaps and the numbers of events. */
function sights(watcher, jobId) {
  return watcher.log.items
    .filter(({ name, payload }) => name === 'ack' || payload?.jobId === jobId)
    .map(({ name, payload }) => {
      if (name === 'ack') return 'ack';
      return name === 'job:gap' ? { from: payload.from, to: payload.to } : payload.seq;
    });
}

const promises = ({ recovered, replaying }) => ({ recovered, replaying });

for (const transports of [['websocket'], ['polling']]) {
  describeEachStoreAndCluster(`replay over ${transports}`, (context) => {
    const { api } = context;
    const join = (t, options) => connect(t, context.gateway, { transports, ...options });

    it('promises nothing where nothing was asked for', async (t) => {
      const jobId = uniqueId('plain');
      await api.publishAll(updatesOf(jobId, 3));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId });
      assert.equal('recovered' in answer, false);
      assert.equal('replaying' in answer, false);
      const live = await api.progress(jobId, 1);
      assert.deepEqual(sequenceNumbers(await watcher.through(live)), [live.seq]);
    });

    it('replays what came after a number: after the acknowledgement, before live events, once', async (t) => {
      const jobId = uniqueId('since');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 6)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all[1] });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 4 });
      assert.equal(answer.latest.seq, all.at(-1));
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all.slice(2), live.seq]);
      const replayed = watcher.jobEvents(jobId).slice(0, -1);
      assert.deepEqual(replayed, (await api.history(jobId)).slice(2, -1));
    });

    it('replays nothing to one that has seen the newest', async (t) => {
      const jobId = uniqueId('newest');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 3)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all[2] });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 0 });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', live.seq]);
    });

    it('replays all there ever was since 0', async (t) => {
      const jobId = uniqueId('zero');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 4)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: 0 });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 4 });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all, live.seq]);
    });

    it('replays nothing since 0 of a job that has no event yet', async (t) => {
      const jobId = uniqueId('nothing');
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: 0 });
      assert.equal(answer.replaying, 0);
      assert.equal(answer.latest, null);
      const live = await api.update(jobId);
      assert.deepEqual(sequenceNumbers(await watcher.through(live)), [live.seq]);
    });

    it('replays all that is retained since a number that it does not know', async (t) => {
      const jobId = uniqueId('above');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 4)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all.at(-1) + 1000 });
      assert.deepEqual(promises(answer), { recovered: false, replaying: 4 });
      const live = await api.progress(jobId, 1);
      assert.deepEqual(sequenceNumbers(await watcher.through(live)), [...all, live.seq]);
    });

    it('replays again to one that subscribes again', async (t) => {
      const jobId = uniqueId('again');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 4)));
      const watcher = await join(t);
      await watcher.subscribe({ jobId, since: all[1] });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      const answer = await watcher.subscribe({ jobId, since: all[2] });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 2 });
      const last = await api.completed(jobId);
      await watcher.through(last);
      assert.deepEqual(sights(watcher, jobId), ['ack', all[2], all[3], live.seq, 'ack', all[3], live.seq, last.seq]);
    });

    it('replays the newest so many', async (t) => {
      const jobId = uniqueId('replay');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 6)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, replay: 2 });
      assert.equal(answer.replaying, 2);
      assert.equal(typeof answer.recovered, 'boolean');
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all.slice(-2), live.seq]);
    });

    it('replays as many as there are where more are asked for', async (t) => {
      const jobId = uniqueId('replay-all');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 3)));
      const watcher = await join(t);
      assert.equal((await watcher.subscribe({ jobId, replay: 50 })).replaying, 3);
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all, live.seq]);
    });

    it('goes by since where both are asked for', async (t) => {
      const jobId = uniqueId('both');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 6)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all[0], replay: 1 });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 5 });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all.slice(1), live.seq]);
    });

    it('replays a whole history of 100', async (t) => {
      const jobId = uniqueId('whole');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 100, { data: 'x'.repeat(1000) })));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: 0 });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 100 });
      // The live event rotates the oldest one out.
      await watcher.through({ jobId, seq: all.at(-1) });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all, live.seq]);
    });

    it('fits live events to the replay while others publish', async (t) => {
      const jobId = uniqueId('race');
      const gateway = await context.another(t, { env: { JOBCAST_HISTORY__MAX_EVENTS: '100000' } });
      const first = await gateway.api.update(jobId);
      const stopPublishing = publishUntilStopped(t, gateway.api, jobId);
      const watchers = await Promise.all(Array.from({ length: 10 }, () => connect(t, gateway, { transports })));
      for (const watcher of watchers) {
        assert.equal((await watcher.subscribe({ jobId, since: first.seq })).recovered, true);
      }
      const last = await stopPublishing();
      for (const watcher of watchers) {
        const numbers = sequenceNumbers(await watcher.through(last));
        assert.deepEqual(numbers, numbersBetween(first.seq + 1, last.seq));
      }
    });

    it('brings a client that was away what it missed', async (t) => {
      const jobId = uniqueId('away');
      const before = await join(t);
      await before.subscribe({ jobId });
      const seen = await api.update(jobId);
      await before.through(seen);
      before.close();
      const missed = [await api.progress(jobId, 10), await api.completed(jobId)];
      const after = await join(t);
      const answer = await after.subscribe({ jobId, since: seen.seq });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 2 });
      assert.deepEqual(sequenceNumbers(await after.through(missed[1])), sequenceNumbers(missed));
    });

    it('lets clients come back after a restart and catch up', async (t) => {
      const jobId = uniqueId('restart');
      const first = await context.another(t);
      const options = { transports, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
      const watcher = await connect(t, first, options);
      await watcher.subscribe({ jobId });
      const seen = await first.api.update(jobId);
      await watcher.through(seen);

      let reconnected;
      watcher.socket.on('connect', () => {
        reconnected = watcher.subscribe({ jobId, since: seen.seq });
      });
      const left = new Promise((resolve) => watcher.socket.once('disconnect', resolve));
      assert.equal(await first.stop(), 0, first.stderr());
      // Of this one a stock client would not come back.
      assert.notEqual(await left, 'io server disconnect');
      const second = await first.again();
      const missed = [await second.api.progress(jobId, 10), await second.api.progress(jobId, 20)];
      const events = await watcher.through(missed[1]);
      assert.deepEqual(sequenceNumbers(events), sequenceNumbers([seen, ...missed]));
      assert.equal((await reconnected).recovered, true);
    });

    describe('since a time', () => {
      for (const [form, of] of Object.entries({
        milliseconds: (time) => time,
        'a date': (time) => new Date(time).toISOString(),
        'a date with an offset': (time) => new Date(time + 7_200_000).toISOString().replace('Z', '+02:00'),
      })) {
        for (const room of ['userId', 'tenantId', 'all jobs']) {
          it(`in ${form}, ${room}`, async (t) => {
            const owner = room === 'all jobs' ? {} : { [room]: uniqueId('anna') };
            const [one, other, idle] = [uniqueId('one'), uniqueId('other'), uniqueId('idle')];
            const owned = { status: 'queued', ...owner };
            await api.update(idle, owned);
            const early = await api.update(one, owned);
            const since = await timeAfter(early.timestamp);
            const ones = [await api.progress(one, 10)];
            const others = [await api.update(other, owned)];
            ones.push(await api.progress(one, 20));

            const watcher = await join(t);
            const answer = await watcher.subscribe({ ...owner, since: of(since) });
            assert.deepEqual(promises(answer), { recovered: true, replaying: 3 });
            ones.push(await api.progress(one, 30));
            others.push(await api.progress(other, 30));
            await watcher.through(ones.at(-1));
            await watcher.through(others.at(-1));
            assert.deepEqual(sights(watcher, one), ['ack', ...sequenceNumbers(ones)]);
            assert.deepEqual(sights(watcher, other), ['ack', ...sequenceNumbers(others)]);
            assert.deepEqual(sights(watcher, idle), ['ack']);
          });
        }
      }
    });
  });
}

describeEachStoreAndCluster(
  'replay over a short history',
  (context) => {
    const { api } = context;
    const join = (t) => connect(t, context.gateway);

    // A live event rotates the oldest one out: these tests publish it only when the replay is complete.

    it('says which numbers are gone, before the rest', async (t) => {
      const jobId = uniqueId('gap');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 10)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all[1] });
      assert.deepEqual(promises(answer), { recovered: false, replaying: 5 });
      await watcher.through({ jobId, seq: all.at(-1) });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', { from: all[2], to: all[4] }, ...all.slice(5), live.seq]);
      const gap = await watcher.next('job:gap');
      assert.deepEqual(gap, { jobId, from: all[2], to: all[4] });
    });

    it('says of a gap of one number', async (t) => {
      const jobId = uniqueId('one');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 10)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all[3] });
      assert.deepEqual(promises(answer), { recovered: false, replaying: 5 });
      await watcher.through({ jobId, seq: all.at(-1) });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', { from: all[4], to: all[4] }, ...all.slice(5), live.seq]);
    });

    it('says of none where the oldest retained event is the next', async (t) => {
      const jobId = uniqueId('edge');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 10)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all[4] });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 5 });
      await watcher.through({ jobId, seq: all.at(-1) });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all.slice(5), live.seq]);
    });

    it('says since 0 that the oldest are gone', async (t) => {
      const jobId = uniqueId('zero');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 10)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: 0 });
      assert.deepEqual(promises(answer), { recovered: false, replaying: 5 });
      await watcher.through({ jobId, seq: all.at(-1) });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      const [, gap, ...events] = sights(watcher, jobId);
      assert.deepEqual(events, [...all.slice(5), live.seq]);
      assert.equal(gap.to, all[4]);
      assert.ok(gap.from >= 1 && gap.from <= all[0], `${gap.from}`);
    });

    it('knows the number before the first, which nothing precedes', async (t) => {
      const jobId = uniqueId('first');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 3)));
      const watcher = await join(t);
      const answer = await watcher.subscribe({ jobId, since: all[0] - 1 });
      assert.deepEqual(promises(answer), { recovered: true, replaying: 3 });
      await watcher.through({ jobId, seq: all.at(-1) });
      const live = await api.progress(jobId, 1);
      await watcher.through(live);
      assert.deepEqual(sights(watcher, jobId), ['ack', ...all, live.seq]);
    });

    it('replays the newest so many without speaking of a gap', async (t) => {
      const jobId = uniqueId('replay');
      const all = sequenceNumbers(await api.publishAll(updatesOf(jobId, 10)));
      const watcher = await join(t);
      assert.equal((await watcher.subscribe({ jobId, replay: 3 })).replaying, 3);
      await watcher.through({ jobId, seq: all.at(-1) });
      const live = await api.progress(jobId, 1);
      assert.deepEqual(sequenceNumbers(await watcher.through(live)), [...all.slice(-3), live.seq]);
    });
  },
  { env: { JOBCAST_HISTORY__MAX_EVENTS: '5' } },
);
