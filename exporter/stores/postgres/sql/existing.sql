-- Which of these jobs exist.
SELECT id FROM job WHERE queue = %(queue)s AND id = ANY(%(ids)s)
