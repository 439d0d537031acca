// BullMQ's own exportPrometheusMetrics over queues in PostgreSQL, behind Node's http server.
// Usage: node metrics.mjs URL QUEUES. Prints its own port.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const [url, count] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const { Pool } = require('pg');
const { createPostgresBackend, Queue, setDefaultBackendFactory } = require('bullmq6');
setDefaultBackendFactory(createPostgresBackend);
// One pool for all queues: one for each would be 100 connections and more.
const connection = new Pool({ connectionString: url, options: '-c search_path=bullmq' });
connection.setMaxListeners(0);
const queues = Array.from({ length: Number(count) }, (_, i) => new Queue(`queue-${i}`, { connection }));
for (const queue of queues) await queue.waitUntilReady();

const server = createServer(async (request, response) => {
  const pages = await Promise.all(queues.map((queue) => queue.exportPrometheusMetrics()));
  response.setHeader('Content-Type', 'text/plain; version=0.0.4');
  response.end(pages.join('\n'));
});
server.keepAliveTimeout = 120_000; // Prometheus keeps its connection from scrape to scrape
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
