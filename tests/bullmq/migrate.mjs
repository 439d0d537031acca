// Makes BullMQ's tables in a database of PostgreSQL.
// Usage: node migrate.mjs URL [SCHEMA]
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { Client } = require('pg');
const [url, schema = 'bullmq'] = process.argv.slice(2);
const client = new Client({ connectionString: url });
await client.connect();
await require('bullmq6').runMigrations(client, schema);
await client.end();
