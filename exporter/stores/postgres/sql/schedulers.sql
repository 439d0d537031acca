-- Some schedulers of each queue, with the job of the next run. Texts are read up to `length`
-- characters; the data of future jobs is compared by its hash.
SELECT at, scheduler.scheduler_id, next_run_ms, left(scheduler.name, %(length)s), left(pattern, %(length)s),
  left(tz, %(length)s), every_ms, limit_count, end_date_ms, iteration_count,
  job.added_at_ms, job.processed_at_ms,
  CASE WHEN pg_column_size(opts) < 16384 THEN opts #> '{repeat,count}' END,
  md5(coalesce(template_data::text, '{}'))
FROM unnest(%(at)s::int[], %(names)s::text[]) AS wanted(at, wanted_queue)
CROSS JOIN LATERAL (
  SELECT * FROM scheduler
  WHERE queue = wanted_queue AND octet_length(scheduler_id) < 16384
    AND (next_run_ms >= %(now)s - 60000
      OR (end_date_ms < %(now)s OR iteration_count >= limit_count) IS NOT TRUE)
  ORDER BY scheduler_id LIMIT %(most)s
) AS scheduler
LEFT JOIN job ON job.queue = wanted_queue
  AND job.id = 'repeat:' || scheduler.scheduler_id || ':' || next_run_ms
ORDER BY at, scheduler.scheduler_id
