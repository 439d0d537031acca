-- How many log lines a job has.
SELECT count(*) FROM job_log WHERE queue = %(queue)s AND job_id = %(id)s
