-- The first event of a queue behind an id that was not read, whatever it holds.
SELECT id, created_at_ms FROM event
WHERE queue = %(queue)s AND id > %(after)s AND id <> ALL(%(read)s::bigint[])
ORDER BY id LIMIT 1
