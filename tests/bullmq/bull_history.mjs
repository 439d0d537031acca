// Makes one scripted history in a real Redis with a real Bull, waits until it rests, and prints what
// Bull itself then says of it, as JSON. Commands as of history.mjs.
// Usage: node bull_history.mjs bull3|bull4 PORT QUEUE PREFIX
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [version, port, queueName, prefix] = process.argv.slice(2);
const Bull = createRequire(import.meta.url)(version);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const redis = { port: Number(port), host: '127.0.0.1', maxRetriesPerRequest: null };
const queue = new Bull(queueName, { redis, prefix });
const worker = new Bull(queueName, { redis, prefix });
worker.process('*', 5, async (job) => {
  if (job.name === 'fails') throw new Error(`cannot reach "imap.example.org"\nattempt of ${job.id} ✉`);
  if (job.name === 'hangs') await new Promise(() => {});
  return job.name === 'silent' ? undefined : { done: job.id, parts: [1, 2.5, null] };
});

const settled = async (states, expected) => {
  for (let i = 0; i < 2400; i++) {
    const counts = await queue.getJobCounts(...states);
    if (Object.values(counts).reduce((a, b) => a + b, 0) === expected) return;
    await sleep(25);
  }
  throw new Error(`${JSON.stringify(await queue.getJobCounts())}: not settled`);
};

// 12 complete, 7 fail after 3 attempts, with backoff or without.
for (let i = 0; i < 12; i++) {
  await queue.add(i % 3 ? 'initial-import' : 'silent', { ingestionSourceId: `src-${i}`, i, text: 'ünï "q" \n' });
}
for (let i = 0; i < 7; i++) {
  await queue.add('fails', { ingestionSourceId: null, i }, {
    attempts: 3, ...(i % 2 && { backoff: { type: 'fixed', delay: 10 } }), jobId: i === 0 ? 'continuous-sync:a:b' : undefined,
    removeOnFail: 5000, removeOnComplete: 1000,
  });
}
await settled(['completed', 'failed'], 19);

// One is active, and stays so.
await queue.add('hangs', {});
await settled(['active'], 1);
await worker.pause(true, true);
for (let i = 0; i < 5; i++) await queue.add('delayed', { i }, { delay: 3_600_000 + i * 1000 });
for (let i = 0; i < 23; i++) await queue.add('index-email-batch', [i]);
// Jobs with a priority stand before the others, in the same list.
for (let i = 0; i < 6; i++) await queue.add('urgent', { i }, { priority: 1 + (i % 3) });
await queue.add('nightly', {}, { repeat: { every: 86_400_000 } });
await queue.add('weekly', {}, { repeat: { cron: '0 4 * * 1', tz: 'Europe/Berlin' } });

const plain = (job) => ({
  id: job.id, name: job.name, data: job.data,
  failedReason: job.failedReason ?? null, timestamp: job.timestamp,
  processedOn: job.processedOn ?? null, finishedOn: job.finishedOn ?? null,
  attemptsMade: job.attemptsMade, stacktrace: job.stacktrace, returnValue: job.returnvalue ?? null,
});
const NONE = { prioritized: 0, 'waiting-children': 0 };
const read = async () => {
  // Bull 3 counts every connection of the queue.
  const workers = Math.min((await queue.getWorkers()).length, 1);
  const jobs = { prioritized: [], 'waiting-children': [] };
  for (const state of ['active', 'completed', 'delayed', 'failed', 'paused', 'waiting']) {
    jobs[state] = (await queue.getJobs([state], 0, 999, true)).map(plain);
  }
  return { counts: { ...NONE, ...(await queue.getJobCounts()) }, jobs, workers };
};

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
// Between the answers the test looks at the same state through the exporter.
say(await read());
for await (const command of createInterface({ input: process.stdin })) {
  if (command === 'pause') await queue.pause();
  else if (command === 'resume') await queue.resume();
  else break;
  say(await read());
}
process.exit(0);
