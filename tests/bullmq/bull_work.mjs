// Adds jobs and works on them with a real Bull, and writes down what really happens.
// Usage: node bull_work.mjs bull3|bull4 PORT PREFIX
// Commands, a JSON list a line, answered with a JSON line each; jobs are as work.mjs does them:
//   ["add", queue, name, count, options]   adds jobs; data.i counts them
//   ["addJobs", queue, jobs]               adds them, as Queue.addBulk takes them
//   ["work", queue, options]               starts a worker of all names; `truth` returns its truth
//   ["settle"]                             waits until no job is waiting, active or delayed
//   ["call", queue, method, ...args]       calls a method of the queue
//   ["retry", queue, id]                   retries a failed job by hand
//   ["truth"]                              what has happened by now
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [version, port, prefix] = process.argv.slice(2);
const Bull = createRequire(import.meta.url)(version);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const queues = {}, workers = [], counts = {};
const redis = { port: Number(port), host: '127.0.0.1', maxRetriesPerRequest: null };
const open = (name) => (queues[name] ??= new Bull(name, { redis, prefix }));
const count = (queue, name, what) => {
  const of = ((counts[queue] ??= {})[name] ??= {});
  of[what] = (of[what] ?? 0) + 1;
};

// What a job does is in its name: `fails`, `fails-first`, `sleeps-300`, `throws` (data.reason),
// `logs` (data.lines, then fails), `discards` (fails for good), `stalls` (hangs, and its lock is let go); all others complete.
async function process_(job) {
  const name = job.name;
  if (name === 'stalls' && job.attemptsMade === 0 && !job.data.stalled) {
    await job.update({ ...job.data, stalled: true });
    await job.releaseLock().catch(() => {});
    await new Promise(() => {});
  }
  if (name.startsWith('sleeps-')) await sleep(Number(name.slice(7)));
  if (name === 'fails') throw new Error(`no answer for ${job.id}`);
  if (name === 'fails-first' && job.attemptsMade === 0) throw new Error('not yet');
  if (name === 'throws') throw new Error(job.data.reason);
  if (name === 'logs') {
    for (let i = 1; i <= job.data.lines; i++) await job.log(`line ${i}`);
    await job.progress({ done: 40, token: 'secret-progress' });
    throw new Error('in the middle');
  }
  if (name === 'discards') {
    await job.discard();
    throw new Error('never');
  }
  return { done: job.id };
}

const commands = {
  async add(queue, name, number, options = {}) {
    const jobs = Array.from({ length: number }, (_, i) => ({ name, data: { i }, opts: options }));
    await commands.addJobs(queue, jobs);
  },
  async addJobs(queue, jobs) {
    for (let at = 0; at < jobs.length; at += 500) await open(queue).addBulk(jobs.slice(at, at + 500));
    for (const job of jobs) count(queue, job.name, 'added');
  },
  async work(queue, { concurrency = 1, ...options } = {}) {
    const worker = new Bull(queue, { redis, prefix, ...options });
    worker.process('*', concurrency, process_);
    worker.on('completed', (job) => count(queue, job.name, 'completed'));
    worker.on('failed', (job) => count(queue, job.name, job.finishedOn ? 'failed' : 'retried'));
    worker.on('stalled', (job) => count(queue, job.name, 'stalled'));
    workers.push(worker);
    queues[queue] ??= worker;
    await worker.isReady();
  },
  async settle() {
    for (const queue of Object.values(queues)) {
      for (let still = 1; still; await sleep(20)) {
        const now = await queue.getJobCounts('waiting', 'active', 'delayed');
        still = Object.values(now).reduce((a, b) => a + b, 0);
      }
    }
    // The workers' own events: their answers have come, so some turns of the event loop.
    for (let turn = 0; turn < 10; turn++) await sleep(20);
    return counts;
  },
  retry: async (queue, id) => (await open(queue).getJob(id)).retry(),
  call: (queue, method, ...args) => open(queue)[method](...args).then((result) => result ?? null),
  truth: async () => counts,
};

process.stdout.write('"ready"\n');
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...args] = JSON.parse(line);
  process.stdout.write(`${JSON.stringify((await commands[command](...args)) ?? null)}\n`);
}
process.exit(0);
