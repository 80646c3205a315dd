// Who is connected, and what reaches them besides job events.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { assertProblem, connect, eventually, openStream, uniqueId } from './support/clients.mjs';
import { describeEachStoreAndCluster } from './support/stores.mjs';

const RESERVED = ['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener'];
const JOB_EVENTS = ['job:update', 'job:progress', 'job:completed', 'job:error'];
const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

describeEachStoreAndCluster('clients', (context) => {
  const { api } = context;

  describe('broadcast', () => {
    const payloads = [{ list: [1, null, { deep: true }] }, 'text', 42, null, [1, 2]];
    for (const data of payloads) {
      it(`reaches every client with ${JSON.stringify(data)}`, async (t) => {
        const watchers = [
          await connect(t, context.gateway),
          await connect(t, context.gateway, { transports: ['polling'] }),
          await connect(t, context.gateway, { client: 3 }),
        ];
        const event = uniqueId('maintenance');
        const response = await api.post('/api/broadcast', { event, data });
        assert.equal(response.status, 200, response.text);
        assert.match(response.json.timestamp, RFC_3339);
        for (const watcher of watchers) assert.deepEqual(await watcher.next(event), data);
      });
    }

    for (const transport of ['websocket', 'polling']) {
      it(`reaches a client from the moment that it is connected over ${transport}`, async (t) => {
        for (let count = 0; count < 100; count += 1) {
          const watcher = await connect(t, context.gateway, { transports: [transport] });
          const event = uniqueId('at-once');
          await api.post('/api/broadcast', { event, data: count });
          assert.equal(await watcher.next(event), count);
          watcher.close();
        }
      });
    }

    it('arrives once with those in many rooms', async (t) => {
      const watcher = await connect(t, context.gateway);
      for (const payload of [{}, { userId: 'anna' }, { jobId: 'j' }, { tenantId: 'acme' }]) {
        await watcher.subscribe(payload);
      }
      const events = [uniqueId('once'), uniqueId('once'), uniqueId('once')];
      for (const event of events) await api.post('/api/broadcast', { event, data: 1 });
      await watcher.next(events.at(-1));
      const names = watcher.log.items.map(({ name }) => name).filter((name) => name.startsWith('once'));
      assert.deepEqual(names, events);
    });
  });

  describe('emit to a user', () => {
    it('reaches every client in the room of the user and nobody else', async (t) => {
      const user = uniqueId('anna');
      const [one, other, stranger] = [
        await connect(t, context.gateway),
        await connect(t, context.gateway, { transports: ['polling'] }),
        await connect(t, context.gateway),
      ];
      await one.subscribe({ userId: user });
      await other.subscribe({ userId: user });
      await stranger.subscribe({ userId: uniqueId('bert') });

      const event = uniqueId('greeting');
      const response = await api.post(`/api/users/${user}/emit`, { event, data: { text: 'hello' } });
      assert.equal(response.status, 200, response.text);
      assert.match(response.json.timestamp, RFC_3339);
      assert.deepEqual(await one.next(event), { text: 'hello' });
      assert.deepEqual(await other.next(event), { text: 'hello' });

      const sentinel = uniqueId('sentinel');
      await api.post('/api/broadcast', { event: sentinel, data: null });
      await stranger.next(sentinel);
      assert.deepEqual(
        stranger.log.items.filter(({ name }) => name === event),
        [],
      );
    });

    it('is a success where nobody listens', async () => {
      const response = await api.post(`/api/users/${uniqueId('nobody')}/emit`, { event: 'greeting', data: 1 });
      assert.equal(response.status, 200, response.text);
    });

    it('refuses a user id of the wrong form', async () => {
      assertProblem(await api.post('/api/users/a%20b/emit', { event: 'greeting', data: 1 }), 422);
    });
  });

  for (const [what, path] of [
    ['broadcast', '/api/broadcast'],
    ['emit', '/api/users/anna/emit'],
  ]) {
    it(`${what} takes names of 1 to 64 of the right characters`, async () => {
      for (const event of ['x', 'AZaz09_.:-', 'n'.repeat(64), 'job:other', 'Connect']) {
        const response = await api.post(path, { event, data: 1 });
        assert.equal(response.status, 200, `${event}: ${response.text}`);
      }
    });

    it(`${what} refuses other names, and reserved ones`, async () => {
      const bad = ['', 'n'.repeat(65), 'two words', 'naïve', 'a/b', 'a@b', 'a\nb', ...RESERVED, ...JOB_EVENTS];
      for (const event of [...bad, 5, null, ['x'], undefined]) {
        assertProblem(await api.post(path, { event, data: 1 }), 422, { code: 'invalid_payload', mention: 'event' });
      }
    });

    it(`${what} refuses bodies as publishing does`, async () => {
      assertProblem(await api.post(path, ''), 400);
      assertProblem(await api.post(path, '{"event":'), 400);
      assertProblem(await api.post(path, '[]'), 422);
      assertProblem(await api.post(path, { event: 'x', data: 'x'.repeat(1024 * 1024) }), 413);
      const text = { body: '{"event":"x"}', headers: { 'content-type': 'text/plain' } };
      assertProblem(await api.request('POST', path, text), 415);
    });
  }

  describe('the list of clients', () => {
    const client = async (clientId) => {
      const response = await api.get(`/api/clients/${encodeURIComponent(clientId)}`);
      return response.status === 404 ? undefined : response.json;
    };

    it('describes a client', async (t) => {
      const clientId = uniqueId('client');
      const before = Date.now();
      const watcher = await connect(t, context.gateway, {
        auth: { clientId },
        extraHeaders: { 'user-agent': 'watcher/1.0' },
      });
      await watcher.subscribe({ jobId: 'j-1' });
      await watcher.subscribe({ userId: 'anna' });
      const found = await eventually(async () => {
        const record = await client(clientId);
        return record?.subscriptions.length === 2 && record;
      }, 'both subscriptions');
      assert.equal(found.clientId, clientId);
      assert.equal(found.transport, 'websocket');
      assert.equal(found.userAgent, 'watcher/1.0');
      assert.match(found.address, /127\.0\.0\.1/);
      assert.equal(found.userId ?? null, null);
      assert.notEqual(found.node ?? '', '');
      assert.deepEqual(found.subscriptions.toSorted(), ['job:j-1', 'user:anna']);
      const connectedAt = new Date(found.connectedAt).getTime();
      assert.ok(connectedAt >= before - 1000 && connectedAt <= Date.now(), `${found.connectedAt}`);

      await watcher.ask('unsubscribe:jobs', { jobId: 'j-1' });
      await eventually(async () => (await client(clientId)).subscriptions.join() === 'user:anna', 'one subscription');
    });

    it('names a client by its socket id where it gave no name', async (t) => {
      const watcher = await connect(t, context.gateway, { transports: ['polling'] });
      const found = await eventually(() => client(watcher.socket.id), 'the record');
      assert.equal(found.clientId, watcher.socket.id);
      assert.equal(found.transport, 'polling');
      assert.deepEqual(found.subscriptions, []);
    });

    it('forgets a client that leaves', async (t) => {
      const clientId = uniqueId('leaving');
      const watcher = await connect(t, context.gateway, { auth: { clientId } });
      await eventually(() => client(clientId), 'the record');
      watcher.close();
      await eventually(async () => !(await client(clientId)), 'no record');
      assertProblem(await api.get(`/api/clients/${clientId}`), 404);
    });

    it('lists all in pages', async (t) => {
      const ids = Array.from({ length: 7 }, () => uniqueId('page'));
      for (const clientId of ids) await connect(t, context.gateway, { auth: { clientId } });
      await eventually(async () => (await Promise.all(ids.map(client))).every(Boolean), 'seven records');

      const everybody = await api.get('/api/clients');
      assert.equal(everybody.status, 200);
      const known = new Set(everybody.json.clients.map((record) => record.clientId));
      for (const clientId of ids) assert.ok(known.has(clientId), clientId);

      const read = [];
      let cursor;
      for (let page = 0; ; page += 1) {
        assert.ok(page < 100, 'the pages end');
        const query = cursor === undefined ? '?limit=2' : `?limit=2&cursor=${encodeURIComponent(cursor)}`;
        const response = await api.get(`/api/clients${query}`);
        assert.equal(response.status, 200, response.text);
        assert.ok(response.json.clients.length <= 2, `${response.json.clients.length} clients on a page of 2`);
        read.push(...response.json.clients.map((record) => record.clientId));
        cursor = response.json.cursor ?? undefined;
        if (cursor === undefined) break;
      }
      assert.deepEqual(
        ids.filter((clientId) => read.filter((seen) => seen === clientId).length !== 1),
        [],
        'every client once',
      );
    });

    it('refuses a cursor of the wrong form', async () => {
      assertProblem(await api.get('/api/clients?cursor=%00%22nonsense'), 422);
    });

    it('gives a record to the newest connection of a name, and leaves it there when the older one goes', async (t) => {
      const clientId = uniqueId('taken-over');
      const room = uniqueId('older');
      const older = await connect(t, context.gateway, { auth: { clientId } });
      await older.subscribe({ jobId: room });
      await eventually(() => client(clientId), 'the record');
      const newer = await connect(t, context.gateway, { auth: { clientId }, transports: ['polling'] });
      await eventually(async () => (await client(clientId))?.transport === 'polling', 'the newer connection');
      await newer.subscribe({ jobId: 'newer' });

      older.close();
      await eventually(async () => (await api.roomSize(`job:${room}`)) === 0, 'the older one to be gone');
      const record = await eventually(async () => {
        const found = await client(clientId);
        return found?.subscriptions.join() === 'job:newer' && found;
      }, 'the record of the newer connection');
      assert.equal(record.transport, 'polling');

      newer.close();
      await eventually(async () => !(await client(clientId)), 'no record');
    });
  });

  describe('the size of a room', () => {
    it('counts sessions, of whatever transport, once each', async (t) => {
      const jobId = uniqueId('room');
      const room = `job:${jobId}`;
      assert.equal(await api.roomSize(room), 0);
      const one = await connect(t, context.gateway);
      await one.subscribe({ jobId });
      await one.subscribe({ jobId });
      await eventually(async () => (await api.roomSize(room)) === 1, 'one session');
      const other = await connect(t, context.gateway, { transports: ['polling'] });
      await other.subscribe({ jobId });
      await eventually(async () => (await api.roomSize(room)) === 2, 'two sessions');
      await one.ask('unsubscribe:jobs', { jobId });
      await eventually(async () => (await api.roomSize(room)) === 1, 'one session again');
      other.close();
      await eventually(async () => (await api.roomSize(room)) === 0, 'an empty room');
    });

    it('counts streams of Server-Sent Events too', async (t) => {
      const jobId = uniqueId('streamed');
      const stream = await openStream(t, context.gateway, `/api/jobs/${jobId}/events`);
      const watcher = await connect(t, context.gateway);
      await watcher.subscribe({ jobId });
      await eventually(async () => (await api.roomSize(`job:${jobId}`)) === 2, 'both');
      stream.close();
      await eventually(async () => (await api.roomSize(`job:${jobId}`)) === 1, 'one');
    });

    it('knows rooms of every kind', async (t) => {
      const [user, tenant] = [uniqueId('anna'), uniqueId('acme')];
      const watcher = await connect(t, context.gateway);
      await watcher.subscribe({ userId: user });
      await watcher.subscribe({ tenantId: tenant });
      await watcher.subscribe();
      await eventually(async () => (await api.roomSize(`user:${user}`)) === 1, 'the user');
      await eventually(async () => (await api.roomSize(`tenant:${tenant}`)) === 1, 'the tenant');
      await eventually(async () => (await api.roomSize('all-jobs')) >= 1, 'all jobs');
    });
  });
});
