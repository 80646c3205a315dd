// python-socketio, which shares no code with the JavaScript client.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { assertRefused, uniqueId } from './support/clients.mjs';
import { startProcess } from './support/processes.mjs';
import { pythonPrograms } from './support/python.mjs';
import { describeEachStore } from './support/stores.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const packages = ['python-socketio[client]>=5.11,<6', 'websocket-client>=1.7,<2', 'requests>=2.31,<3'];

describeEachStore('python-socketio', (context) => {
  const { api } = context;
  let interpreter;
  before(async () => {
    interpreter = join(await pythonPrograms('python', packages), 'python');
  });

  for (const transport of ['websocket', 'polling']) {
    it(`watches a job over ${transport}`, async (t) => {
      const jobId = uniqueId('python');
      const data = '{"n":9007199254740993,"list":[1,"ü\u{1F600}",null]}';
      await api.update(jobId, `{"status":"queued","data":${data}}`);

      const client = await startProcess(
        interpreter,
        [join(here, 'python_client.py'), context.gateway.url, transport, jobId],
        {
          ready: (line) => line.startsWith('["subscribed"'),
        },
      );
      t.after(() => client.kill());
      for (const progress of [10, 20.5, 30]) await api.progress(jobId, progress);
      await api.completed(jobId, { result: { ok: true } });
      assert.equal(await client.finished(), 0, client.stderr());

      const said = client
        .stdout()
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      const values = Object.fromEntries(said.filter(([name]) => !name.startsWith('job:')));
      assert.equal(values.transport, transport);
      assert.equal(values.subscribed.success, true);
      assert.equal(values.subscribed.room, `job:${jobId}`);
      assert.deepEqual([values.subscribed.recovered, values.subscribed.replaying], [true, 1]);

      const stored = await api.history(jobId);
      assert.deepEqual(
        said.filter(([name]) => name.startsWith('job:')),
        stored.map((event) => [event.event, event]),
      );
      // Python keeps whole numbers of any size, where JSON.parse does not.
      assert.ok(client.stdout().includes('"n": 9007199254740993'), client.stdout());

      assert.deepEqual(values.history, { success: true, jobId, events: stored });
      assertRefused(values.refused, 'invalid_payload');
      assertRefused(values.unknown, 'unknown_event');
      assert.equal(values.exception.status, 'error');
      assert.equal(values.exception.code, 'unknown_event');
      assert.equal(values.everything.room, 'all-jobs');
      assert.ok(Array.isArray(values.everything.latest));
      assert.equal(values.left.success, true);
    });
  }
});
