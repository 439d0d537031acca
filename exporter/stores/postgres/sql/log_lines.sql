-- Some log lines of a job.
SELECT left(row, %(line)s) FROM job_log WHERE queue = %(queue)s AND job_id = %(id)s
ORDER BY idx LIMIT %(logs)s OFFSET %(first_log)s
