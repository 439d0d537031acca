"""The incidents, and how each should be reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.rules.incidents.simulation import App, Happens, History, Jobs, Queue, simulate

FAILING = frozenset(
    {
        "BullMQFailedJobsSpike",
        "BullMQFailureRatioHigh",
        "BullMQEveryAttemptFails",
        "BullMQEveryJobFails",
    }
)
STOPPED = frozenset(
    {
        "BullMQQueueStandsStill",
        "BullMQNoWorker",
        "BullMQWorkerHeartbeatGone",
        "BullMQQueueBlocked",
        "BullMQDelayedJobsOverdue",
    }
)
REDIS = frozenset({"BullMQRedisUnreachable", "BullMQRedisFlapping"})


@dataclass(frozen=True)
class Incident:
    """A history, and what its notifications should be. Times are minutes."""

    name: str
    what: str
    happens: Happens
    normal: Callable[[], App]
    alerts: frozenset[str]  # any of them reports it; none: it must not be reported at all
    lasts: int
    begins: int
    after: int  # how long the history goes on after its end
    within: int  # from its beginning to a notification
    resolved_within: int | None  # from its end; None: whenever
    pages: int
    mails: int  # of the day: those that report something new
    repeats: int
    severity: str  # of the notification that is needed
    step_seconds: int
    evaluation_minutes: int

    @property
    def ends(self) -> int:
        return self.begins + self.lasts

    @property
    def minutes(self) -> int:
        return self.ends + self.after

    def history(self) -> History:
        return simulate(
            self.normal,
            self.happens,
            self.begins,
            self.ends,
            self.minutes,
            self.step_seconds,
            self.name,
        )


INCIDENTS: dict[str, Incident] = {}


def incident(
    alerts: frozenset[str] = frozenset(),
    *,
    normal: Callable[[], App] | None = None,
    lasts: int = 60,
    begins: int = 60,
    after: int = 45,
    within: int = 10,
    resolved_within: int | None = 30,
    mails: int = 2,
    repeats: int | None = None,
    severity: str = "critical",
    step_seconds: int = 30,
    evaluation_minutes: int = 1,
) -> Callable[[Happens], Happens]:
    def enter(happens: Happens) -> Happens:
        name = happens.__name__.replace("_", "-")
        INCIDENTS[name] = Incident(
            name,
            " ".join((happens.__doc__ or "").split()),
            happens,
            normal or mail,
            alerts,
            lasts,
            begins,
            after,
            within,
            resolved_within,
            int(bool(alerts) and severity == "critical"),
            mails if alerts else 0,
            (lasts // 60 + 1 if repeats is None else repeats) if alerts else 0,
            severity,
            step_seconds,
            evaluation_minutes,
        )
        return happens

    return enter


def mail() -> App:
    """A queue with jobs all the time, of which 1 of 500 fails for good."""
    jobs = Jobs(30, fails=0.02, attempts=2)
    return App({"mail": Queue({"send": jobs}, schedulers={"tick": 5})})


def archive() -> App:
    """Open Archiver."""
    return App(
        {
            "ingestion": Queue(
                {"process-mailbox": Jobs(1, runs_seconds=600)},
                heartbeats=True,
                slots=10,
                schedulers={"schedule-continuous-sync": 5},
            ),
            "indexing": Queue({"index-email-batch": Jobs(12, fails=0.001)}, heartbeats=True),
        }
    )


def two_names() -> App:
    """A loud name beside a quiet one."""
    return App(
        {
            "work": Queue(
                {"resize": Jobs(1200), "import": Jobs(30, fails=0.01)}, capacity_per_minute=2400
            )
        }
    )


# Jobs are not taken


@incident(STOPPED, lasts=120)
def standstill(app: App, minute: float) -> None:
    """The workers' run loops have ended; their processes and sockets live on."""
    app.queues["mail"].takes = False


@incident(STOPPED, lasts=120)
def standstill_with_regular_losses(app: App, minute: float) -> None:
    """The same, and one scrape is lost every 4 minutes."""
    app.queues["mail"].takes = False
    app.scraped = minute % 4 != 2


@incident(STOPPED, lasts=120)
def standstill_with_a_slow_redis(app: App, minute: float) -> None:
    """The same, and the exporter cannot read Redis for 30 seconds every 4 minutes."""
    app.queues["mail"].takes = False
    app.redis_answers = minute % 4 != 2


@incident(STOPPED)
def no_workers(app: App, minute: float) -> None:
    """No worker is connected."""
    app.queues["mail"].workers = 0


# Jobs fail


@incident(FAILING)
def all_fail(app: App, minute: float) -> None:
    """A certificate has expired: every job fails."""
    app.queues["mail"].jobs["send"].fails = 1


@incident(FAILING, lasts=120)
def half_fail(app: App, minute: float) -> None:
    """One of two mail servers refuses its login."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.5)


@incident(FAILING, normal=two_names, lasts=120)
def one_name_fails_beside_20_jobs_a_second(app: App, minute: float) -> None:
    """All of `import` fail, 150 in 5 minutes, beside 20 good jobs a second of another name."""
    app.queues["work"].jobs["import"].fails = 1


@incident(FAILING, lasts=120, within=15)
def retry_storm(app: App, minute: float) -> None:
    """Nine of ten attempts fail, and all are tried again."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.9, attempts=10)


# Redis and the exporter


@incident(REDIS)
def redis_away(app: App, minute: float) -> None:
    """Redis is down."""
    app.redis_answers = False


@incident(frozenset({"BullMQExporterDown"}))
def exporter_away(app: App, minute: float) -> None:
    """The exporter cannot be scraped."""
    app.scraped = False


# Nothing is wrong


@incident(normal=archive, lasts=120)
def import_of_3000_mailboxes(app: App, minute: float) -> None:
    """The night's import: its jobs wait for hours."""
    jobs = app.queues["ingestion"].jobs["process-mailbox"]
    jobs.per_minute = 6000 if minute < 0.5 else jobs.per_minute


@incident(lasts=2)
def deployment(app: App, minute: float) -> None:
    """Workers are replaced, which takes two minutes."""
    app.queues["mail"].workers = 0


@incident(lasts=60)
def slow_polls(app: App, minute: float) -> None:
    """poll_interval is 6 minutes."""
    app.poll_seconds = 360


@incident(lasts=30)
def maintenance(app: App, minute: float) -> None:
    """The queue is paused for half an hour."""
    app.queues["mail"].paused = True


@incident(lasts=1)
def redis_restart(app: App, minute: float) -> None:
    """Redis restarts within a minute."""
    app.redis_answers = minute >= 0.5


@incident(lasts=60)
def exporter_restart(app: App, minute: float) -> None:
    """The exporter restarts without a state file: its counters begin at 0."""
    app.restarts = 1
    app.scraped = minute >= 1
