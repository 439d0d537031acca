-- For each queue: whether it has rows in `meta` and their values, the number of unfinished jobs of
-- each state, the number of schedulers, the last event together with the oid of the table of jobs,
-- whether there are jobs at all, and the rate limiter. Jobs of one state are counted up to `more`,
-- in their partial index. To find the first job of a queue, PostgreSQL searches the largest index
-- and skips entries of rows that are gone: for 100 queues with 10,000 jobs each, this took 30 %% of
-- the time (PostgreSQL 15). So it is omitted if jobs are `known`, unless `meta` is gone, as it is
-- after the queue was obliterated.
SELECT at,
  meta_rows > 0,
  meta_values,
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'active' LIMIT %(more)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'delayed' LIMIT %(more)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'waiting' AND priority <= 0
    LIMIT %(more)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'waiting' AND priority > 0
    LIMIT %(more)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'waiting-children' LIMIT %(more)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM scheduler WHERE queue = wanted_queue LIMIT %(schedulers)s
  ) AS found),
  (SELECT array['job'::regclass::oid::bigint, max(id)] FROM event WHERE queue = wanted_queue),
  CASE WHEN known AND meta_rows > 0 THEN true ELSE
    (SELECT count(*) > 0 FROM (SELECT FROM job WHERE queue = wanted_queue LIMIT 1) AS found)
  END,
  (SELECT jsonb_build_array(points, expire_at_ms) FROM rate_limit WHERE queue = wanted_queue)
FROM unnest(%(at)s::int[], %(names)s::text[], %(known)s::bool[])
  AS wanted(at, wanted_queue, known)
CROSS JOIN LATERAL (
  SELECT count(*) AS meta_rows, jsonb_object_agg(field, left(value, %(length)s))
    FILTER (WHERE field IN ('version', 'paused', 'concurrency', 'max', 'duration')) AS meta_values
  FROM meta WHERE queue = wanted_queue
) AS meta
