// BullMQ of a version, and the options of queues that are kept at a port of Redis or in a database of
// PostgreSQL, by its URL.
import { createRequire } from 'node:module';

export async function open(version, place, prefix) {
  if (!place.startsWith('postgres')) {
    const connection = { host: '127.0.0.1', port: Number(place), maxRetriesPerRequest: null };
    return { bullmq: await import(version), options: { connection, prefix } };
  }
  // It finds the driver by `require`, which modules do not have.
  const bullmq = createRequire(import.meta.url)(version);
  bullmq.setDefaultBackendFactory(bullmq.createPostgresBackend);
  return { bullmq, options: { connection: { connectionString: place, migrate: true } } };
}
