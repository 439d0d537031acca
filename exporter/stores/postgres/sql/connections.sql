-- How many connections to this database have each name, and whether one is ours.
SELECT application_name, count(*), bool_or(pid = pg_backend_pid()) FROM pg_stat_activity
WHERE datname = current_database() AND application_name <> ''
GROUP BY application_name LIMIT %(most)s
