-- Which of BullMQ's tables exist, and what our role may do with them. This reads only names and
-- rights, which every role may read. To other statements, a schema that may not be used looks as if
-- it did not exist.
SELECT current_database(), current_setting('server_version_num')::int,
  namespace.oid IS NOT NULL,
  coalesce(has_schema_privilege(namespace.oid, 'USAGE'), false),
  array(
    SELECT name FROM unnest(%(tables)s::text[]) name
    WHERE NOT EXISTS (
      SELECT FROM pg_class
      WHERE relnamespace = namespace.oid AND relname = name AND relkind IN ('r', 'p', 'v')
    )
  ),
  array(
    SELECT relname::text FROM pg_class
    WHERE relnamespace = namespace.oid AND relname = ANY(%(tables)s)
      AND NOT has_table_privilege(pg_class.oid, 'SELECT')
  ),
  array(
    SELECT nspname::text FROM pg_namespace
    WHERE nspname <> %(schema)s AND 2 = (
      SELECT count(*) FROM pg_class
      WHERE relnamespace = pg_namespace.oid AND relname IN ('job', 'migration')
    )
    ORDER BY 1 LIMIT %(names)s
  ),
  pg_is_in_recovery()
FROM (SELECT) AS one LEFT JOIN pg_namespace AS namespace ON nspname = %(schema)s
