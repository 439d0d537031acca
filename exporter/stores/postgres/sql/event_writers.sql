-- Which transactions may have written events that cannot be seen yet, and whether this is a
-- standby, which does not know of them. Whoever inserts holds this lock from before the sequence is
-- asked for an id until after the commit can be seen. Read it by itself: locks are those of now,
-- not those of a snapshot.
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
