// Adds jobs and works on them with a real BullMQ, and writes down what really happens.
// Usage: node work.mjs bullmq5|bullmq6 PORT|URL PREFIX
// Commands, a JSON list a line, answered with a JSON line each:
//   ["add", queue, name, count, options]   adds jobs; data.i counts them
//   ["addJobs", queue, jobs]               adds them, as Queue.addBulk takes them
//   ["flow", tree]                         adds a parent with its children
//   ["work", queue, options]               starts a worker; `truth` returns its truth
//   ["settle"]                             waits until no job is waiting, active or delayed
//   ["call", queue, method, ...args]       calls a method of the queue
//   ["retry", queue, id]                   retries a failed job by hand
//   ["retryAll", queue, state, options]    Job.retry() of each job of the state; how many
//   ["truth"]                              what has happened by now
import { createInterface } from 'node:readline';
import { open as backend } from './backend.mjs';

const [version, place, prefix] = process.argv.slice(2);
const { bullmq, options: where } = await backend(version, place, prefix);
const { FlowProducer, Queue, Worker, UnrecoverableError, DelayedError, RateLimitError } = bullmq;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const queues = {}, workers = [], counts = {};
const open = (name) => (queues[name] ??= new Queue(name, where));
const count = (queue, name, what) => {
  const of = ((counts[queue] ??= {})[name] ??= {});
  of[what] = (of[what] ?? 0) + 1;
};

// What a job does is in its name: `fails`, `fails-first`, `unrecoverable`, `sleeps-300`,
// `throws` (data.reason), `logs` (data.lines, then fails), `delays-itself`, `rate-limits`, `stalls` (hangs in its first attempt); all others complete.
// `fails-delays-itself` and `fails-rate-limits` fail in their first attempt and do so in the next, data.times times.
async function process_(worker, job, token) {
  const name = job.name ?? '';
  if (name === 'stalls' && job.attemptsStarted <= 1) await new Promise(() => {});
  if (name.startsWith('sleeps-')) await sleep(Number(name.slice(7)));
  if (name === 'fails') throw new Error(`no answer for ${job.id}`);
  if (name === 'fails-first' && job.attemptsMade === 0) throw new Error('not yet');
  if (name === 'throws') throw Object.assign(new Error(job.data.reason), job.data.stack && { stack: job.data.stack });
  if (name === 'logs') {
    for (let i = 1; i <= job.data.lines; i++) await job.log(`line ${i}`);
    await job.updateProgress({ done: 40, token: 'secret-progress' });
    throw new Error('in the middle');
  }
  if (name === 'unrecoverable') throw new UnrecoverableError('never');
  if (name === 'delays-itself' && !job.data.delayed) {
    await job.updateData({ ...job.data, delayed: true });
    await job.moveToDelayed(Date.now() + 30, token);
    throw new DelayedError();
  }
  if (name.startsWith('fails-') && name !== 'fails-first') {
    if (job.attemptsMade === 0) throw new Error('not yet');
    const times = job.data.times ?? 1;
    if (times > 0) {
      await job.updateData({ ...job.data, times: times - 1 });
      if (name === 'fails-rate-limits') {
        await worker.rateLimit(20);
        throw new RateLimitError();
      }
      await job.moveToDelayed(Date.now() + 20, token);
      throw new DelayedError();
    }
  }
  if (name === 'rate-limits' && !job.data.limited) {
    await job.updateData({ ...job.data, limited: true });
    await worker.rateLimit(job.data.limit ?? 30);
    throw new RateLimitError();
  }
  return { done: job.id };
}

const commands = {
  async add(queue, name, number, options = {}) {
    const jobs = Array.from({ length: number }, (_, i) => ({ name, data: { i }, opts: options }));
    for (let at = 0; at < number; at += 500) await open(queue).addBulk(jobs.slice(at, at + 500));
    for (let i = 0; i < number; i++) count(queue, name, 'added');
  },
  async work(queue, options = {}) {
    open(queue);
    const worker = new Worker(queue, (job, token) => process_(worker, job, token), { ...where, ...options });
    worker.on('completed', (job) => count(queue, job.name, 'completed'));
    worker.on('failed', (job) => {
      if (!job) return;
      const final = job.finishedOn !== undefined;
      count(queue, job.name, final ? 'failed' : 'retried');
      if (final && job.attemptsMade >= job.opts.attempts) count(queue, job.name, 'retries_exhausted');
    });
    worker.on('stalled', () => {});
    workers.push(worker);
    await worker.waitUntilReady();
  },
  async settle() {
    for (const queue of Object.values(queues)) {
      for (let still = 1; still; await sleep(20)) {
        const now = await queue.getJobCounts('waiting', 'active', 'delayed', 'prioritized');
        still = Object.values(now).reduce((a, b) => a + b, 0);
      }
    }
    // The workers' own events: their answers have come, so some turns of the event loop.
    for (let turn = 0; turn < 10; turn++) await sleep(20);
    return counts;
  },
  async addJobs(queue, jobs) {
    for (let at = 0; at < jobs.length; at += 500) await open(queue).addBulk(jobs.slice(at, at + 500));
  },
  // A parent with its children, as FlowProducer.add takes them; its id.
  async flow(tree) {
    const flows = new FlowProducer(where);
    const { job } = await flows.add(tree);
    await flows.close();
    return job.id;
  },
  retry: async (queue, id) => (await open(queue).getJob(id)).retry(),
  async retryAll(queue, state, options) {
    const jobs = await open(queue).getJobs([state]);
    for (const job of jobs) await job.retry(state, options);
    return jobs.length;
  },
  call: (queue, method, ...args) => open(queue)[method](...args).then((result) => result ?? null),
  truth: async () => counts,
};

process.stdout.write('"ready"\n');
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...args] = JSON.parse(line);
  process.stdout.write(`${JSON.stringify((await commands[command](...args)) ?? null)}\n`);
}
process.exit(0);
