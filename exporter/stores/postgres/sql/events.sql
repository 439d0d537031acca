-- For each queue, the unread events after an id: up to `most`, and of these the first ones that
-- have at most `bytes` together, but at least one; and how many there were, up to `most`.
SELECT at, id, event, created_at_ms, job_id, name, prev, reason, found
FROM unnest(%(at)s::int[], %(names)s::text[], %(after)s::bigint[]) AS wanted(at, wanted_queue, after)
CROSS JOIN LATERAL (
  SELECT *, count(*) OVER () AS found, row_number() OVER behind AS number,
    sum(coalesce(octet_length(job_id), 0) + coalesce(octet_length(name), 0)
      + coalesce(octet_length(reason), 0)) OVER behind AS size
  FROM (
    SELECT id, event, created_at_ms, left(data->>'jobId', %(length)s) AS job_id,
      left(data->>'name', %(length)s) AS name, left(data->>'prev', %(length)s) AS prev,
      left(data->>'failedReason', %(length)s) AS reason
    FROM event
    WHERE queue = wanted_queue AND id > after AND id <> ALL(%(read)s::bigint[])
    ORDER BY id LIMIT %(most)s
  ) AS events
  WINDOW behind AS (ORDER BY id)
) AS sized
WHERE size <= %(bytes)s OR number = 1
