-- The ids of some jobs of one state, the key that they are ordered by, and the lengths of the
-- fields that an application may fill with anything: reason, traces, data, return value.
SELECT id, {key}, seq, coalesce(octet_length(failed_reason), 0),
  coalesce(octet_length(stacktrace::text), 0), octet_length(data::text),
  coalesce(octet_length(return_value::text), 0)
FROM job
WHERE queue = %(queue)s AND {condition} AND {beyond}
ORDER BY {key} {direction}, seq {direction} LIMIT %(limit)s OFFSET %(start)s
