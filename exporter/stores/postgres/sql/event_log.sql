-- What distinguishes this event log from the one of another database, or of tables that were made
-- anew.
SELECT concat_ws('/',
  (SELECT oid FROM pg_database WHERE datname = current_database()),
  'event'::regclass::oid,
  (SELECT (extract(epoch FROM min(applied_at)) * 1000000)::bigint FROM migration)
)
