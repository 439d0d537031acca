-- Of each queue the events behind an id that were not read, up to `most`.
SELECT at, found.*
FROM unnest(%(at)s::int[], %(names)s::text[], %(after)s::bigint[]) AS wanted(at, wanted_queue, after)
CROSS JOIN LATERAL (
  SELECT id, event, created_at_ms, left(data->>'jobId', %(length)s),
    left(data->>'name', %(length)s), left(data->>'prev', %(length)s),
    left(data->>'failedReason', %(length)s)
  FROM event
  WHERE queue = wanted_queue AND id > after AND id <> ALL(%(read)s::bigint[])
  ORDER BY id LIMIT %(most)s
) AS found
