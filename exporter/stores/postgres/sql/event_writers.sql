-- The transactions that may have written events that are not visible yet, and whether this server
-- is a standby, which does not know about them. A transaction that inserts holds this lock from
-- before it takes an id from the sequence until its commit is visible. Run this statement alone,
-- because pg_locks shows the present locks, not those of a snapshot.
SELECT
  pg_is_in_recovery(),
  'event'::regclass::oid::bigint,
  (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
  ARRAY(
    SELECT DISTINCT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation'
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relation = 'event'::regclass
      AND mode = 'RowExclusiveLock'
      AND granted
  )
