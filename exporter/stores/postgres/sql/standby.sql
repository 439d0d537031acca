-- Whether this server is a standby, whether it is connected to its primary, and how far it has
-- received and replayed the primary's changes (bytes). Any role may read this.
SELECT pg_is_in_recovery(),
  EXISTS (SELECT FROM pg_stat_wal_receiver),
  pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint,
  pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint
