-- Which of these jobs there are.
SELECT id FROM job WHERE queue = %(queue)s AND id = ANY(%(ids)s)
