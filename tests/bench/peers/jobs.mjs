// A page of jobs as Open Archiver serves it: getJobs, then getState of each job, behind express.
// Usage: node jobs.mjs REDIS_PORT. Prints its own port.
import express from 'express';
import { Redis } from 'ioredis';
import { Queue } from 'bullmq5';

const connection = new Redis(Number(process.argv[2]), { maxRetriesPerRequest: null });
const queue = new Queue('ingestion', { connection });
await queue.waitUntilReady();
const states = ['active', 'completed', 'failed', 'delayed', 'waiting', 'paused'];

async function shown(job) {
  const state = await job.getState();
  return {
    id: job.id, name: job.name, data: job.data, state, failedReason: job.failedReason,
    timestamp: job.timestamp, processedOn: job.processedOn, finishedOn: job.finishedOn,
    attemptsMade: job.attemptsMade, stacktrace: job.stacktrace, returnValue: job.returnvalue,
    ingestionSourceId: job.data.ingestionSourceId,
    error: state === 'failed' ? job.stacktrace : undefined,
  };
}

const app = express();
app.get('/v1/jobs/queues/ingestion', async (request, response) => {
  const { status, page, limit } = request.query;
  const start = (Number(page) - 1) * Number(limit);
  const counts = await queue.getJobCounts(...states);
  const jobs = await queue.getJobs([status], start, start + Number(limit) - 1, true);
  const totalJobs = await queue.getJobCountByTypes(status);
  response.json({ name: queue.name, counts, jobs: await Promise.all(jobs.map(shown)),
    pagination: { currentPage: Number(page), totalPages: Math.ceil(totalJobs / Number(limit)),
      totalJobs, limit: Number(limit) } });
});
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
