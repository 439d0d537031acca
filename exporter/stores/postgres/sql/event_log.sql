-- What distinguishes this event log from the one of another server, of a server that was promoted
-- or restored, or of tables that were made anew.
SELECT concat_ws('/',
  (SELECT oid FROM pg_database WHERE datname = current_database()),
  CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
  'event'::regclass::oid,
  (SELECT (extract(epoch FROM min(applied_at)) * 1000000)::bigint FROM migration)
)
