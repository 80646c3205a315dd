// What clients get wrong over Socket.IO: a clear error for them, and nothing for anybody else.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  assertRefused,
  CLOSED,
  connect,
  connectByHand,
  eventually,
  inTime,
  sequenceNumbers,
  uniqueId,
} from './support/clients.mjs';
import { describeEachStore } from './support/stores.mjs';

const badIds = [
  '',
  'a b',
  'a/b',
  'ümlaut',
  'a\u0000b',
  '{x}',
  'x'.repeat(129),
  'x'.repeat(10_000),
  true,
  {},
  [],
  ['x'],
];
const noObjects = [[], [{ jobId: 'x' }], 'text', '', 5, 0, true, false];

const invalidRequests = [
  ...['subscribe:jobs', 'unsubscribe:jobs'].flatMap((event) => [
    ...noObjects.map((payload) => [event, payload]),
    ...['jobId', 'userId', 'tenantId'].flatMap((field) => badIds.map((id) => [event, { [field]: id }])),
    // A page whose id is not there yet must not get everybody's jobs.
    ...['jobId', 'userId', 'tenantId'].map((field) => [event, { [field]: null }]),
    [event, { jobId: null, userId: null, tenantId: null, since: null, replay: null }],
    ...['job', 'jobid', 'room', 'limit', '__proto__x', ''].map((member) => [event, { [member]: 'x' }]),
    [event, { jobId: 'x', userID: 'anna' }],
  ]),
  ...['abc', '', true, {}, [1], 1.5, -1, '1795892034735-0'].map((since) => ['subscribe:jobs', { jobId: 'x', since }]),
  ...[{ userId: 'x' }, { tenantId: 'x' }, {}].flatMap((room) =>
    ['yesterday', '', true, {}, [1], -1, 1.5, '-1', '1-', '1-2-3', 'a-1', '2024-13-45T00:00:00Z'].map((since) => [
      'subscribe:jobs',
      { ...room, since },
    ]),
  ),
  ...[{ userId: 'x' }, { tenantId: 'x' }, {}].map((room) => ['subscribe:jobs', { ...room, replay: 5 }]),
  ...['abc', '', true, {}, [1], 1.5, -1].map((replay) => ['subscribe:jobs', { jobId: 'x', replay }]),
  ...noObjects.map((payload) => ['history:jobs', payload]),
  ...badIds.map((jobId) => ['history:jobs', { jobId }]),
  ['history:jobs', {}],
  ['history:jobs', null],
  ['history:jobs', { jobId: null }],
  ['history:jobs', { userId: 'anna' }],
  ...[0, -1, 1.5, 'abc', '', true, {}].map((limit) => ['history:jobs', { jobId: 'x', limit }]),
  ...['abc', true, {}, 1.5].map((since) => ['history:jobs', { jobId: 'x', since }]),
];

const unknownEvents = ['nonsense', 'subscribe', 'subscribe:job', 'job:update', 'SUBSCRIBE:JOBS', '__proto__', ''];

const malformedPackets = {
  'an event that is no array': '42/jobs,{"a":1}',
  'an event without a name': '42/jobs,[]',
  'an event whose name is no text': '42/jobs,[5,{}]',
  'half an event': '42/jobs,["subscribe:jobs",{"jobId":',
  'no packet at all': 'nonsense',
  'an empty frame': '',
  'an unknown packet type': '49/jobs,["x"]',
  'an acknowledgement of nothing': '43/jobs,77["x"]',
  'an event of another namespace': '42/other,["subscribe:jobs"]',
  'a second connect': '40/jobs,',
  'a payload nested 200 deep': `42/jobs,1["subscribe:jobs",${'['.repeat(200)}${']'.repeat(200)}]`,
  'a payload nested 50,000 deep': `42/jobs,1["subscribe:jobs",${'['.repeat(50_000)}${']'.repeat(50_000)}]`,
  'a binary event without its attachments': '451-/jobs,["subscribe:jobs",{"_placeholder":true,"num":0}]',
  'attachments that nobody announced': Buffer.from([1, 2, 3]),
  'more attachments than anybody has': '4599999999-/jobs,["subscribe:jobs"]',
  'a huge number as id of the acknowledgement': '42/jobs,99999999999999999999999["subscribe:jobs"]',
  'a frame of 20 MB': `42/jobs,["subscribe:jobs",{"jobId":"${'x'.repeat(20_000_000)}"}]`,
};

const shorten = (payload) => {
  const text = JSON.stringify(payload);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
};

describeEachStore('refusing over socket.io', (context) => {
  const { api } = context;
  const join = (t, options) => connect(t, context.gateway, options);

  const assertUsable = async (watcher) => {
    const jobId = uniqueId('usable');
    await watcher.subscribe({ jobId });
    const event = await api.update(jobId);
    assert.deepEqual(sequenceNumbers(await watcher.through(event)), [event.seq]);
  };

  for (const event of ['subscribe:jobs', 'unsubscribe:jobs', 'history:jobs']) {
    it(`${event}: payloads of the wrong form`, async (t) => {
      // A client for each few, as one has only so many messages a second.
      const requests = invalidRequests.filter(([name]) => name === event);
      for (let index = 0; index < requests.length; index += 20) {
        const watcher = await join(t);
        for (const [, payload] of requests.slice(index, index + 20)) {
          const answer = await watcher.ask(event, payload);
          assert.equal(answer?.success, false, `${event} ${shorten(payload)}: ${JSON.stringify(answer)}`);
          assertRefused(answer, 'invalid_payload');
        }
        await assertUsable(watcher);
      }
    });
  }

  it('changes nothing', async (t) => {
    const jobId = uniqueId('unchanged');
    const clientId = uniqueId('client');
    const watcher = await join(t, { auth: { clientId } });
    await watcher.subscribe({ jobId });
    assertRefused(await watcher.ask('subscribe:jobs', { jobId: 'other', since: 'abc' }), 'invalid_payload');
    assertRefused(await watcher.ask('subscribe:jobs', { jobId: '', userId: 'anna' }), 'invalid_payload');
    assertRefused(await watcher.ask('unsubscribe:jobs', { jobId: '' }), 'invalid_payload');
    await watcher.subscribe({ jobId: 'last' });
    const record = await eventually(async () => {
      const { json } = await api.get(`/api/clients/${clientId}`);
      return json.subscriptions.includes('job:last') && json;
    }, 'the last subscription');
    assert.deepEqual(record.subscriptions.toSorted(), [`job:${jobId}`, 'job:last'].sort());
    assert.deepEqual(
      watcher.log.items.filter(({ name }) => name === 'exception'),
      [],
      'one that was acknowledged is not told twice',
    );
  });

  it('unknown events', async (t) => {
    const watcher = await join(t);
    for (const event of unknownEvents) assertRefused(await watcher.ask(event, {}), 'unknown_event');
    assertRefused(await watcher.ask('nonsense'), 'unknown_event');
    await assertUsable(watcher);
  });

  it('tells a client without an acknowledgement callback by an exception', async (t) => {
    for (const client of [4, 3]) {
      const watcher = await join(t, { client });
      watcher.socket.emit('subscribe:jobs', { jobId: '' });
      watcher.socket.emit('nonsense');
      watcher.socket.emit('history:jobs', {});
      await watcher.log.until((items) => items.length === 3, 'three exceptions');
      assert.deepEqual(
        watcher.log.items.map(({ name, payload }) => [name, payload.status, payload.code]),
        [
          ['exception', 'error', 'invalid_payload'],
          ['exception', 'error', 'unknown_event'],
          ['exception', 'error', 'invalid_payload'],
        ],
      );
      for (const { payload, args } of watcher.log.items) {
        assert.equal(typeof payload.message, 'string');
        assert.notEqual(payload.message, '');
        assert.equal(args.length, 1);
      }
      await assertUsable(watcher);
    }
  });

  it('more than 100 rooms for one client', async (t) => {
    const watcher = await join(t);
    const rooms = Array.from({ length: 100 }, () => uniqueId('room'));
    for (const jobId of rooms) await watcher.subscribe({ jobId });
    const extra = uniqueId('extra');
    assertRefused(await watcher.ask('subscribe:jobs', { jobId: extra }), 'limit_reached');
    assert.equal(await api.roomSize(`job:${extra}`), 0);
    await watcher.subscribe({ jobId: rooms[0] });
    await watcher.ask('unsubscribe:jobs', { jobId: rooms[0] });
    await watcher.subscribe({ jobId: extra });
    const event = await api.update(extra);
    await watcher.through(event);
    await watcher.through(await api.update(rooms[99]));
  });

  describe('packets that no library would send', () => {
    for (const [what, packet] of Object.entries(malformedPackets)) {
      it(what, async (t) => {
        const jobId = uniqueId('bystander');
        const bystanders = [await join(t), await join(t, { transports: ['polling'] })];
        for (const bystander of bystanders) await bystander.subscribe({ jobId });
        const { socket, frames } = await connectByHand(t, context.gateway);
        socket.send(packet);
        // Whichever the gateway chooses, a refusal or the end of this connection, it has read the packet then.
        socket.send('42/jobs,5["history:jobs",{"jobId":"x"}]', () => {});
        await frames.find((frame) => frame === CLOSED || frame.startsWith('43/jobs,5'), 'an answer or the end');

        const event = await api.update(jobId);
        for (const bystander of bystanders) {
          assert.deepEqual(sequenceNumbers(await bystander.through(event)), [event.seq]);
          await assertUsable(bystander);
        }
        await assertUsable(await join(t));
      });
    }

    it('over polling', async (t) => {
      const bystander = await join(t, { transports: ['polling'] });
      const url = `/socket.io/?EIO=4&transport=polling`;
      for (const body of ['nonsense', '', '42/jobs,[', `4${'['.repeat(50_000)}`, '\u001e\u001e', 'b!!!!']) {
        const opened = await api.get(url);
        const { sid } = JSON.parse(opened.text.slice(1));
        const options = { body, headers: { 'content-type': 'text/plain;charset=UTF-8' } };
        const answer = await api.request('POST', `${url}&sid=${sid}`, options);
        assert.ok(answer.status < 500, `${answer.status} to ${body.slice(0, 20)}`);
      }
      const unknown = await api.get(`${url}&sid=nobody`);
      assert.equal(unknown.status, 400);
      await assertUsable(bystander);
    });

    it('an event over the limit on payloads', async (t) => {
      const bystander = await join(t);
      for (const transports of [['websocket'], ['polling']]) {
        const watcher = await join(t, { transports });
        const huge = { jobId: 'x'.repeat(1024 * 1024) };
        const answer = await inTime(
          new Promise((resolve) => {
            watcher.socket.once('disconnect', () => resolve(CLOSED));
            watcher.socket.emit('subscribe:jobs', huge, resolve);
          }),
          'an answer or the end',
        );
        if (answer !== CLOSED) assertRefused(answer, 'invalid_payload');
        await assertUsable(bystander);
      }
    });
  });
});
