-- What distinguishes this event log from that of another database, or of tables that were created
-- again.
SELECT concat_ws('/',
  (SELECT oid FROM pg_database WHERE datname = current_database()),
  'event'::regclass::oid,
  (SELECT (extract(epoch FROM min(applied_at)) * 1000000)::bigint FROM migration)
)
