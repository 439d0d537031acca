-- How many schedulers a queue has.
SELECT count(*) FROM scheduler WHERE queue = %(queue)s
