-- Of each queue what is in `meta`, how many jobs there are of each state, how many schedulers, the
-- last event with which table of jobs that is, whether there are jobs at all or `meta`, and the rate
-- limiter. Jobs of one state are counted up to `more`, finished ones up to `finished`, in their
-- partial index.
SELECT at,
  (
    SELECT jsonb_object_agg(field, left(value, %(length)s)) FROM meta
    WHERE queue = wanted_queue
      AND field IN ('version', 'paused', 'concurrency', 'max', 'duration')
  ),
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
    SELECT FROM job WHERE queue = wanted_queue AND state = 'completed' LIMIT %(finished)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'failed' LIMIT %(finished)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM scheduler WHERE queue = wanted_queue LIMIT %(schedulers)s
  ) AS found),
  (SELECT array['job'::regclass::oid::bigint, max(id)] FROM event WHERE queue = wanted_queue),
  (SELECT count(*) > 0 FROM (SELECT FROM job WHERE queue = wanted_queue LIMIT 1) AS found),
  (SELECT count(*) > 0 FROM (SELECT FROM meta WHERE queue = wanted_queue LIMIT 1) AS found),
  (SELECT jsonb_build_array(points, expire_at_ms) FROM rate_limit WHERE queue = wanted_queue)
FROM unnest(%(at)s::int[], %(names)s::text[]) AS wanted(at, wanted_queue)
