-- Of each queue the first and the last event, and how far back ids are kept behind the last one.
SELECT at,
  (SELECT min(id) FROM event WHERE queue = wanted_queue),
  (SELECT max(id) FROM event WHERE queue = wanted_queue),
  (SELECT left(value, 20) FROM meta WHERE queue = wanted_queue AND field = 'opts.maxLenEvents')
FROM unnest(%(at)s::int[], %(names)s::text[]) AS wanted(at, wanted_queue)
