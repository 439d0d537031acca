-- The last migration, and the lowest major version of BullMQ that understands the tables.
SELECT max(version), max((to_jsonb(migration)->>'min_client_version')::int) FROM migration
