-- Some children of each outcome, with what their own queues store about them.
SELECT child.status::text, child_queue, child_id, job.id IS NULL, job.state::text, job.priority,
  EXISTS (SELECT FROM meta WHERE queue = child_queue AND field = 'paused' AND value = '1'),
  left(job.failed_reason, %(reason)s)
FROM unnest(enum_range(NULL::dep_status)) AS kinds(kind)
CROSS JOIN LATERAL (
  SELECT * FROM job_dependency
  WHERE parent_queue = %(queue)s AND parent_id = %(id)s AND status = kind
  ORDER BY child_key LIMIT %(children)s
) AS child
LEFT JOIN job ON job.queue = child_queue AND job.id = child_id
