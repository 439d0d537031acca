-- The number of jobs of one state of a queue, without a limit, and how many seconds all counts up
-- to this one took. The conditions are exactly those of BullMQ's partial indexes.
SELECT at,
  CASE wanted_state
    WHEN 'completed' THEN
      (SELECT count(*) FROM job WHERE queue = wanted_queue AND state = 'completed')
    WHEN 'failed' THEN
      (SELECT count(*) FROM job WHERE queue = wanted_queue AND state = 'failed')
    WHEN 'waiting' THEN
      (SELECT count(*) FROM job WHERE queue = wanted_queue AND state = 'waiting' AND priority <= 0)
    WHEN 'prioritized' THEN
      (SELECT count(*) FROM job WHERE queue = wanted_queue AND state = 'waiting' AND priority > 0)
    WHEN 'active' THEN
      (SELECT count(*) FROM job WHERE queue = wanted_queue AND state = 'active')
    WHEN 'delayed' THEN
      (SELECT count(*) FROM job WHERE queue = wanted_queue AND state = 'delayed')
    WHEN 'waiting-children' THEN
      (SELECT count(*) FROM job WHERE queue = wanted_queue AND state = 'waiting-children')
  END,
  extract(epoch FROM clock_timestamp() - statement_timestamp())::float8
FROM unnest(%(at)s::int[], %(names)s::text[], %(states)s::text[])
  AS wanted(at, wanted_queue, wanted_state)
