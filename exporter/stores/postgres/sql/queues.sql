-- The names of all queues: with `meta`, with jobs, or with schedulers. Of `job`, which may have
-- millions of rows, only the first row of each queue is looked at, in its primary key.
WITH RECURSIVE with_jobs(name) AS (
  (SELECT queue FROM job ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT queue FROM job WHERE queue > with_jobs.name ORDER BY queue LIMIT 1)
  FROM with_jobs WHERE with_jobs.name IS NOT NULL
)
(SELECT queue FROM meta UNION SELECT queue FROM scheduler
  UNION SELECT name FROM with_jobs WHERE name IS NOT NULL)
ORDER BY 1 LIMIT %(most)s
