// BullMQ's own exportPrometheusMetrics over all queues, behind Node's http server.
// Usage: node metrics.mjs bullmq5|bullmq6 REDIS_PORT QUEUES. Prints its own port.
import { createServer } from 'node:http';
import { Redis } from 'ioredis';

const [version, port, count] = process.argv.slice(2);
const { Queue } = await import(version);
// One connection for all queues: one for each would be 10,000.
const connection = new Redis(Number(port), { maxRetriesPerRequest: null });
connection.setMaxListeners(0);
const queues = Array.from({ length: Number(count) }, (_, i) => new Queue(`queue-${i}`, { connection }));
await Promise.all(queues.map((queue) => queue.waitUntilReady()));

const server = createServer(async (request, response) => {
  const pages = await Promise.all(queues.map((queue) => queue.exportPrometheusMetrics()));
  response.setHeader('Content-Type', 'text/plain; version=0.0.4');
  response.end(pages.join('\n'));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
