-- Facts about jobs that their events do not contain.
SELECT id, left(name, %(length)s), attempts_made, attempts_started, processed_at_ms, finished_at_ms,
  lock_token IS NOT NULL, failed_reason IS NOT NULL, max_attempts,
  CASE WHEN id = ANY(%(with_reason)s) THEN left(failed_reason, %(length)s) END
FROM job WHERE queue = %(queue)s AND id = ANY(%(ids)s)
