// Works at full speed: adds JOBS jobs, then processes them with a worker that does nothing.
// Usage: node load.mjs bullmq5|bullmq6 PORT QUEUE JOBS CONCURRENCY
// Prints "added" as a JSON line, waits for a line, works, and prints what it did.
const [version, port, name, jobs, concurrency] = process.argv.slice(2);
const { Queue, Worker } = await import(version);
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
const queue = new Queue(name, { connection });
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const options = { removeOnComplete: { count: 1000 }, removeOnFail: { count: 5000 } };
for (let at = 0; at < Number(jobs); at += 1000) {
  const batch = Array.from({ length: 1000 }, (_, i) => ({ name: 'process-mailbox', data: { i: at + i }, opts: options }));
  await queue.addBulk(batch);
}
say('added');
await new Promise((resolve) => process.stdin.once('data', resolve));

let done = 0;
const began = process.hrtime.bigint();
const worker = new Worker(name, async (job) => ({ batches: job.data.i % 3 }), { connection, concurrency: Number(concurrency) });
await new Promise((resolve) => worker.on('completed', () => { done += 1; if (done === Number(jobs)) resolve(); }));
say({ jobs: done, seconds: Number(process.hrtime.bigint() - began) / 1e9 });
process.exit(0);
