"""Every queue at a glance: is something failing or standing still, and where."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.parts import (
    AMBER,
    BLUE,
    CELL,
    EACH,
    EXPORTERS,
    GREEN,
    LINE,
    PER_MINUTE,
    QUEUES,
    RED,
    alerts_annotation,
    board,
    colored,
    firing_alerts,
    graph,
    jobs_url,
    narrowed,
    new_reasons,
    place_variable,
    query,
    queue_url,
    rows,
    thresholds,
    tile,
    with_releases,
    worded,
)

UP = (
    f"bullmq_up{{{EXPORTERS}}} or (up{{{EXPORTERS}}} == 0)"
    f" and on (job, instance) last_over_time(bullmq_up{{{EXPORTERS}}}[1d])"
)
# Absent rather than 0 while one Redis cannot be read, or its events are not followed.
ELSE_ZERO = f"or 0 * (min({UP}) == 1)"
ELSE_NO_EVENT = (
    f"or 0 * ((min({UP}) == 1) and max(bullmq_exporter_event_lag_seconds{{{EXPORTERS}}}) >= 0)"
)
PAUSED = f"max {EACH} (bullmq_queue_paused{{{QUEUES}}}) == 1"
READY = f'sum {EACH} (bullmq_job_count{{{QUEUES},state=~"waiting|prioritized"}}) unless ({PAUSED})'


def happened(counter: str, window: str) -> str:
    return f"sum {EACH} (increase({counter}{{{QUEUES}}}[{window}]))"


def until(end: str) -> str:
    """Until when, of the last 5 minutes' values; absent once that is past."""
    return f"max {EACH} (max_over_time({end}{{{QUEUES}}}[5m])) > time()"


RATE_LIMITED = until("bullmq_queue_rate_limited_until_timestamp_seconds")
# As BullMQQueueStandsStill, but shown at once: that alert waits for 5 minutes more.
STANDS_STILL = " unless ".join(
    [
        f"(min_over_time(({READY})[3m:30s]) > 0)",
        *(
            f"({happened(counter, '3m')} > 0)"
            for counter in (
                "bullmq_job_wait_duration_seconds_count",
                "bullmq_job_completed_total",
                "bullmq_job_failed_total",
                "bullmq_job_retried_total",
            )
        ),
        f"(max {EACH} (bullmq_queue_oldest_active_locked{{{QUEUES}}}) == 1)",
        f"({RATE_LIMITED})",
        f"({until('bullmq_queue_rate_limit_window_end_timestamp_seconds')})",
    ]
)
# The worst of the queues of a name. 0: works; 1: rate limited; 2: paused; 3: stands still.
STATE = (
    f"max by (queue) (0 * ({STANDS_STILL}) + 3 or 2 * ({PAUSED}) or 0 * ({RATE_LIMITED}) + 1"
    f" or 0 * sum {EACH} (bullmq_job_count{{{QUEUES}}}))"
)
READY_BY_QUEUE = f"sum by (queue) ({READY})"
FAILED_15M = f"round(sum by (queue) (increase(bullmq_job_failed_total{{{QUEUES}}}[15m])))"
SHARE_1H = (
    f"sum by (queue) (increase(bullmq_job_failed_total{{{QUEUES}}}[1h]))"
    f" / (sum by (queue) (increase(bullmq_job_failed_total{{{QUEUES}}}[1h]))"
    f" + sum by (queue) (increase(bullmq_job_completed_total{{{QUEUES}}}[1h])) > 0)"
)
DONE = (
    f"60 * (sum by (queue) (rate(bullmq_job_completed_total{{{QUEUES}}}[$__rate_interval]))"
    f" + sum by (queue) (rate(bullmq_job_failed_total{{{QUEUES}}}[$__rate_interval])))"
)
WAITS = f"time() - min by (queue) (bullmq_queue_oldest_waiting_timestamp_seconds{{{QUEUES}}})"
RUNS = f"time() - min by (queue) (bullmq_queue_oldest_active_timestamp_seconds{{{QUEUES}}})"
LINKS = (("This queue", queue_url(LINE)), ("Failed jobs", jobs_url(LINE, "failed")))
UNREADABLE = "Redis cannot be read"
REASONS = f'{QUEUES},fingerprint!="__retired__"'
# None is new for an hour after failures of a queue began to be counted by reason.
FIRST_SEEN = (
    "max by (queue, fingerprint, reason)"
    f" (bullmq_job_failure_reason_first_seen_timestamp_seconds{{{QUEUES}}} > time() - 86400"
    " >= on (job, instance, target, prefix, queue) group_left ()"
    f" 3600 + bullmq_queue_failure_reasons_since_timestamp_seconds{{{QUEUES}}})"
)
REASON_1H = (
    "round(max by (queue, fingerprint, reason)"
    f" (increase(bullmq_job_failure_reasons_total{{{QUEUES}}}[1h])))"
)


def dashboard() -> Dashboard:
    return (
        with_releases(
            narrowed(
                board(
                    "bullmq-overview",
                    "BullMQ / Overview",
                    "All queues: what fails, and what is stuck.",
                )
            )
        )
        .with_variable(place_variable("jobs"))
        .with_variable(place_variable("runbooks"))
        .annotation(alerts_annotation(QUEUES))
        .with_panel(
            tile(
                "Redis",
                f"min({UP})",
                "Whether every exporter is there and can read Redis. If not, what follows is not known.",
                unit="none",
                colors=thresholds((None, RED), (1, GREEN)),
                nothing="No exporter is scraped",
                texts={"1": ("Reachable", GREEN), "0": ("Unreachable", RED)},
            )
        )
        .with_panel(
            tile(
                "Stuck",
                f"count({STANDS_STILL}) {ELSE_ZERO}",
                "Queues in which jobs have waited for 3 minutes, none was taken or finished, no worker "
                "holds one, and no rate limit holds them back.",
                unit="none",
                colors=thresholds((None, GREEN), (1, RED)),
                nothing=UNREADABLE,
            )
        )
        .with_panel(
            tile(
                "Failed, 15 minutes",
                f"sum({FAILED_15M}) {ELSE_NO_EVENT}",
                "Jobs that failed for good within the last 15 minutes, in all queues.",
                unit="none",
                colors=thresholds((None, GREEN), (1, AMBER), (10, RED)),
                nothing="Not known",
            )
        )
        .with_panel(
            tile(
                "Longest wait",
                f"max({WAITS}) or 0 * (sum({READY}) == 0)",
                "For how long the oldest job of any queue has waited for a worker. Since when jobs wait that "
                "were retried by hand is not known.",
                unit="s",
                colors=thresholds((None, GREEN), (300, AMBER), (1800, RED)),
                nothing="Not known",
                texts={"0": ("No waiting jobs", GREEN)},
            )
        )
        .with_panel(
            tile(
                "Finished per minute",
                f"sum({DONE}) {ELSE_NO_EVENT}".replace("$__rate_interval", "5m"),
                "Jobs that were completed or failed for good, in all queues, over 5 minutes.",
                unit=PER_MINUTE,
                colors=thresholds((None, BLUE)),
                nothing="Not known",
            )
        )
        .with_panel(
            tile(
                "Alerts",
                f'count(ALERTS{{{QUEUES},alertname=~"BullMQ.+",alertstate="firing"}})'
                " or 0 * max(bullmq:links)",
                "Alerts that are firing now.",
                unit="none",
                colors=thresholds((None, GREEN), (1, RED)),
                nothing="The rules are not loaded",
            )
        )
        .with_panel(firing_alerts(f'alertname=~"BullMQ.+",{QUEUES}', size=(24, 5)))
        .with_panel(
            rows(
                "Queues, worst first",
                (
                    (
                        "State",
                        STATE,
                        {
                            "mappings": worded(
                                {
                                    "0": ("works", "transparent"),
                                    "1": ("rate limited", BLUE),
                                    "2": ("paused", AMBER),
                                    "3": ("stuck", RED),
                                }
                            ),
                            "custom.cellOptions": {"type": "color-background", "mode": "basic"},
                        },
                    ),
                    (
                        "Alerts",
                        "count by (queue)"
                        f' (ALERTS{{{QUEUES},alertname=~"BullMQ.+",alertstate="firing"}})'
                        f" or 0 * {READY_BY_QUEUE}",
                        colored("none", (None, "transparent"), (1, RED)),
                    ),
                    (
                        "Failed 15m",
                        FAILED_15M,
                        colored("none", (None, "transparent"), (1, AMBER), (10, RED)),
                    ),
                    (
                        "Failed % 1h",
                        SHARE_1H,
                        colored("percentunit", (None, "transparent"), (0.01, AMBER), (0.144, RED)),
                    ),
                    ("Ready", READY_BY_QUEUE, {"unit": "short"}),
                    (
                        "Longest wait",
                        WAITS,
                        colored("s", (None, "transparent"), (300, AMBER), (1800, RED)),
                    ),
                    (
                        "Active",
                        f'sum by (queue) (bullmq_job_count{{{QUEUES},state="active"}})',
                        {"unit": "short"},
                    ),
                    (
                        "Longest run",
                        RUNS,
                        colored("s", (None, "transparent"), (3600, AMBER)),
                    ),
                    (
                        "Delayed",
                        f'sum by (queue) (bullmq_job_count{{{QUEUES},state="delayed"}})',
                        {"unit": "short"},
                    ),
                    (
                        "Finished/min",
                        DONE.replace("$__rate_interval", "5m"),
                        {"unit": "none", "decimals": 1},
                    ),
                    (
                        "Workers",
                        f"max by (queue) (bullmq_queue_workers{{{QUEUES}}})",
                        colored("none", (None, AMBER), (1, "transparent")),
                    ),
                ),
                "One row for each queue. Failed % 1h: the share of finished jobs that failed within an hour. Click a name for the queue, or for its failed jobs. Empty "
                "cells are not known, or there is none: no job waits, the server does not show workers.",
                by="queue",
                nothing=UNREADABLE,
                sort=("Alerts", "Failed 15m", "Longest wait", "Ready"),
                links=(("This queue", queue_url(CELL)), ("Failed jobs", jobs_url(CELL, "failed"))),
            )
        )
        .with_panel(
            graph(
                "Failed per minute",
                [
                    query(
                        f"topk(20, 60 * sum by (queue) (rate(bullmq_job_failed_total{{{QUEUES}}}[$__rate_interval])))",
                        "{{queue}}",
                    )
                ],
                "Jobs that failed for good. Click a line for the queue or its failed jobs. At each moment the 20 highest.",
                unit=PER_MINUTE,
                nothing="Events are not followed",
                links=LINKS,
            )
        )
        .with_panel(
            graph(
                "Failed per minute, by reason",
                [
                    query(
                        f"topk(10, 60 * sum by (reason) (rate(bullmq_job_failure_reasons_total{{{REASONS}}}[$__rate_interval])))",
                        "{{reason}}",
                    )
                ],
                "Why jobs failed for good, in all queues together: a cause that they share. At each moment the 10 highest.",
                unit=PER_MINUTE,
                nothing="No job failed, or events are not followed",
                stacked=True,
                long_names=True,
            )
        )
        .with_panel(new_reasons(FIRST_SEEN, REASON_1H, size=(12, 8)))
        .with_panel(
            graph(
                "Ready jobs",
                [query(f"topk(20, {READY_BY_QUEUE})", "{{queue}}")],
                "Jobs that a worker could take now: waiting or prioritized, not paused. At each moment the 20 highest.",
                unit="short",
                nothing=UNREADABLE,
                links=LINKS,
            )
        )
        .with_panel(
            graph(
                "Finished per minute",
                [query(f"topk(20, {DONE})", "{{queue}}")],
                "Jobs that were completed or failed for good. At each moment the 20 highest.",
                unit=PER_MINUTE,
                nothing="Events are not followed",
                links=LINKS,
            )
        )
        .with_panel(
            graph(
                "Longest wait",
                [query(f"topk(20, {WAITS})", "{{queue}}")],
                "Since when the oldest job has waited for a worker; no line where none waits. At each moment the 20 highest.",
                unit="s",
                nothing=f"No waiting jobs, or {UNREADABLE}",
                limits=thresholds((None, "transparent"), (1800, RED)),
                links=LINKS,
            )
        )
    )
