-- The lengths of the fields of these jobs, as in page.sql.
SELECT job.id, 0, seq, coalesce(octet_length(failed_reason), 0),
  coalesce(octet_length(stacktrace::text), 0), octet_length(data::text),
  coalesce(octet_length(return_value::text), 0)
FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS wanted(id, number)
JOIN job ON job.queue = %(queue)s AND job.id = wanted.id
ORDER BY number
