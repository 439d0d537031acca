-- For each queue: its first and last event, and how many ids behind the last one are kept.
SELECT at,
  (SELECT min(id) FROM event WHERE queue = wanted_queue),
  (SELECT max(id) FROM event WHERE queue = wanted_queue),
  (SELECT left(value, 20) FROM meta WHERE queue = wanted_queue AND field = 'opts.maxLenEvents')
FROM unnest(%(at)s::int[], %(names)s::text[]) AS wanted(at, wanted_queue)
