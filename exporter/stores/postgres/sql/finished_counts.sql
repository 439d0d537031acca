-- For each queue, the number of completed jobs and of failed jobs, up to `finished` of each.
SELECT at,
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'completed' LIMIT %(finished)s
  ) AS found),
  (SELECT count(*) FROM (
    SELECT FROM job WHERE queue = wanted_queue AND state = 'failed' LIMIT %(finished)s
  ) AS found)
FROM unnest(%(at)s::int[], %(names)s::text[]) AS wanted(at, wanted_queue)
