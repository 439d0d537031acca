"""Writes metrics.md, settings.md and api.md from the code; `make docs` runs this after a change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exporter.metrics.event_family import (
    EventFamily,
    EventGauge,
    EventHistogram,
    MissedCounter,
    ReasonCounter,
    ReasonGauge,
)
from exporter.metrics.exposition import COUNTED, GAUGES
from exporter.metrics.family import Family, LabelledQueueGauge, QueueInfo
from exporter.metrics.health import Health
from exporter.queues.snapshot import CollectorRun, Outcome, SlowFacts, Snapshot
from exporter.queues.tallies import FinishedJobs, Layout, Saves, Tallies
from exporter.settings import FILE_ONLY, FLAGS, LEAVES, OPEN_ARCHIVER_NAMES

DOCS = Path(__file__).parent
ROOT = DOCS.parent

# What of BullMQ each family is read from: keys of the queue, or events of its stream.
SOURCES = {
    "bullmq_job_count": "lengths of each state's list or sorted set, and `meta`: BullMQ 6 keeps the "
    "jobs of a paused queue in `wait`. Jobs with a priority stay `prioritized` while it is paused, as in "
    "BullMQ's getJobCounts",
    "bullmq_queue_missing_jobs": "ids at both ends of each state's list or sorted set, and whether their "
    "hashes exist; every `discovery_interval`, 250 queues at a time",
    "bullmq_queue_oldest_waiting_timestamp_seconds": "jobs at both ends of `wait` and the first of each "
    "priority of `prioritized` (of the 20 highest and the lowest, once a minute): their last `waiting` "
    "event if it was read, otherwise their hashes",
    "bullmq_queue_oldest_active_timestamp_seconds": "`processedOn` of the jobs at the end of `active`",
    "bullmq_queue_oldest_active_locked": "that job's `lock`",
    "bullmq_queue_next_delayed_timestamp_seconds": "lowest score of `delayed`",
    "bullmq_queue_oldest_waiting_children_timestamp_seconds": "lowest score of `waiting-children`",
    "bullmq_queue_info": "`version` in `meta`",
    "bullmq_queue_paused": "`paused` in `meta`",
    "bullmq_queue_retention_limit": "the setting `retention`, else `removeOnComplete` and "
    "`removeOnFail` of the newest finished job",
    "bullmq_queue_concurrency_limit": "`concurrency` in `meta`, every minute",
    "bullmq_queue_rate_limit_max": "`max` in `meta`, every minute; BullMQ 5.56.3 has no such limit",
    "bullmq_queue_rate_limit_duration_seconds": "`duration` in `meta`, every minute",
    "bullmq_queue_rate_limited_until_timestamp_seconds": "`limiter` and its expiry, if jobs wait: at "
    "every poll while none is active or after a limiter was seen, otherwise every minute",
    "bullmq_queue_rate_limit_window_end_timestamp_seconds": "the same",
    "bullmq_queue_schedulers": "length of `repeat`",
    "bullmq_queue_duplicate_schedulers": "the schedulers' hashes",
    "bullmq_scheduler_next_run_timestamp_seconds": "scores of `repeat`",
    "bullmq_scheduler_last_run_timestamp_seconds": "`timestamp` of the scheduler's next job, which is "
    "added when the previous one is taken; every `discovery_interval`",
    "bullmq_scheduler_interval_seconds": "`every` of the schedulers' hashes; every `discovery_interval`",
    "bullmq_scheduler_info": "`pattern` and `tz` of the schedulers' hashes; every `discovery_interval`",
    "bullmq_queue_workers": "`CLIENT LIST`",
    "bullmq_worker_heartbeat_timestamp_seconds": "Open Archiver's `oa:worker:<queue>:alive`",
    "bullmq_job_added_total": "`added`",
    "bullmq_job_completed_total": "`completed`",
    "bullmq_job_failed_total": "`failed`",
    "bullmq_job_retried_total": "`waiting` or `delayed` of a job that was active; its hash distinguishes "
    "failed attempts from rate limits and deferrals (`DelayedError`)",
    "bullmq_job_stalled_total": "`stalled`",
    "bullmq_job_retries_exhausted_total": "`retries-exhausted`",
    "bullmq_job_deduplicated_total": "`deduplicated`; only `debounced` in early 5.x",
    "bullmq_job_duplicated_total": "`duplicated`",
    "bullmq_job_wait_duration_seconds": "from `waiting`, `delayed` or `added` to `active`",
    "bullmq_job_process_duration_seconds": "from `active` to `completed` or `failed`",
    "bullmq_job_failure_reasons_total": "`failedReason` of `failed`",
    "bullmq_job_retry_reasons_total": "`failedReason` of the job's hash, after a failed attempt",
    "bullmq_job_failure_reason_first_seen_timestamp_seconds": "both",
    "bullmq_job_failure_reason_last_seen_timestamp_seconds": "both",
    "bullmq_queue_failure_reasons_since_timestamp_seconds": "the exporter",
    "bullmq_exporter_events_missed_total": "gaps in the stream",
    "bullmq_queue_events_off": "`opts.maxLenEvents` in `meta` (100 or less), or gaps in every check",
    "bullmq_queue_clock_offset_seconds": "ids of `active`, `completed` and `failed`, compared with "
    "`processedOn` of the oldest active job at each poll, and with the score of the newest finished job "
    "every `discovery_interval`",
}

# What of BullMQ 6's tables in PostgreSQL each family is read from; None: it is absent there.
POSTGRES_SOURCES = {
    "bullmq_job_count": "`job`: up to 1,000 jobs of each state that is not finished are counted at each "
    "poll; finished and other jobs in turn, for 0.1% of the time (0.2% while a count is more than 5 minutes old), the oldest first, those of unfinished jobs more often. A count that is "
    "more than 10 minutes old is absent. Jobs with a negative priority count as `waiting`, as "
    "`Job.getState()` says; BullMQ's `getJobCounts()` has them in no state",
    "bullmq_queue_missing_jobs": None,
    "bullmq_queue_oldest_waiting_timestamp_seconds": "the first 5 jobs of `job` that workers take, 5 jobs "
    "at the end of those added with `lifo`, the first 5 with a negative priority, and the first job "
    "of the 20 highest priorities",
    "bullmq_queue_oldest_active_timestamp_seconds": "`processed_at_ms` of up to 1,000 active jobs",
    "bullmq_queue_oldest_active_locked": "`locked_until_ms` of that job, by the exporter's clock",
    "bullmq_queue_next_delayed_timestamp_seconds": "lowest `process_at_ms` of delayed jobs",
    "bullmq_queue_oldest_waiting_children_timestamp_seconds": "when the first parent was added or last "
    "taken, whichever is later",
    "bullmq_queue_info": "`version` in `meta`",
    "bullmq_queue_paused": "`paused` in `meta`",
    "bullmq_queue_retention_limit": "as in Redis",
    "bullmq_queue_concurrency_limit": "`concurrency` in `meta`",
    "bullmq_queue_rate_limit_max": "`max` in `meta`",
    "bullmq_queue_rate_limit_duration_seconds": "`duration` in `meta`",
    "bullmq_queue_rate_limited_until_timestamp_seconds": "`rate_limit`",
    "bullmq_queue_rate_limit_window_end_timestamp_seconds": "`rate_limit`",
    "bullmq_queue_schedulers": "`scheduler`",
    "bullmq_queue_duplicate_schedulers": "`scheduler`: the same name and the same template",
    "bullmq_scheduler_next_run_timestamp_seconds": "`scheduler`; of a queue with more than are exposed, the "
    "first ones by their ids",
    "bullmq_scheduler_last_run_timestamp_seconds": "`added_at_ms` of the scheduler's next job, as in Redis",
    "bullmq_scheduler_interval_seconds": "`scheduler`",
    "bullmq_scheduler_info": "`scheduler`",
    "bullmq_queue_workers": "`pg_stat_activity`: connections named by the queue; of a worker of BullMQ's "
    "Python client, which names up to two, half are counted, rounded up; absent for names of queues of more "
    "than 60 bytes, or with other characters than those of ASCII, and on a standby. The same name in two schemas of a "
    "database is counted in both",
    "bullmq_worker_heartbeat_timestamp_seconds": None,
}


def metrics() -> str:
    """All metric families: name, type, labels, meaning, source."""
    gauges = [
        _row(
            family.name,
            "gauge",
            ["queue", *_labels(family)],
            family.help,
            SOURCES[family.name],
        )
        for family in GAUGES
    ]
    counted = [
        _row(
            family.name,
            "histogram"
            if isinstance(family, EventHistogram)
            else "gauge"
            if isinstance(family, EventGauge | ReasonGauge)
            else "counter",
            ["queue", *_event_labels(family)],
            family.help,
            SOURCES[family.name],
        )
        for family in COUNTED
    ]
    head = ["metric", "type", "labels", "meaning", "read from"]
    postgres = [[f"`{name}`", source] for name, source in POSTGRES_SOURCES.items() if source]
    return f"""{MADE}# Metrics
`GET :9538/metrics`, in the text format or OpenMetrics, whichever the scraper prefers, compressed if it
accepts gzip. With several prefixes, each metric of a queue also has the label `prefix`; with
[targets](settings.md#targets), each metric that belongs to one target has the label `target`.

A value that could not be read is absent, never 0 and never an old one. While Redis is unreachable, `bullmq_up`
is 0 and all metrics of its queues are absent.

A label value has at most 200 bytes: a longer name is cut and ends in `~` and eight digits of its hash.
Bytes that are not UTF-8 are shown as `\\xff`.

## Queues, by polls
Read every `poll_interval` (5 seconds). Times are Unix timestamps: `time() - x` is an age.

{_table(head, gauges)}

### In PostgreSQL
The same metrics, from BullMQ 6's tables. These are absent: `bullmq_queue_missing_jobs`, because a job and its state
are one row; `bullmq_worker_heartbeat_timestamp_seconds`, which is a key in Redis; and
`bullmq_queue_clock_offset_seconds`. `bullmq_up` is 1 if the last poll of PostgreSQL succeeded.

The metrics [by events](#jobs-by-events) come from the table `event`, which is read every 2 seconds or more often. Transactions
may commit in another order than that of the ids of their events: each event is counted once, when it can be seen.
A hot standby does not show which transactions are still open, so that these metrics are absent there. BullMQ deletes
events whose ids are more than 10,000 behind that of a new one (`maxLenEvents` sets that; 0 keeps all), counted over all queues:
where events were deleted unread, also those of a queue before it was found, `bullmq_exporter_events_missed_total`
grows by 1, since no id shows how many there were, and completed and failed jobs of that gap are not counted later.
BullMQ writes `retries-exhausted` for every job that fails for good there, so that `bullmq_job_retries_exhausted_total` equals `bullmq_job_failed_total`.

{_table(["metric", "read from"], postgres)}

### Of Bull
Queues of Bull 3 and 4 have the same metrics, read from the same keys, with these differences:

| metric | of a queue of Bull |
| --- | --- |
| `bullmq_job_count` | Jobs with a priority are `waiting`; no job is `prioritized` or `waiting-children` |
| `bullmq_queue_info` | `version="bull"`: Bull writes none |
| `bullmq_queue_paused` | `meta-paused`, which all versions write |
| `bullmq_queue_oldest_waiting_timestamp_seconds` | the first job in `wait` without a priority and of each of the 20 highest priorities, and the job at the other end, by their hashes |
| `bullmq_queue_concurrency_limit`, `bullmq_queue_rate_limit_max`, `bullmq_queue_rate_limited_until_timestamp_seconds` and the other two of rate limits | absent: limits are options of Bull's workers, and jobs beyond a rate limit become `delayed` |
| `bullmq_queue_schedulers`, `bullmq_scheduler_next_run_timestamp_seconds` and others | repeatable jobs. One whose `limit` is reached stays in `repeat` with its last run; where its last job is no longer kept, it looks overdue until `removeRepeatableByKey` removes it |
| `bullmq_queue_workers` | Bull 3 gives all connections of a queue the same name, also those of processes that only add jobs: only those that have waited for jobs count. Bull 4 names those alone |

Two applications that use the same name, one with Bull and one with BullMQ, are reported as one queue of BullMQ, and
logged.

The metrics [by events](#jobs-by-events) come from the messages that Bull publishes, if the user may hear them
([the ACL](../README.md#a-redis-user-that-can-only-read) has the right): every job counts while the exporter hears them,
also if it is removed at once. A new queue under a prefix that has queues already is searched for when it is first heard,
within 5 seconds. Bull keeps no events. After an interruption or a restart, and in a queue before it was
found, completed and failed jobs are counted as far as the queue still keeps them;
`bullmq_exporter_bull_unheard_seconds_total` says for how long nothing was heard, `bullmq_exporter_events_missed_total`
stays 0. Whether a job that was unknown is a new one is judged by its `timestamp` and the exporter's clock: if the
application's clock differs by seconds, jobs from before an interruption may count as added, or some new ones not. No message has a job's name: it is read from the job's hash when the job is first heard of, and is `__unknown__`
if the job is gone by then. Durations are those between the arrivals of messages. Without a right to hear channels these
metrics are absent for Bull's queues and [BullMQEventsNotFollowed](runbooks/BullMQEventsNotFollowed.md) fires. Bull 3
publishes nothing of duplicates. A failed attempt that is tried again without a backoff is counted when the job is active
again, since Bull publishes nothing before, and that attempt has no wait duration; neither have jobs of `Queue.retryJobs()`.
`bullmq_job_retries_exhausted_total` is decided by the job's hash; a job that is removed when it fails counts as having
used up its attempts, unless it stalled too often.

The age of a waiting job is exact, by Redis's clock, if the exporter has read the job's events. For jobs
that were added before the exporter started, or beyond `events.max_jobs`, it comes from the job's hash:
from the clock of the producer, or of the worker that started the last attempt. The hash does not show
when a job was returned to the queue after its worker was lost: such a job has no age.

The start of active jobs and the heartbeats are times of the workers' clocks, and workers decide by their clocks
when delayed jobs and schedulers are due. Subtract `bullmq_queue_clock_offset_seconds` to get Redis's time.

## Jobs, by events
Read from each queue's event stream, so they count every job, however few finished jobs are kept. They start at 0
with the exporter, or continue where they were with [`events.state_file`](settings.md#eventsstate_file). The counters
of a job name are exposed after the first job of that name; a new series shows 0 to Prometheus for
[`metrics.scrape_interval`](settings.md#metricsscrape_interval) (60 seconds, from the first scrape on), so that its
first count is an increase. Clients that do not send Prometheus's header see the real value, and do not change what
others see. Names beyond `events.max_names` are counted as `__other__`. In OpenMetrics, the counter of failed jobs and
the buckets of the histograms have their last job as an exemplar (`job_key="bull:ingestion:42"`), unless its key is
longer than 121 characters or contains a NUL or `"`.

`__unknown__` is the name of jobs whose name could not be read. Only the event `added` contains it. For a
job that was added before the exporter started, in a gap of the stream or beyond `events.max_jobs`, the
exporter reads the job's hash, which no longer exists if the job was removed on completion
(`removeOnComplete`). The last 20,000 failed jobs of all queues are remembered, so that they keep their
names when they are retried by hand.

A retry is counted if the events or the job's hash show that an attempt failed. The first retry of a job
may remain uncounted if the job was active before the exporter started and was then deferred
(`DelayedError`, a rate limit), or if it failed in between. If a job is deferred, completed and removed
within a fraction of a second, before its hash can be read, one retry too many is counted.

### Reasons of failures
Failures with the same cause are counted together. `reason` is their common text, at most 120 characters and 200
bytes, with a placeholder for everything that differs from job to job: `Card declined for <*>` counts this failure
for all customers. `fingerprint` identifies the reason. It is the same in every process, in the Jobs API
(`/failures`) and on the page. The values that [`api.redact`](settings.md#apiredact) and
[`api.redact_values`](settings.md#apiredact_values) hide are removed before. To count no reasons, set
[`events.max_reasons`](settings.md#eventsmax_reasons) to `0`.

For each queue, the 20 reasons that occurred most often recently have a series of their own, both in
`bullmq_job_failure_reasons_total` and in `bullmq_job_retry_reasons_total`. Three more series count the rest, so
that the sum over all series of a queue is exactly its `bullmq_job_failed_total` or `bullmq_job_retried_total`:

| fingerprint | counts |
| --- | --- |
| other: `__other__` | failures for reasons without a series of their own |
| unknown: `__unknown__` | failures whose reason is unknown: the event was missed, the job was removed before its hash was read, the reason of an attempt is longer than 64 KiB, or the failure happened before the exporter counted reasons |
| retired: `__retired__` | earlier failures for reasons that have lost their series to another reason. It jumps whenever that happens, so its rate has no meaning |

A reason's weight is the number of its failures, where a failure counts half as much after each hour. A reason
without a series takes over the series with the lowest weight as soon as it has twice that weight. At most 20 series
of a queue are taken over per hour.

{_table([*head[:-1], "events"], counted)}

## The exporter itself
{_table(head[:-1], [*_own()])}
"""


def _event_labels(family: EventFamily) -> Sequence[str]:
    """The labels in addition to those that identify the queue."""
    if isinstance(family, ReasonCounter | ReasonGauge):
        return ["fingerprint", "reason"]
    return [] if isinstance(family, MissedCounter | EventGauge) else ["name"]


def _labels(family: Family) -> Sequence[str]:
    """The labels in addition to those that identify the queue."""
    if isinstance(family, QueueInfo):
        return family.labels
    return [family.label] if isinstance(family, LabelledQueueGauge) else []


def _own() -> Iterator[list[str]]:
    health = Health()
    # A family has its labels once it has a sample.
    health.api_requests.labels("", "").inc()
    health.api_durations.labels("").observe(0)
    tallies = Tallies(
        *(Layout((), ()), {}),
        events_read=0,
        lag=0,
        tracked_jobs=0,
        untracked_jobs=0,
        clock_offset=0,
        unheard=0,
        removed=FinishedJobs(),
        saves=Saves(),
    )
    facts = SlowFacts(runs={"": CollectorRun(success=True, duration=0)})
    snapshot = Snapshot((), facts, unwatched={"prefix": 0})
    health.record(None, Outcome(snapshot, None, duration=0), tallies)
    for metric in sorted(health.registry.collect(), key=_own_first):
        labels = {name: None for sample in metric.samples for name in sample.labels if name != "le"}
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        yield _row(name, metric.type, [*labels], metric.documentation)[:4]


def _own_first(metric: Any) -> tuple[bool, str]:
    return not metric.name.startswith("bullmq"), metric.name


def _row(name: str, kind: str, labels: Sequence[str], *texts: str) -> list[str]:
    return [f"`{name}`", kind, ", ".join(labels), *(text.rstrip(".") for text in texts)]


def settings() -> str:
    """All settings, with the comments of config/exporter.yml."""
    parts, comment, section = [], list[str](), ""
    for line in (ROOT / "config" / "exporter.yml").read_text().splitlines():
        if line.strip().startswith("#"):
            comment.append(line.strip().removeprefix("#").removeprefix(" "))
            continue
        if match := re.fullmatch(r"( *)(\w+):(.*)", line):
            indent, name, value = match.groups()
            section = section if indent else ""
            path = f"{section}{name}"
            if path in LEAVES:
                parts.append(_setting(path, value.strip(), comment))
            elif path.removesuffix("_file") not in LEAVES:  # those are next to their secrets
                section = f"{name}."
                parts.append(f"## {name}\n{_prose(comment)}\n")
        comment = []
    return f"""{MADE}# Settings
Flags take precedence over environment variables, those over the file that `--config` names, and the file over
the defaults. [config/exporter.yml](../config/exporter.yml) is the same list as a file to start from.
`bullmq-exporter --check` tests the settings: it connects, lists the queues and what is not watched or not read,
and exits with 0, or with 1 if a target has no queue. With an unknown name or an invalid value, the exporter exits
with code 2 and one line that says what is allowed.

Lists are written `a,b` in flags and variables. A secret can be in a file of its own: set the file's path by the
name with `_file`, or `_FILE` in the environment. A pipe, such as a shell's `<(…)`, is allowed. If a file does not
answer within 10 seconds, the exporter exits in the same way.

{"".join(parts)}"""


def _setting(path: str, default: str, comment: Sequence[str]) -> str:
    leaf = LEAVES[path]
    names = [] if path in FILE_ONLY else [f"`{leaf.variable}`"]
    names += [f"`{leaf.variable}_FILE`"] if leaf.secret else []
    names += [f"`{FLAGS[path]}`"] if path in FLAGS else []
    # They end the comment: `REDIS_HOST, as in Open Archiver`.
    text = _prose([line for line in comment if not line.startswith((leaf.variable, *names))])
    given = ", ".join(names) or "only in the file"
    given += ", as in Open Archiver" if path in OPEN_ARCHIVER_NAMES else ""
    unset = "not set" if default == "null" else f"default `{default}`"
    return f"### {path}\n{given}; {unset}\n{text}\n"


def _prose(comment: Sequence[str]) -> str:
    """A comment as Markdown: what is indented is an example."""
    text, code = [], False
    for line in comment:
        indented = line.startswith("  ")
        if indented != code:
            text.append("```" if code else "```yaml")
            code = indented
        text.append(line.removeprefix("  ") if code else re.sub(r"[*<\[]", r"\\\g<0>", line))
    text += ["```"] if code else []
    return f"\n{NEW_LINE.join(text)}\n" if any(text) else ""


def api() -> str:
    """The Jobs API, from the document that it serves."""
    document = json.loads((ROOT / "exporter" / "web" / "openapi.json").read_text())
    parts = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(document, method, path, operation))
    responses = _table(
        ["status", "when"],
        [
            [status, _resolved(document, answer)["description"].rstrip(".")]
            for status, answer in _answers(document).items()
        ],
    )
    schemes = "\n".join(
        f"- {_header(scheme)}: {scheme['description']}"
        for scheme in document["components"]["securitySchemes"].values()
    )
    schemas = "\n".join(
        _schema(document, name, schema)
        for name, schema in document["components"]["schemas"].items()
        if name not in ("Message", "JobFields", "Duration")
    )
    return f"""{MADE}# Jobs API
{document["info"]["description"]}

Port 9539, under `/v1/jobs/…` and, as Open Archiver serves it, under `/api/v1/jobs/…`.
`GET /openapi.json` is this page for programs; with a credential, it names the prefixes and targets.

## Credentials
{schemes}

A valid credential is accepted at any time, and has [requests](settings.md#apirate_limit) of its own: what
others send from the same address takes nothing from it. A `429` with `WWW-Authenticate` was sent without a
valid credential, and one without that header, with one. Many [wrong ones](settings.md#apilockout) are
answered late.

```sh
curl -H "X-API-KEY: $EXPORTER_API_KEY" localhost:9539/v1/jobs/queues
curl -H "X-API-KEY: $EXPORTER_API_KEY" "localhost:9539/v1/jobs/queues/ingestion?status=failed&order=desc"
curl -H "X-API-KEY: $EXPORTER_API_KEY" "localhost:9539/v1/jobs/queues/ingestion/failures?window=24h"
```

{"".join(parts)}## Errors
JSON, `{{"message": "…"}}`.

{responses}

## Fields
{schemas}"""


def _operation(document: Any, method: str, path: str, operation: Any) -> str:
    rows = []
    for given in operation.get("parameters", []):
        parameter = _resolved(document, given)
        schema = _resolved(document, parameter["schema"])
        default = {**schema, **parameter["schema"]}.get("default")
        rows.append(
            [
                f"`{parameter['name']}`",
                _allowed(schema),
                "" if default is None else f"`{default}`",
                parameter.get("description", "").rstrip("."),
            ]
        )
    described = f"{operation['description']}\n\n" if "description" in operation else ""
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    table = _table(["parameter", "allowed", "default", "meaning"], rows)
    return (
        f"## {method.upper()} {path}\n{operation['summary']}. {described}Returns "
        f"{_link(answer)}.\n\n{table}\n\n"
    )


def _allowed(schema: Any) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "minimum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    if "maxLength" in schema:
        return f"up to {schema['maxLength']} characters"
    return schema.get("description", "text")


def _schema(document: Any, name: str, schema: Any) -> str:
    if "enum" in schema:
        return f"### {name}\n{_allowed(schema)}\n"
    described = f"{schema['description']}\n" if "description" in schema else ""
    rows = [
        [f"`{field}`", _type(given), _resolved(document, given).get("description", "").rstrip(".")]
        for field, given in _fields(document, schema).items()
    ]
    return f"### {name}\n{described}\n{_table(['field', 'type', 'meaning'], rows)}\n"


def _fields(document: Any, schema: Any) -> dict[str, Any]:
    inherited = [_fields(document, _resolved(document, each)) for each in schema.get("allOf", [])]
    return {
        name: field
        for fields in (*inherited, schema.get("properties", {}))
        for name, field in fields.items()
    }


def _type(schema: Any) -> str:
    if "$ref" in schema:
        return _link(schema)
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_type(each) for each in schema.get("anyOf") or schema["oneOf"])
    kinds = schema.get("type", "any")
    kind = " or ".join([kinds] if isinstance(kinds, str) else kinds)
    if "properties" in schema:
        kind += f" ({', '.join(f'`{name}`' for name in schema['properties'])})"
    return f"{kind} of {_type(schema['items'])}" if "items" in schema else kind


def _link(schema: Any) -> str:
    name = schema["$ref"].rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _header(scheme: Any) -> str:
    return f"`{scheme['name']}: …`" if scheme["type"] == "apiKey" else "`Authorization: Bearer …`"


def _answers(document: Any) -> dict[str, Any]:
    return dict(
        sorted(
            (status, answer)
            for methods in document["paths"].values()
            for operation in methods.values()
            for status, answer in operation["responses"].items()
            if status != "200"
        )
    )


def _resolved(document: Any, schema: Any) -> Any:
    if "$ref" not in schema:
        return schema
    *_, kind, name = schema["$ref"].split("/")
    return document["components"][kind][name]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |" for line in lines)


MADE = "<!-- Made by `make docs`: change what docs/reference.py reads. -->\n"
# Python 3.11 takes no backslash within the braces of an f-string.
BAR, NEW_LINE = "\\|", "\n"
PAGES = {"metrics.md": metrics, "settings.md": settings, "api.md": api}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
