-- The number of connections to this database with each name, whether one of them is ours, and
-- whether this server is a standby.
SELECT application_name, count(*), bool_or(pid = pg_backend_pid()), pg_is_in_recovery()
FROM pg_stat_activity
WHERE datname = current_database() AND application_name <> ''
GROUP BY application_name LIMIT %(most)s
