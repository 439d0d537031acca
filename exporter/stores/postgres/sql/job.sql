-- One job in full. For each field that an application may fill with anything: its length, and the
-- field itself if it is not longer than `bytes`.
SELECT left(name, %(length)s), state::text, added_at_ms, processed_at_ms, finished_at_ms,
  attempts_made, priority, delay_ms, stalled_count, left(processed_by, %(length)s),
  parent_queue, parent_id,
  octet_length(failed_reason),
  CASE WHEN octet_length(failed_reason) <= %(bytes)s THEN failed_reason END,
  octet_length(traces), CASE WHEN octet_length(traces) <= %(bytes)s THEN traces END,
  octet_length(given), CASE WHEN octet_length(given) <= %(bytes)s THEN given END,
  octet_length(returned), CASE WHEN octet_length(returned) <= %(bytes)s THEN returned END,
  octet_length(options), CASE WHEN octet_length(options) <= %(bytes)s THEN options END,
  octet_length(done), CASE WHEN octet_length(done) <= %(bytes)s THEN done END,
  EXISTS (SELECT FROM meta WHERE queue = %(queue)s AND field = 'paused' AND value = '1')
FROM (
  SELECT *, stacktrace::text AS traces, data::text AS given, return_value::text AS returned,
    opts::text AS options, progress::text AS done
  FROM job WHERE queue = %(queue)s AND id = %(id)s
  OFFSET 0
) AS job
