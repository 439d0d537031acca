-- For each queue, the options of its newest completed job and its newest failed job for how many
-- finished jobs are kept.
SELECT at,
  (
    SELECT CASE WHEN pg_column_size(opts) < 16384 THEN opts->'removeOnComplete' END FROM job
    WHERE queue = wanted_queue AND state = 'completed' ORDER BY finished_at_ms DESC LIMIT 1
  ),
  (
    SELECT CASE WHEN pg_column_size(opts) < 16384 THEN opts->'removeOnFail' END FROM job
    WHERE queue = wanted_queue AND state = 'failed' ORDER BY finished_at_ms DESC LIMIT 1
  )
FROM unnest(%(at)s::int[], %(names)s::text[]) AS wanted(at, wanted_queue)
