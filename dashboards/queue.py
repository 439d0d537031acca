"""One queue: what it holds, what happens in it, how long that takes, and who works."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.parts import (
    AMBER,
    BLUE,
    GREEN,
    PER_MINUTE,
    QUEUE,
    QUEUES,
    RED,
    Panel,
    alerts_annotation,
    bars,
    board,
    colored,
    graph,
    heat,
    jobs_url,
    narrowed,
    place_variable,
    query,
    reason_url,
    reasons_over_time,
    rows,
    thresholds,
    tile,
    variable,
    with_releases,
)

SELECTED = "${queue:percentencode}"
FAILED_JOBS = ("Failed jobs", jobs_url(SELECTED, "failed"))
UNREADABLE = "Redis cannot be read"
UNREASONED = "No job failed, or events are not followed"
UNCOUNTED = "Events are not followed, or there was no job"
SLOWEST = 99


def state(name: str) -> str:
    return f'sum(bullmq_job_count{{{QUEUE},state="{name}"}})'


# BullMQ does not count those with a priority as paused.
HELD = (
    f'sum(bullmq_job_count{{{QUEUE},state=~"paused|prioritized"}})'
    f" and (max(bullmq_queue_paused{{{QUEUE}}}) == 1) or {state('paused')}"
)


def per_minute(counter: str) -> str:
    return f"60 * sum(rate({counter}{{{QUEUE}}}[$__rate_interval]))"


def share(window: str) -> str:
    failed = f"sum(increase(bullmq_job_failed_total{{{QUEUE}}}[{window}]))"
    completed = f"sum(increase(bullmq_job_completed_total{{{QUEUE}}}[{window}]))"
    return f"{failed} / ({failed} + {completed} > 0)"


def percentiles(title: str, histogram: str, does: str) -> list[Panel]:
    """A graph for each of p50, p95 and p99, with a line for each job name."""
    return [
        graph(
            f"{title}, p{percent}",
            [
                query(
                    f"histogram_quantile({percent / 100}, sum by (le, name)"
                    f" (rate({histogram}_bucket{{{QUEUE}}}[$__rate_interval])))",
                    "{{name}}",
                    exemplars=percent == SLOWEST,
                )
            ],
            f"Of 100 jobs of a name, {percent} {does} less than this."
            + (" The dots are single jobs: click one." if percent == SLOWEST else ""),
            unit="s",
            nothing=UNCOUNTED,
            size=(8, 8),
        )
        for percent in (50, 95, SLOWEST)
    ]


def tiles() -> list[Panel]:
    """What the queue holds now, and how it fares."""
    states = (
        ("Waiting", "waiting", thresholds((None, BLUE))),
        ("Active", "active", thresholds((None, BLUE))),
        ("Delayed", "delayed", thresholds((None, BLUE))),
        ("Paused", "paused", thresholds((None, GREEN), (1, AMBER))),
    )
    return [
        *(
            tile(
                title,
                HELD if name == "paused" else state(name),
                f"Jobs that are {name} now. Click for the jobs.",
                unit="short",
                colors=colors,
                nothing=UNREADABLE,
                width=3,
                link=(f"{title} jobs", jobs_url(SELECTED, name)),
            )
            for title, name, colors in states
        ),
        tile(
            "Failed, 15 minutes",
            f"round(sum(increase(bullmq_job_failed_total{{{QUEUE}}}[15m])))",
            "Jobs that failed for good within the last 15 minutes. Click for the jobs.",
            unit="short",
            colors=thresholds((None, GREEN), (1, AMBER), (10, RED)),
            nothing=UNCOUNTED,
            width=3,
            link=FAILED_JOBS,
        ),
        tile(
            "Failure rate, 1 h",
            share("1h"),
            "The share of the jobs that finished within the last hour and failed for good.",
            unit="percentunit",
            colors=thresholds((None, GREEN), (0.01, AMBER), (0.144, RED)),
            nothing="No job finished, or events are not followed",
            width=3,
        ),
        tile(
            "Longest wait",
            f"time() - min(bullmq_queue_oldest_waiting_timestamp_seconds{{{QUEUE}}})"
            f' or 0 * (sum(bullmq_job_count{{{QUEUE},state=~"waiting|prioritized|paused"}}) == 0)',
            "For how long the oldest job has waited for a worker. Not known of a paused queue, and of "
            "jobs that were retried by hand.",
            unit="s",
            colors=thresholds((None, GREEN), (300, AMBER), (1800, RED)),
            nothing="Not known",
            texts={"0": ("No waiting jobs", GREEN)},
            width=3,
        ),
        tile(
            "Workers",
            f"max(bullmq_queue_workers{{{QUEUE}}})",
            "Workers whose connections Redis lists.",
            unit="none",
            colors=thresholds((None, RED), (1, GREEN)),
            nothing="Redis does not show them",
            width=3,
        ),
    ]


def course() -> list[Panel]:
    """What happened over time."""
    return [
        graph(
            "Jobs by state",
            [
                query(
                    f'sum by (state) (bullmq_job_count{{{QUEUE},state!~"completed|failed"}})',
                    "{{state}}",
                )
            ],
            "Unfinished jobs. Finished ones are below: only as many as are kept.",
            unit="short",
            nothing=UNREADABLE,
            stacked=True,
            links=(
                ("Jobs in this state", jobs_url(SELECTED, "${__field.labels.state:percentencode}")),
            ),
        ),
        graph(
            "Job events per minute",
            [
                query(per_minute("bullmq_job_added_total"), "added"),
                query(per_minute("bullmq_job_completed_total"), "completed"),
                query(per_minute("bullmq_job_failed_total"), "failed"),
                query(per_minute("bullmq_job_retried_total"), "retried"),
                query(per_minute("bullmq_job_stalled_total"), "stalled"),
            ],
            "Every job, whatever is kept. Failed: for good; retried: an attempt failed, and "
            "another follows; stalled: returned to the queue after its worker lost the lock.",
            unit=PER_MINUTE,
            nothing=UNCOUNTED,
            links=(FAILED_JOBS,),
        ),
        graph(
            "Ignored adds per minute",
            [
                query(per_minute("bullmq_job_deduplicated_total"), "deduplicated"),
                query(per_minute("bullmq_job_duplicated_total"), "duplicated id"),
            ],
            "Adds that BullMQ dropped, or in which one job replaced another: by a deduplication id, or "
            "because a job of the same id was there.",
            unit=PER_MINUTE,
            nothing=UNCOUNTED,
        ),
        graph(
            "Oldest jobs",
            [
                query(
                    f"time() - min(bullmq_queue_oldest_waiting_timestamp_seconds{{{QUEUE}}})",
                    "waiting",
                ),
                query(
                    f"time() - min(bullmq_queue_oldest_active_timestamp_seconds{{{QUEUE}}})",
                    "active",
                ),
                query(
                    f"time() - min(bullmq_queue_next_delayed_timestamp_seconds{{{QUEUE}}}) > 0",
                    "delayed, overdue",
                ),
                query(
                    f"time() - min(bullmq_queue_oldest_waiting_children_timestamp_seconds{{{QUEUE}}})",
                    "waiting for children",
                ),
            ],
            "Since when the oldest job has waited, or has been active; by how long a delayed one "
            "is overdue. No line: there is none.",
            unit="s",
            nothing="No waiting or active jobs, or Redis cannot be read",
        ),
        graph(
            "Failure rate",
            [query(share("5m"), "5 minutes"), query(share("1h"), "1 hour")],
            "The share of finished jobs that failed for good. At the lines an alert fires: 14.4% "
            "of an hour, 6% of six hours.",
            unit="percentunit",
            nothing="No job finished, or events are not followed",
            limits=thresholds((None, "transparent"), (0.06, AMBER), (0.144, RED)),
            links=(FAILED_JOBS,),
        ),
    ]


def failures() -> list[Panel]:
    """Which jobs fail, and how long they can be looked at."""
    return [
        bars(
            "Failures by job name",
            "topk(10, round(sum by (name)"
            f" (increase(bullmq_job_failed_total{{{QUEUE}}}[$__range]))) > 0)",
            "Which jobs fail. Click for the jobs with their reasons.",
            legend="{{name}}",
            nothing="None, or events are not followed",
            link=FAILED_JOBS,
            size=(8, 8),
        ),
        graph(
            "Retries exhausted per minute",
            [
                query(
                    f"60 * sum by (name) (rate(bullmq_job_retries_exhausted_total{{{QUEUE}}}[$__rate_interval]))",
                    "{{name}}",
                )
            ],
            "Jobs that failed with no attempt left; other failed jobs were not to be tried again.",
            unit=PER_MINUTE,
            nothing=UNCOUNTED,
            links=(FAILED_JOBS,),
            size=(8, 8),
        ),
        graph(
            "Kept jobs",
            [
                query(
                    f'sum by (state) (bullmq_job_count{{{QUEUE},state=~"completed|failed"}})',
                    "{{state}}",
                ),
                query(
                    f"max by (state) (bullmq_queue_retention_limit{{{QUEUE}}})",
                    "limit of {{state}}",
                ),
            ],
            "Finished jobs that can still be looked at. At its limit each new one deletes the "
            "oldest: save failed jobs before.",
            unit="short",
            nothing=UNREADABLE,
            size=(8, 8),
        ),
    ]


def by_reason(counter: str, window: str, labels: str = "fingerprint, reason") -> str:
    """Failures by reason. What reasons without a series had counted before is no failure of now."""
    selector = f'{QUEUE},fingerprint!="__retired__"'
    function = "rate" if window == "$__rate_interval" else "increase"
    return f"sum by ({labels}) ({function}({counter}{{{selector}}}[{window}]))"


def reasons() -> list[Panel]:
    """Why jobs fail."""
    own = ("Jobs with this reason", reason_url(SELECTED, "${__field.labels.fingerprint}"))
    failed, retried = "bullmq_job_failure_reasons_total", "bullmq_job_retry_reasons_total"
    seen = "bullmq_job_failure_reason_{}_seen_timestamp_seconds"
    last_hour = by_reason(failed, "1h", "fingerprint")
    return [
        reasons_over_time(
            "Failures by reason, per minute",
            f"60 * {by_reason(failed, '$__rate_interval')}",
            "Jobs that failed for good, by what their reasons have in common. Click one for its jobs.",
            nothing=UNREASONED,
            link=FAILED_JOBS,
            own_link=own,
        ),
        reasons_over_time(
            "Failed attempts by reason, per minute",
            f"60 * {by_reason(retried, '$__rate_interval')}",
            "Attempts that failed and are tried again. Those of a job that succeeds at last are not "
            "among the failed jobs.",
            nothing=UNREASONED,
            link=FAILED_JOBS,
            own_link=own,
        ),
        rows(
            "Reasons, most frequent first",
            (
                (
                    "Failed",
                    f"round({by_reason(failed, '$__range')})"
                    f" or 0 * max by (fingerprint, reason) ({seen.format('last')}{{{QUEUE}}})",
                    {**colored("none", (None, "transparent"), (1, AMBER)), "custom.width": 80},
                ),
                (
                    "Change, 1 h",
                    f"round({last_hour} - {last_hour.replace('[1h]', '[1h] offset 1h')})",
                    {
                        **colored("none", (None, GREEN), (0, "transparent"), (1, RED)),
                        "custom.width": 110,
                    },
                ),
                (
                    "Retried",
                    f"round({by_reason(retried, '$__range', 'fingerprint')})",
                    {"unit": "none", "custom.width": 100},
                ),
                (
                    "First seen",
                    f"1000 * min by (fingerprint) ({seen.format('first')}{{{QUEUE}}})",
                    {"unit": "dateTimeFromNow", "custom.width": 130},
                ),
                (
                    "Last seen",
                    f"1000 * max by (fingerprint) ({seen.format('last')}{{{QUEUE}}})",
                    {"unit": "dateTimeFromNow", "custom.width": 130},
                ),
            ),
            "Failed and retried: in the time shown. Change: failures of the last hour, compared "
            "with the hour before. First seen: anew after seven days without it. Click a reason for "
            "its jobs.",
            by="fingerprint",
            shown="reason",
            nothing=UNREASONED,
            sort=("Failed", "Retried"),
            links=(
                ("Jobs with this reason", reason_url(SELECTED, "${__data.fields.fingerprint}")),
            ),
            size=(21, 8),
        ),
        tile(
            "Known since",
            f"1000 * min(bullmq_queue_failure_reasons_since_timestamp_seconds{{{QUEUE}}})",
            "Since when failures of this queue are counted by reason. For an hour after that no "
            "reason counts as new.",
            unit="dateTimeFromNow",
            colors=thresholds((None, BLUE)),
            nothing=UNREASONED,
            width=3,
            height=8,
        ),
    ]


def durations() -> list[Panel]:
    """How long jobs wait and run."""
    return [
        heat(
            "Wait",
            "bullmq_job_wait_duration_seconds",
            "From ready to taken, for each attempt. The dots are single jobs: click one.",
            nothing=UNCOUNTED,
        ),
        heat(
            "Processing",
            "bullmq_job_process_duration_seconds",
            "From taken to finished, the last attempt. The dots are single jobs: click one.",
            nothing=UNCOUNTED,
        ),
        *percentiles("Wait", "bullmq_job_wait_duration_seconds", "waited"),
        *percentiles("Processing", "bullmq_job_process_duration_seconds", "took"),
    ]


def limits() -> list[Panel]:
    """What the queue as a whole may do at once and over time, and how much of it is used."""
    active = state("active")
    concurrency = f"max(bullmq_queue_concurrency_limit{{{QUEUE}}})"
    return [
        graph(
            "Active jobs and their limit",
            [query(active, "active"), query(concurrency, "concurrency limit")],
            "Of all workers together. At the limit (setGlobalConcurrency) more workers do not help.",
            unit="short",
            nothing=UNREADABLE,
            size=(8, 8),
        ),
        graph(
            "Rate limit ends in",
            [
                query(
                    f"max(bullmq_queue_rate_limited_until_timestamp_seconds{{{QUEUE}}}) - time() > 0",
                    "rate limit",
                ),
                query(
                    f"max(bullmq_queue_rate_limit_window_end_timestamp_seconds{{{QUEUE}}})"
                    " - time() > 0",
                    "window of a worker's limiter",
                ),
            ],
            "For how long no job is taken, because the rate limit is reached; or until the window of a "
            "worker's own limiter ends, whose maximum is not stored in Redis.",
            unit="s",
            nothing="No rate limit is reached",
            size=(7, 8),
        ),
        tile(
            "Concurrency used",
            f"{active} / ({concurrency} > 0)",
            "Active jobs as a share of the concurrency limit.",
            unit="percentunit",
            colors=thresholds((None, GREEN), (1, AMBER)),
            nothing="No limit",
            width=3,
            height=8,
        ),
        tile(
            "Rate limit",
            f"max(bullmq_queue_rate_limit_max{{{QUEUE}}})",
            "Maximum number of jobs within the time window shown next to it (setGlobalRateLimit).",
            unit="short",
            colors=thresholds((None, BLUE)),
            nothing="No limit",
            width=3,
            height=8,
        ),
        tile(
            "Within",
            f"max(bullmq_queue_rate_limit_duration_seconds{{{QUEUE}}})",
            "The time window of the rate limit.",
            unit="s",
            colors=thresholds((None, BLUE)),
            nothing="No limit",
            width=3,
            height=8,
        ),
    ]


def workers() -> list[Panel]:
    """Who works, and what is planned."""
    return [
        graph(
            "Workers",
            [
                query(f"max(bullmq_queue_workers{{{QUEUE}}})", "connected"),
                query(
                    f"min(bullmq_queue_oldest_active_locked{{{QUEUE}}})",
                    "hold the oldest active job",
                ),
            ],
            "Workers connected; and whether one still holds the job that has been active the "
            "longest: at 0 its worker is gone or stuck.",
            unit="none",
            nothing="Redis does not show them",
        ),
        graph(
            "Time since the last heartbeat",
            [
                query(
                    f"time() - max(bullmq_worker_heartbeat_timestamp_seconds{{{QUEUE}}})",
                    "worker",
                )
            ],
            "Open Archiver's workers write one every 30 seconds.",
            unit="s",
            nothing="No worker writes heartbeats: only Open Archiver's do",
            limits=thresholds((None, "transparent"), (600, RED)),
        ),
        rows(
            "Schedules",
            (
                (
                    "Next run",
                    f"1000 * min by (scheduler) (bullmq_scheduler_next_run_timestamp_seconds{{{QUEUE}}})",
                    {"unit": "dateTimeFromNow"},
                ),
                (
                    "Overdue",
                    f"clamp_min(time() - min by (scheduler) (bullmq_scheduler_next_run_timestamp_seconds{{{QUEUE}}}), 0)",
                    colored("s", (None, "transparent"), (60, AMBER), (300, RED)),
                ),
            ),
            "Job schedulers and old repeatable jobs, the first 100.",
            by="scheduler",
            nothing="No schedules, or Redis cannot be read",
            sort=("Overdue",),
            links=(("Delayed jobs", jobs_url(SELECTED, "delayed")),),
            size=(12, 8),
        ),
        tile(
            "Schedules",
            f"sum(bullmq_queue_schedulers{{{QUEUE}}})",
            "Schedules that are registered.",
            unit="none",
            colors=thresholds((None, BLUE)),
            nothing=UNREADABLE,
            width=3,
            height=8,
        ),
        tile(
            "Registered twice",
            f"sum(bullmq_queue_duplicate_schedulers{{{QUEUE}}})",
            "Schedules that add the same job as another one: it runs once too often.",
            unit="none",
            colors=thresholds((None, GREEN), (1, AMBER)),
            nothing=UNREADABLE,
            width=3,
            height=8,
        ),
        tile(
            "State",
            f"max(bullmq_queue_paused{{{QUEUE}}})",
            "Whether the queue is paused.",
            unit="none",
            colors=thresholds((None, GREEN), (1, AMBER)),
            nothing=UNREADABLE,
            width=3,
            height=8,
            texts={"0": ("Running", GREEN), "1": ("Paused", AMBER)},
        ),
        tile(
            "Missed, 1 day",
            f"round(sum(increase(bullmq_exporter_events_missed_total{{{QUEUE}}}[1d])))",
            "Events that were trimmed before they were read: counters lack them.",
            unit="short",
            colors=thresholds((None, GREEN), (1, AMBER)),
            nothing=UNCOUNTED,
            width=3,
            height=8,
        ),
        graph(
            "Time since the last run of each schedule",
            [
                query(
                    f"time() - max by (scheduler) (bullmq_scheduler_last_run_timestamp_seconds{{{QUEUE}}})",
                    "{{scheduler}}",
                ),
                query(
                    f"max by (scheduler) (bullmq_scheduler_interval_seconds{{{QUEUE}}})",
                    "interval of {{scheduler}}",
                ),
            ],
            "When a worker last took a job of each schedule, and how often it should.",
            unit="s",
            nothing="None has run since it was registered, or Redis cannot be read",
        ),
        graph(
            "Jobs without data",
            [query(f"sum by (state) (bullmq_queue_missing_jobs{{{QUEUE}}})", "{{state}}")],
            "Jobs at the ends of each state whose data Redis evicted or somebody deleted: they cannot be "
            "processed.",
            unit="short",
            nothing="There are no jobs, or Redis cannot be read",
        ),
    ]


def dashboard() -> Dashboard:
    made = (
        narrowed(board("bullmq-queue", "BullMQ / Queue", "One queue in full."))
        .with_variable(
            variable(
                "queue",
                "Queue",
                f"label_values(bullmq_job_count{{{QUEUES}}}, queue)",
                several=False,
            )
        )
        .with_variable(place_variable("jobs"))
        .annotation(alerts_annotation(QUEUE))
    )
    with_releases(made)
    for title, panels in (
        (None, tiles() + course()),
        ("Failures", failures()),
        ("Why jobs fail", reasons()),
        ("Durations", durations()),
        ("Limits", limits()),
        ("Workers and schedules", workers()),
    ):
        if title:
            made.with_row(Row(title))
        for panel in panels:
            made.with_panel(panel)
    return made
