-- The first unread event of a queue after an id, without its contents.
SELECT id, created_at_ms FROM event
WHERE queue = %(queue)s AND id > %(after)s AND id <> ALL(%(read)s::bigint[])
ORDER BY id LIMIT 1
