-- The last migration, and from which major version on BullMQ understands the tables since.
SELECT max(version), max((to_jsonb(migration)->>'min_client_version')::int) FROM migration
