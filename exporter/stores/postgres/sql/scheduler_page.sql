-- One page of a queue's schedulers, ordered by their next run, with the columns of schedulers.sql.
SELECT 0, scheduler.scheduler_id, next_run_ms, left(scheduler.name, %(length)s), left(pattern, %(length)s),
  left(tz, %(length)s), every_ms, limit_count, end_date_ms, iteration_count,
  job.added_at_ms, job.processed_at_ms,
  CASE WHEN pg_column_size(opts) < 16384 THEN opts #> '{repeat,count}' END,
  NULL
FROM (
  SELECT * FROM scheduler
  WHERE queue = %(queue)s AND octet_length(scheduler_id) < 16384
  ORDER BY next_run_ms, scheduler_id LIMIT %(limit)s OFFSET %(start)s
) AS scheduler
LEFT JOIN job ON job.queue = scheduler.queue
  AND job.id = 'repeat:' || scheduler.scheduler_id || ':' || next_run_ms
ORDER BY next_run_ms, scheduler.scheduler_id
