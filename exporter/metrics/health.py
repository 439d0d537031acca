"""The exporter's own metrics."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter import __version__
from exporter.queues.snapshot import CollectorRun, Outcome
from exporter.queues.tallies import Tallies

# Families on following events, and the fields of Tallies that they expose.
_EVENTS = (
    (CounterMetricFamily, "bullmq_exporter_events_read", "Events that were read.", "events_read"),
    (
        GaugeMetricFamily,
        "bullmq_exporter_event_lag_seconds",
        "Time between the last event that was read and the last one of its stream, for the stream "
        "that is the furthest behind.",
        "lag",
    ),
    (
        GaugeMetricFamily,
        "bullmq_exporter_tracked_jobs",
        "Unfinished jobs that are tracked to measure their durations.",
        "tracked_jobs",
    ),
    (
        CounterMetricFamily,
        "bullmq_exporter_untracked_jobs",
        "Jobs that are counted, but not tracked, because events.max_jobs was reached.",
        "untracked_jobs",
    ),
    (
        CounterMetricFamily,
        "bullmq_exporter_uncertain_gaps",
        "Gaps in event streams in which more events may be missing than "
        "bullmq_exporter_events_missed_total counts, such as when a stream was deleted unread.",
        "uncertain_gaps",
    ),
    (
        GaugeMetricFamily,
        "bullmq_exporter_clock_offset_seconds",
        "By how much the exporter's clock is ahead of Redis's, below 0 if it is behind; absent "
        "until events were read when they were written.",
        "clock_offset",
    ),
    (
        CounterMetricFamily,
        "bullmq_exporter_bull_unheard_seconds",
        "Time for which events of Bull's queues were not heard: it keeps none, so of what happened "
        "then only finished jobs that are still kept are counted; absent without such queues.",
        "unheard",
    ),
)


REMOVED = "bullmq_removed_queues_jobs_total"
LAST_SAVE = "bullmq_exporter_last_save_timestamp_seconds"
SAVE_ERRORS = "bullmq_exporter_save_errors_total"


class _Events(Collector):
    """The counts of each target; nothing while its events cannot be followed."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self.tallies: dict[tuple[str, ...], Tallies | None] = {}

    def collect(self) -> Iterator[Metric]:
        known = [(values, tallies) for values, tallies in self.tallies.items() if tallies]
        for kind, name, help_text, field in _EVENTS if known else ():
            family = kind(name, help_text, labels=self._labels)
            for values, tallies in known:
                if (value := getattr(tallies, field)) is not None:
                    family.add_metric(values, value)
            if family.samples:
                yield family
        yield from self._collect_saves(known)
        if not known:
            return
        removed = CounterMetricFamily(
            REMOVED.removesuffix("_total"),
            "Jobs that finished in queues that were removed or are no longer watched; each is "
            "counted once, when its queue is removed.",
            labels=(*self._labels, "state"),
        )
        for values, tallies in known:
            for state, number in tallies.removed._asdict().items():
                removed.add_metric((*values, state), number)
        yield removed

    def _collect_saves(self, known: Sequence[tuple[tuple[str, ...], Tallies]]) -> Iterator[Metric]:
        saves = [(values, tallies.saves) for values, tallies in known if tallies.saves]
        if not saves:
            return
        last = GaugeMetricFamily(
            LAST_SAVE,
            "When counters were last saved in events.state_file; 0 before the first time; absent "
            "without a file.",
            labels=self._labels,
        )
        errors = CounterMetricFamily(
            SAVE_ERRORS.removesuffix("_total"),
            "Saves of events.state_file that failed, or could not begin because the previous one "
            "had not ended; absent without a file.",
            labels=self._labels,
        )
        for values, each in saves:
            last.add_metric(values, each.last)
            errors.add_metric(values, each.failed)
        yield last
        yield errors


class _Unwatched(Collector):
    """The queues of each target that are not watched; empty if it does not search for queues."""

    NAME = "bullmq_exporter_unwatched_queues"

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self.by_reason: dict[tuple[str, ...], Mapping[str, int] | None] = {}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            self.NAME,
            "Queues that were found but are not watched, by reason: max_queues is reached, the "
            "settings queues and queues_exclude exclude them, their prefix is not configured, "
            "they belong to Bull 3 or 4 and the setting bull is false, or their names are very "
            "long.",
            labels=(*self._labels, "reason"),
        )
        for values, by_reason in self.by_reason.items():
            for reason, number in (by_reason or {}).items():
                family.add_metric((*values, reason), number)
        if family.samples:
            yield family


class _Runs(Collector):
    """How the last run of each collector of slow facts went; nothing after a failed poll."""

    SUCCESS = "bullmq_exporter_collector_success"
    DURATION = "bullmq_exporter_collector_duration_seconds"

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = (*labels, "collector")
        self.by_target: dict[tuple[str, ...], Mapping[str, CollectorRun]] = {}

    def collect(self) -> Iterator[Metric]:
        success = GaugeMetricFamily(
            self.SUCCESS,
            "1 if the last run of this collector succeeded, 0 if it failed or took too long: then "
            "its metrics are absent.",
            labels=self._labels,
        )
        duration = GaugeMetricFamily(
            self.DURATION, "How long the last run of this collector took.", labels=self._labels
        )
        for values, runs in self.by_target.items():
            for name, run in runs.items():
                success.add_metric((*values, name), run.success)
                duration.add_metric((*values, name), run.duration)
        if success.samples:
            yield success
            yield duration


class Health:
    """Counts what the exporter itself does. Low in volume, so prometheus_client renders it.

    `targets` are the names of those that it watches: a label where they have names.
    `following` are those of them whose events are followed.
    """

    def __init__(
        self,
        targets: Sequence[str | None] = (None,),
        *,
        following: Collection[str | None] | None = None,
    ) -> None:
        """Without `following` the events of all targets are followed."""
        # Prometheus does not need the `_created` series, which would double the number of series.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._labels = ("target",) if any(targets) else ()
        self._up = self._gauge("bullmq_up", "1 if the last poll succeeded.")
        Gauge(
            "bullmq_exporter_build_info",
            "Always 1; the version of the exporter.",
            ["version", "python_version"],
            registry=self.registry,
        ).labels(__version__, platform.python_version()).set(1)
        self._polls = Histogram(
            "bullmq_exporter_poll_duration_seconds",
            "How long polls of all queues took, failed ones too.",
            self._labels,
            # From a handful of queues (1 ms) to a Redis that does not answer (time-outs).
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._errors = Counter(
            "bullmq_exporter_poll_errors_total",
            "Polls that failed.",
            self._labels,
            registry=self.registry,
        )
        self._last_poll = self._gauge(
            "bullmq_exporter_last_poll_timestamp_seconds",
            "When the last successful poll ended; 0 before the first.",
        )
        self._last_discovery = self._gauge(
            "bullmq_exporter_last_discovery_timestamp_seconds",
            "When the queues were last searched for; 0 before that, and if they are named.",
        )
        self._queues = self._gauge("bullmq_exporter_queues", "Queues that are watched.")
        self._unreadable = self._gauge(
            "bullmq_exporter_unreadable_values",
            "Values that the last poll had to omit, such as keys of the wrong type.",
        )
        self._events_followed = self._gauge(
            "bullmq_exporter_events_followed",
            "1 while the events of all queues are read, 0 while those of some cannot be; absent if "
            "events.enabled is false.",
        )
        self._following = frozenset(targets if following is None else following)
        self._events = _Events(self._labels)
        self.registry.register(self._events)
        self._unwatched = _Unwatched(self._labels)
        self.registry.register(self._unwatched)
        self._runs = _Runs(self._labels)
        self.registry.register(self._runs)
        self.api_requests = Counter(
            "bullmq_exporter_api_requests_total",
            "Requests that the Jobs API has answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self.api_durations = Histogram(
            "bullmq_exporter_api_request_duration_seconds",
            "How long the Jobs API took to answer.",
            ["route"],
            registry=self.registry,
        )
        self.failed_logins = Counter(
            "bullmq_exporter_failed_logins_total",
            "Requests with a wrong credential, by port and reason.",
            ["port", "reason"],
            registry=self.registry,
        )
        self.lockouts = Counter(
            "bullmq_exporter_lockouts_total",
            "Clients that sent too many wrong credentials; a client is counted at most once in 5 "
            "minutes.",
            ["port"],
            registry=self.registry,
        )
        for target in targets:
            # Exposed from the first moment, so that a target without a poll is visible.
            for family in self._target_families:
                self._of(family, target)
            if target in self._following:
                self._of(self._events_followed, target)
        if not self._following:
            self.registry.unregister(self._events_followed)

    @property
    def _target_families(self) -> tuple[Any, ...]:
        states = (self._last_poll, self._last_discovery, self._queues, self._unreadable)
        return (self._up, self._polls, self._errors, *states)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(name, help_text, self._labels, registry=self.registry)

    def _of(self, family: Any, target: str | None) -> Any:
        return family if target is None else family.labels(target)

    def family_names(self) -> set[str]:
        """The names of all families, as in their `# TYPE` lines of the text format."""
        names = {
            f"{metric.name}_total" if metric.type == "counter" else metric.name
            for metric in self.registry.collect()
        }
        return (
            names
            | {_Unwatched.NAME, _Runs.SUCCESS, _Runs.DURATION, REMOVED, LAST_SAVE, SAVE_ERRORS}
            | {
                f"{name}_total" if family is CounterMetricFamily else name
                for family, name, _, _ in _EVENTS
            }
        )

    def record_counts(self, target: str | None, tallies: Tallies | None) -> None:
        """Record the counts of this target; None: no events can be followed."""
        self._events.tallies[() if target is None else (target,)] = tallies
        if target in self._following:
            self._of(self._events_followed, target).set(tallies is not None and tallies.is_complete)

    def record(self, target: str | None, outcome: Outcome, tallies: Tallies | None) -> None:
        """Take note of a poll of this target, and of what was counted up to it."""
        of = partial(self._of, target=target)
        self.record_counts(target, tallies)
        values = () if target is None else (target,)
        self._unwatched.by_reason[values] = (
            None if outcome.snapshot is None else outcome.snapshot.unwatched
        )
        self._runs.by_target[values] = (
            {} if outcome.snapshot is None else outcome.snapshot.facts.runs
        )
        of(self._polls).observe(outcome.duration)
        if outcome.snapshot is None:
            for family in (self._up, self._queues, self._unreadable):
                of(family).set(0)
            of(self._errors).inc()
            return
        readings = outcome.snapshot.readings
        of(self._up).set(1)
        of(self._last_poll).set(time.time())
        of(self._last_discovery).set(outcome.snapshot.discovered or 0)
        of(self._queues).set(len(readings))
        of(self._unreadable).set(sum(len(reading.unreadable) for reading in readings))
