-- The number of log lines of a job.
SELECT count(*) FROM job_log WHERE queue = %(queue)s AND job_id = %(id)s
