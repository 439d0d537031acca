-- The names of all queues that have rows in `meta`, jobs or schedulers. `job` may have millions of
-- rows, so only the first row of each queue is read, from its primary key.
WITH RECURSIVE with_jobs(name) AS (
  (SELECT queue FROM job ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT queue FROM job WHERE queue > with_jobs.name ORDER BY queue LIMIT 1)
  FROM with_jobs WHERE with_jobs.name IS NOT NULL
)
(SELECT queue FROM meta UNION SELECT queue FROM scheduler
  UNION SELECT name FROM with_jobs WHERE name IS NOT NULL)
ORDER BY 1 LIMIT %(most)s
