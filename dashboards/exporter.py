"""The exporter itself: does it read Redis, is it up to date, what does it cost."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.parts import (
    AMBER,
    BLUE,
    EXPORTERS,
    GREEN,
    PER_MINUTE,
    RED,
    alerts_annotation,
    board,
    graph,
    query,
    thresholds,
    tile,
)

BY = "{{instance}} {{target}}"
DOWN = "No exporter is scraped"


def quantile(share: float, histogram: str, by: str) -> str:
    return (
        f"histogram_quantile({share}, sum by (le, {by})"
        f" (rate({histogram}_bucket{{{EXPORTERS}}}[$__rate_interval])))"
    )


def dashboard() -> Dashboard:
    return (
        board("bullmq-exporter", "BullMQ / Exporter", "The health of bullmq-exporter.")
        .annotation(alerts_annotation(f'{EXPORTERS},queue=""'))
        .with_panel(
            tile(
                "Redis",
                f"min(bullmq_up{{{EXPORTERS}}})",
                "Whether the last poll succeeded.",
                unit="none",
                colors=thresholds((None, RED), (1, GREEN)),
                nothing=DOWN,
                texts={"1": ("Reachable", GREEN), "0": ("Unreachable", RED)},
            )
        )
        .with_panel(
            tile(
                "Last poll",
                f"time() - min(bullmq_exporter_last_poll_timestamp_seconds{{{EXPORTERS}}} > 0)",
                "Since the last poll that succeeded.",
                unit="s",
                colors=thresholds((None, GREEN), (30, AMBER), (120, RED)),
                nothing="No poll has succeeded yet",
            )
        )
        .with_panel(
            tile(
                "Queues",
                f"sum(bullmq_exporter_queues{{{EXPORTERS}}})",
                "Queues that are watched.",
                unit="short",
                colors=thresholds((None, BLUE)),
                nothing=DOWN,
            )
        )
        .with_panel(
            tile(
                "Unreadable values",
                f"sum(bullmq_exporter_unreadable_values{{{EXPORTERS}}})",
                "Values that the last poll had to leave out, such as keys of the wrong type.",
                unit="none",
                colors=thresholds((None, GREEN), (1, AMBER)),
                nothing=DOWN,
            )
        )
        .with_panel(
            tile(
                "Event lag",
                f"max(bullmq_exporter_event_lag_seconds{{{EXPORTERS}}})",
                "How far the reading of events is behind, in the stream that is furthest.",
                unit="s",
                colors=thresholds((None, GREEN), (10, AMBER), (60, RED)),
                nothing="Events are not followed",
            )
        )
        .with_panel(
            tile(
                "Events missed, 1 day",
                f"round(sum(increase(bullmq_exporter_events_missed_total{{{EXPORTERS}}}[1d])))",
                "Events that were trimmed before they were read.",
                unit="short",
                colors=thresholds((None, GREEN), (1, AMBER)),
                nothing="Events are not followed",
            )
        )
        .with_panel(
            graph(
                "Poll duration",
                [
                    query(
                        quantile(0.5, "bullmq_exporter_poll_duration_seconds", "instance, target"),
                        f"p50 {BY}",
                    ),
                    query(
                        quantile(0.99, "bullmq_exporter_poll_duration_seconds", "instance, target"),
                        f"p99 {BY}",
                    ),
                ],
                "How long a poll of all queues takes.",
                unit="s",
                nothing=DOWN,
            )
        )
        .with_panel(
            graph(
                "Failed polls per minute",
                [
                    query(
                        f"60 * sum by (instance, target) (rate(bullmq_exporter_poll_errors_total{{{EXPORTERS}}}[$__rate_interval]))",
                        BY,
                    )
                ],
                "Polls that failed: Redis was away, too slow, or refused. The log says why.",
                unit=PER_MINUTE,
                nothing=DOWN,
            )
        )
        .with_panel(
            graph(
                "Time since the last search for queues",
                [
                    query(
                        f"time() - max by (instance, target) (bullmq_exporter_last_discovery_timestamp_seconds{{{EXPORTERS}}} > 0)",
                        BY,
                    )
                ],
                "New queues are found within discovery_interval.",
                unit="s",
                nothing="The queues are named in the settings",
            )
        )
        .with_panel(
            graph(
                "Events read per minute",
                [
                    query(
                        f"60 * sum by (instance, target) (rate(bullmq_exporter_events_read_total{{{EXPORTERS}}}[$__rate_interval]))",
                        BY,
                    )
                ],
                "Events of all queues.",
                unit=PER_MINUTE,
                nothing="Events are not followed",
            )
        )
        .with_panel(
            graph(
                "Event lag",
                [
                    query(
                        f"max by (instance, target) (bullmq_exporter_event_lag_seconds{{{EXPORTERS}}})",
                        BY,
                    )
                ],
                "How far the reading of events is behind.",
                unit="s",
                nothing="Events are not followed",
                limits=thresholds((None, "transparent"), (60, RED)),
            )
        )
        .with_panel(
            graph(
                "Clock offsets",
                [
                    query(
                        f"topk(10, max by (queue) ({sign}bullmq_queue_clock_offset_seconds{{{EXPORTERS}}})) > 1",
                        f"workers of {{{{queue}}}}, {side}",
                    )
                    for sign, side in (("", "ahead"), ("-", "behind"))
                ]
                + [
                    query(
                        f"max by (instance, target) ({sign}bullmq_exporter_clock_offset_seconds{{{EXPORTERS}}}) > 1",
                        f"exporter {BY}, {side}",
                    )
                    for sign, side in (("", "ahead"), ("-", "behind"))
                ],
                "By over a second. Workers make delayed jobs ready by their own clock. If all of them "
                "and the exporter differ alike, it is Redis's that is wrong.",
                unit="s",
                nothing="All agree, or events are not followed",
                limits=thresholds((None, "transparent"), (60, RED)),
            )
        )
        .with_panel(
            graph(
                "Events followed",
                [
                    query(
                        f"min by (instance, target) (bullmq_exporter_events_followed{{{EXPORTERS}}})",
                        BY,
                    )
                ],
                "1 while events are read, 0 while they, or only those of Bull 3 and 4, cannot be: then no "
                "counter of these queues is exposed.",
                unit="none",
                nothing="Events are switched off, or no exporter is scraped",
            )
        )
        .with_panel(
            graph(
                "Events missed by queue, per minute",
                [
                    query(
                        f"60 * sum by (queue) (rate(bullmq_exporter_events_missed_total{{{EXPORTERS}}}[$__rate_interval])) > 0",
                        "{{queue}}",
                    ),
                    query(
                        f"60 * sum by (instance, target) (rate(bullmq_exporter_uncertain_gaps_total{{{EXPORTERS}}}[$__rate_interval])) > 0",
                        f"gaps of unknown size {BY}",
                    ),
                    query(
                        f"60 * sum by (instance, target) (rate(bullmq_exporter_bull_unheard_seconds_total{{{EXPORTERS}}}[$__rate_interval])) > 0",
                        f"seconds without Bull's events {BY}",
                    ),
                    query(
                        f"sum by (queue) (bullmq_queue_events_off{{{EXPORTERS}}})",
                        "{{queue}} keeps too few events",
                    ),
                ],
                "Events that were trimmed before they were read, gaps in which more may be missing than is "
                "counted, seconds in which those of Bull 3 and 4 were not heard, and 1 for each queue that "
                "keeps too few events to be read.",
                unit=PER_MINUTE,
                nothing="None was missed, or events are not followed",
            )
        )
        .with_panel(
            graph(
                "Time since counters were saved",
                [
                    query(
                        f"time() - max by (instance, target) (bullmq_exporter_last_save_timestamp_seconds{{{EXPORTERS}}} > 0)",
                        BY,
                    ),
                    query(
                        f"60 * sum by (instance, target) (rate(bullmq_exporter_save_errors_total{{{EXPORTERS}}}[$__rate_interval])) > 0",
                        f"failed saves per minute {BY}",
                    ),
                ],
                "When the state file was last written, and saves that failed or could not begin.",
                unit="s",
                nothing="No state file is set (events.state_file)",
            )
        )
        .with_panel(
            graph(
                "Unwatched queues",
                [
                    query(
                        f"sum by (instance, target, reason) (bullmq_exporter_unwatched_queues{{{EXPORTERS}}})",
                        f"{{{{reason}}}} {BY}",
                    )
                ],
                "Queues that were found but are not watched, by reason.",
                unit="short",
                nothing="The queues are named in the settings",
            )
        )
        .with_panel(
            graph(
                "Slow reads: duration and failures",
                [
                    query(
                        f"max by (instance, target, collector) (bullmq_exporter_collector_duration_seconds{{{EXPORTERS}}})",
                        f"{{{{collector}}}} {BY}",
                    ),
                    query(
                        f"1 - min by (instance, target, collector) (bullmq_exporter_collector_success{{{EXPORTERS}}})",
                        f"{{{{collector}}}} failed {BY}",
                    ),
                ],
                "How long the last run of each collector took, and 1 while its last run failed: then its metrics "
                "are absent.",
                unit="s",
                nothing="No poll succeeded",
            )
        )
        .with_panel(
            graph(
                "Jobs of removed queues, per minute",
                [
                    query(
                        f"60 * sum by (state) (rate(bullmq_removed_queues_jobs_total{{{EXPORTERS}}}[$__rate_interval]))",
                        "{{state}}",
                    )
                ],
                "Jobs that finished in queues whose own series are gone.",
                unit=PER_MINUTE,
                nothing="No queue was removed, or events are not followed",
            )
        )
        .with_panel(
            graph(
                "Tracked jobs",
                [
                    query(
                        f"sum by (instance, target) (bullmq_exporter_tracked_jobs{{{EXPORTERS}}})",
                        f"tracked {BY}",
                    ),
                    query(
                        f"60 * sum by (instance, target) (rate(bullmq_exporter_untracked_jobs_total{{{EXPORTERS}}}[$__rate_interval]))",
                        f"beyond the limit, per minute {BY}",
                    ),
                ],
                "Unfinished jobs whose durations are measured, at most events.max_jobs; jobs beyond are "
                "counted without durations.",
                unit="short",
                nothing="Events are not followed",
            )
        )
        .with_panel(
            graph(
                "API requests per minute",
                [
                    query(
                        f"60 * sum by (route, status) (rate(bullmq_exporter_api_requests_total{{{EXPORTERS}}}[$__rate_interval]))",
                        "{{status}} {{route}}",
                    )
                ],
                "Answers of the Jobs API.",
                unit=PER_MINUTE,
                nothing="Nobody has asked the API",
            )
        )
        .with_panel(
            graph(
                "API response time",
                [
                    query(
                        quantile(0.5, "bullmq_exporter_api_request_duration_seconds", "route"),
                        "p50 {{route}}",
                    ),
                    query(
                        quantile(0.99, "bullmq_exporter_api_request_duration_seconds", "route"),
                        "p99 {{route}}",
                    ),
                ],
                "How long the Jobs API takes to answer.",
                unit="s",
                nothing="Nobody has asked the API",
            )
        )
        .with_panel(
            graph(
                "Failed logins per minute",
                [
                    query(
                        f"60 * sum by (port, reason) (rate(bullmq_exporter_failed_logins_total{{{EXPORTERS}}}[$__rate_interval]))",
                        "{{reason}} on the {{port}} port",
                    ),
                    query(
                        f"60 * sum by (port) (rate(bullmq_exporter_lockouts_total{{{EXPORTERS}}}[$__rate_interval]))",
                        "clients with too many, {{port}} port",
                    ),
                ],
                "Requests with a wrong credential. The log names the addresses.",
                unit=PER_MINUTE,
                nothing=DOWN,
            )
        )
        .with_panel(
            graph(
                "CPU",
                [
                    query(
                        f"sum by (instance) (rate(process_cpu_seconds_total{{{EXPORTERS}}}[$__rate_interval]) and on (instance, job) bullmq_exporter_build_info)",
                        BY,
                    )
                ],
                "Cores that the exporter uses.",
                unit="percentunit",
                nothing=DOWN,
            )
        )
        .with_panel(
            graph(
                "Memory",
                [
                    query(
                        f"sum by (instance) (process_resident_memory_bytes{{{EXPORTERS}}} and on (instance, job) bullmq_exporter_build_info)",
                        BY,
                    )
                ],
                "Memory that the exporter occupies.",
                unit="bytes",
                nothing=DOWN,
            )
        )
        .with_panel(
            graph(
                "Open files",
                [
                    query(
                        f"sum by (instance) (process_open_fds{{{EXPORTERS}}} and on (instance, job) bullmq_exporter_build_info)",
                        f"open {BY}",
                    ),
                ],
                "Files and connections.",
                unit="short",
                nothing=DOWN,
            )
        )
    )
