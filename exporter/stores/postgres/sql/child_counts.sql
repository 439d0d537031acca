-- The number of children that a job waits for or has waited for, by their outcome.
SELECT status::text, count(*) FROM job_dependency
WHERE parent_queue = %(queue)s AND parent_id = %(id)s GROUP BY status
