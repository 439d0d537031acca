-- A number that changes when a server is promoted, or restored to an earlier time.
SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)
