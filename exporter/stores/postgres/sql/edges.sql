-- For each queue: since when its oldest waiting job has waited, when its oldest active job started
-- and whether a worker holds its lock, when the next delayed job is due, since when a parent has
-- waited for its children, and the next runs of its schedulers. Times are in ms.
--
-- Workers take waiting jobs in the order of priority and `seq`, which is negative for jobs added
-- with `lifo`. So the oldest job is the first one added without `lifo`, the last one in the order
-- of those added with it, or the first one of any priority, which may be negative.
WITH RECURSIVE wanted AS (
  SELECT * FROM unnest(%(at)s::int[], %(names)s::text[], %(prioritized)s::bool[])
    AS wanted(at, wanted_queue, has_prioritized)
), priorities(at, wanted_queue, wanted_priority, number) AS (
  SELECT at, wanted_queue, (
    SELECT priority FROM job
    WHERE queue = wanted_queue AND state = 'waiting' AND priority > 0
    ORDER BY priority LIMIT 1
  ), 1
  FROM wanted WHERE has_prioritized
  UNION ALL
  SELECT at, wanted_queue, (
    SELECT priority FROM job
    WHERE queue = wanted_queue AND state = 'waiting' AND priority > wanted_priority
    ORDER BY priority LIMIT 1
  ), number + 1
  FROM priorities WHERE wanted_priority IS NOT NULL AND number < 20
), heads AS (
  -- Columns are named because planning takes half a ms longer for all 30 of them.
  SELECT at, head.* FROM wanted CROSS JOIN LATERAL (
    (SELECT stalled_count, processed_at_ms, process_at_ms, attempts_made, attempts_started,
        opts, added_at_ms FROM job
      WHERE queue = wanted_queue AND state = 'waiting' AND priority = 0 AND seq >= 0
      ORDER BY seq LIMIT 5)
    UNION ALL
    (SELECT stalled_count, processed_at_ms, process_at_ms, attempts_made, attempts_started,
        opts, added_at_ms FROM job
      WHERE queue = wanted_queue AND state = 'waiting' AND priority = 0 AND seq < 0
      ORDER BY seq DESC LIMIT 5)
    UNION ALL
    (SELECT stalled_count, processed_at_ms, process_at_ms, attempts_made, attempts_started,
        opts, added_at_ms FROM job
      WHERE queue = wanted_queue AND state = 'waiting' AND priority < 0
      ORDER BY priority, seq LIMIT 5)
  ) AS head
  UNION ALL
  SELECT at, head.* FROM priorities CROSS JOIN LATERAL (
    SELECT stalled_count, processed_at_ms, process_at_ms, attempts_made, attempts_started,
      opts, added_at_ms
    FROM job
    WHERE queue = wanted_queue AND state = 'waiting' AND priority = wanted_priority AND seq >= 0
    ORDER BY seq LIMIT 1
  ) AS head
), ready AS (
  -- When each job became ready, as far as its row shows it. A computed time in the future is wrong:
  -- Job.promote() made the job ready earlier, and that time is not stored.
  SELECT at, CASE
    -- Its worker was lost once: it is unknown when the job was returned to the queue.
    WHEN stalled_count > 0 AND processed_at_ms IS NOT NULL THEN NULL
    -- A delay or a backoff ended.
    WHEN process_at_ms IS NOT NULL THEN
      CASE WHEN process_at_ms <= %(now)s THEN greatest(process_at_ms, processed_at_ms) END
    WHEN processed_at_ms IS NOT NULL THEN processed_at_ms
    -- Job.retry() clears when the job last ran, and does not store when it began to wait again.
    WHEN attempts_made > 0 OR attempts_started > 0 THEN NULL
    -- Promoted by hand; longer options are not read. A delay may be any number: one that leads to a
    -- time before 1970 gives no known time.
    WHEN pg_column_size(opts) < 16384 AND jsonb_typeof(opts->'delay') = 'number' THEN
      CASE WHEN added_at_ms + (opts->>'delay')::numeric BETWEEN 0 AND %(now)s
        THEN added_at_ms + (opts->>'delay')::numeric END
    ELSE added_at_ms
  END AS ready_at
  FROM heads
)
SELECT at,
  (SELECT min(ready_at)::bigint FROM ready WHERE ready.at = wanted.at),
  (
    SELECT jsonb_build_array(processed_at_ms, locked_until_ms > %(now)s) FROM (
      SELECT processed_at_ms, locked_until_ms FROM job
      WHERE queue = wanted_queue AND state = 'active'
      ORDER BY locked_until_ms LIMIT %(active)s
    ) AS held
    WHERE processed_at_ms IS NOT NULL ORDER BY processed_at_ms LIMIT 1
  ),
  (SELECT min(process_at_ms) FROM job WHERE queue = wanted_queue AND state = 'delayed'),
  (
    SELECT greatest(added_at_ms, processed_at_ms) FROM job
    WHERE queue = wanted_queue AND state = 'waiting-children' ORDER BY seq LIMIT 1
  ),
  (
    SELECT jsonb_agg(jsonb_build_array(scheduler_id, next_run_ms)) FROM (
      SELECT left(scheduler_id, 1000) AS scheduler_id, next_run_ms FROM scheduler
      -- A scheduler that has ended keeps its last run forever.
      WHERE queue = wanted_queue AND next_run_ms IS NOT NULL
        AND (next_run_ms >= %(now)s - 60000
          OR (end_date_ms < %(now)s OR iteration_count >= limit_count) IS NOT TRUE)
      ORDER BY scheduler_id LIMIT %(schedulers)s
    ) AS runs
  )
FROM wanted
