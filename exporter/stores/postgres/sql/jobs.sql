-- These jobs, without the fields to omit.
SELECT job.id, left(name, %(length)s), added_at_ms, processed_at_ms, finished_at_ms, attempts_made,
  CASE WHEN NOT without_reason THEN failed_reason END,
  CASE WHEN NOT without_traces THEN stacktrace END,
  CASE WHEN NOT without_data THEN data END,
  CASE WHEN NOT without_returned THEN return_value END
FROM unnest(%(ids)s::text[], %(failedReason)s::bool[], %(stacktrace)s::bool[], %(data)s::bool[],
  %(returnvalue)s::bool[]) WITH ORDINALITY
  AS wanted(id, without_reason, without_traces, without_data, without_returned, number)
JOIN job ON job.queue = %(queue)s AND job.id = wanted.id
ORDER BY number
