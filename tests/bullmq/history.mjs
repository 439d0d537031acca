// Makes one scripted history in a real Redis or PostgreSQL with a real BullMQ, waits until it rests,
// and prints what BullMQ itself then says of it, as JSON.
// Usage: node history.mjs bullmq5|bullmq6 PORT|URL QUEUE PREFIX
import { open } from './backend.mjs';

const [version, place, queueName, prefix] = process.argv.slice(2);
const { bullmq, options } = await open(version, place, prefix);
const { Queue, Worker, FlowProducer, Job } = bullmq;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const STATES = ['active', 'completed', 'delayed', 'failed', 'paused', 'prioritized', 'waiting', 'waiting-children'];

const queue = new Queue(queueName, options);
const flow = new FlowProducer(options);

let release;
const held = new Promise((resolve) => { release = resolve; });
const worker = new Worker(queueName, async (job) => {
  if (job.name === 'fails') throw new Error(`cannot reach "imap.example.org"\nattempt of ${job.id} ✉`);
  if (job.name === 'hangs') await held;
  return job.name === 'silent' ? undefined : { done: job.id, parts: [1, 2.5, null] };
}, { ...options, concurrency: 5, name: 'tester' });

const settled = async (states, expected) => {
  for (let i = 0; i < 2400; i++) {
    const counts = await queue.getJobCounts(...states);
    if (Object.values(counts).reduce((a, b) => a + b, 0) === expected) return;
    await sleep(25);
  }
  throw new Error(`${JSON.stringify(await queue.getJobCounts())}: not settled`);
};

// 12 complete, 7 fail after 5 attempts with backoff.
for (let i = 0; i < 12; i++) {
  await queue.add(i % 3 ? 'initial-import' : 'silent', { ingestionSourceId: `src-${i}`, i, text: 'ünï "q" \n' });
}
for (let i = 0; i < 7; i++) {
  await queue.add('fails', { ingestionSourceId: null, i }, {
    attempts: 5, backoff: { type: 'fixed', delay: 10 }, jobId: i === 0 ? 'continuous-sync:a:b' : undefined,
    removeOnFail: { count: 5000 }, removeOnComplete: 1000,
  });
}
await settled(['completed', 'failed'], 19);

// One is active, a flow's parent waits for its children; both stay so.
await queue.add('hangs', {});
await settled(['active'], 1);
await worker.pause(true);
await flow.add({
  name: 'sync-cycle-finished', queueName, prefix, data: { parent: true },
  children: [
    { name: 'process-mailbox', queueName, prefix, data: { child: 1 } },
    { name: 'process-mailbox', queueName, prefix, data: { child: 2 } },
  ],
});
for (let i = 0; i < 5; i++) await queue.add('delayed', { i }, { delay: 3_600_000 + i * 1000 });
for (let i = 0; i < 6; i++) await queue.add('urgent', { i }, { priority: 1 + (i % 3) });
for (let i = 0; i < 23; i++) await queue.add('index-email-batch', [i]);
if (queue.upsertJobScheduler) await queue.upsertJobScheduler('nightly', { every: 86_400_000 }, { name: 'nightly' });

const plain = (job) => ({
  id: job.id, name: job.name, data: job.data,
  failedReason: job.failedReason ?? null, timestamp: job.timestamp,
  processedOn: job.processedOn ?? null, finishedOn: job.finishedOn ?? null,
  attemptsMade: job.attemptsMade, stacktrace: job.stacktrace, returnValue: job.returnvalue ?? null,
});
// Waiting and paused jobs in one list per layout, so that a paused queue can be compared too.
const listed = (state) => (state === 'waiting' ? ['wait'] : [state]);
const read = async () => {
  const jobs = {};
  for (const state of STATES) {
    jobs[state] = [];
    for (const type of listed(state)) {
      if (version === 'bullmq6' && type === 'paused') continue;
      const found = type === 'wait' && version === 'bullmq6' ? await queue.getJobs(['waiting'], 0, -1, true)
        : await queue.getJobs([type], 0, -1, true);
      jobs[state].push(...found.map(plain));
    }
  }
  // In PostgreSQL the jobs of a paused queue are no longer `waiting`, and only counted where asked for.
  const states = place.startsWith('postgres') ? STATES : [];
  return { counts: await queue.getJobCounts(...states), jobs, workers: await queue.getWorkersCount() };
};

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const next = (() => {
  process.stdin.setEncoding('utf8');
  const lines = [];
  let wake = () => {};
  process.stdin.on('data', (chunk) => { lines.push(...chunk.split('\n').filter(Boolean)); wake(); });
  process.stdin.on('end', () => { lines.push('end'); wake(); });
  return async () => {
    while (!lines.length) await new Promise((resolve) => { wake = resolve; });
    return lines.shift();
  };
})();

// Between the answers the test looks at the same state through the exporter.
say(await read());
for (;;) {
  const command = await next();
  if (command === 'pause') await queue.pause();
  else if (command === 'resume') await queue.resume();
  else break;
  say(await read());
}
release();
await worker.close(true);
await flow.close();
await queue.close();
process.exit(0);
