"""The incidents, and how each should be reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.rules.incidents.simulation import App, Happens, History, Jobs, Queue, simulate

DAY = 24 * 60  # minutes

FAILING = frozenset(
    {
        "BullMQFailedJobsSpike",
        "BullMQFailureRatioHigh",
        "BullMQEveryAttemptFails",
        "BullMQEveryJobFails",
        "BullMQFailureRatioRises",
        "BullMQJobNameFails",
        "BullMQManyQueuesFail",
    }
)
NEW_REASON = frozenset({"BullMQNewFailureReason"})
STOPPED = frozenset(
    {
        "BullMQQueueStandsStill",
        "BullMQNoWorker",
        "BullMQWorkerHeartbeatGone",
        "BullMQQueueBlocked",
        "BullMQDelayedJobsOverdue",
        "BullMQManyQueuesStandStill",
        "BullMQWorkersFlapping",
    }
)
UNSTABLE_WORKERS = frozenset({"BullMQJobsStalled"})
SLOW = frozenset({"BullMQOldestJobWaitsTooLong", "BullMQBacklogGrows"})
SCHEDULES = frozenset({"BullMQSchedulerOverdue", "BullMQSchedulerFarAhead", "BullMQSchedulesGone"})
GONE = frozenset({"BullMQQueueGone", "BullMQQueuesGone"})
REDIS = frozenset({"BullMQRedisUnreachable", "BullMQRedisFlapping"})
EXPORTER = frozenset({"BullMQExporterDown", "BullMQPollsStopped"})
CLOCK = frozenset({"BullMQClockOffset"})
LOST_SCRAPES = frozenset({"BullMQScrapesLost"})


@dataclass(frozen=True)
class Pace:
    """How exactly a history is known. The longer it is, the less, as it costs CPU."""

    step_seconds: int
    evaluation_minutes: int
    losses: tuple[int, ...]  # percent of the scrapes


MINUTES, HOURS, DAYS = Pace(30, 1, (0, 10, 30)), Pace(60, 2, (0, 10, 30)), Pace(60, 4, (0, 30))


@dataclass(frozen=True)
class Incident:
    """A history, and what its notifications should be. Times are minutes."""

    name: str
    what: str
    happens: Happens
    normal: Callable[[], App]
    alerts: frozenset[str]  # any of them reports it; none: it must not be reported at all
    begins: int
    lasts: int
    trails: int  # how long `happens` goes on after its end
    after: int  # how long the history goes on after its end
    continues: bool  # something was broken before it begins already, and goes on after its end
    within: int  # from its beginning to a notification
    resolved_within: int | None  # from its end; None: whenever
    severity: str  # of the notification that is needed: critical, or any
    pages: int  # at most, as all of these
    mails: int  # of the day: those that report something new
    repeats: int
    pace: Pace
    losses: tuple[int, ...]
    seen_in: str  # a public report of such an incident

    @property
    def ends(self) -> int:
        return self.begins + self.lasts

    def history(self) -> History:
        return simulate(
            self.normal,
            self.happens,
            self.begins,
            self.ends + self.trails,
            self.ends + self.after,
            self.pace.step_seconds,
            self.name,
        )


INCIDENTS: dict[str, Incident] = {}


def incident(
    alerts: frozenset[str] = frozenset(),
    *,
    normal: Callable[[], App] | None = None,
    begins: int = 30,
    lasts: int = 45,
    trails: int = 0,
    after: int | None = None,
    continues: bool = False,
    within: int = 10,
    resolved_within: int | None = 55,
    severity: str = "critical",
    pages: int = 1,
    mails: int = 2,
    repeats: int | None = None,
    pace: Pace = MINUTES,
    losses: tuple[int, ...] | None = None,
    seen_in: str = "",
) -> Callable[[Happens], Happens]:
    """Enters a history in `INCIDENTS`. Its docstring is what people read in docs/alerts.md."""

    def enter(happens: Happens) -> Happens:
        name = happens.__name__.replace("_", "-")
        watched = 30 if not alerts else 5 if resolved_within is None else resolved_within + 10
        INCIDENTS[name] = Incident(
            name,
            " ".join((happens.__doc__ or "").split()),
            happens,
            normal or mail,
            alerts,
            begins,
            lasts,
            trails,
            watched if after is None else after,
            continues,
            within,
            resolved_within if not continues else None,
            severity,
            pages if alerts else 0,
            mails if alerts else 0,
            (lasts // 120 + 1 if repeats is None else repeats) if alerts else 0,
            pace,
            pace.losses if losses is None else losses,
            seen_in,
        )
        return happens

    return enter


# What is normal


def mail() -> App:
    """A queue with jobs all the time, of which 1 of 500 fails for good."""
    jobs = Jobs(30, fails=0.045, attempts=2)
    return App({"mail": Queue({"send": jobs}, schedulers={"tick": 5})})


def archive() -> App:
    """Open Archiver."""
    return App(
        {
            "ingestion": Queue(
                {"process-mailbox": Jobs(1, runs_seconds=300)},
                heartbeats=True,
                slots=10,
                schedulers={"schedule-continuous-sync": 5},
            ),
            "indexing": Queue({"index-email-batch": Jobs(12, fails=0.001)}, heartbeats=True),
        }
    )


def two_names() -> App:
    """A loud name beside a quieter one."""
    names = {"resize": Jobs(1200), "import": Jobs(30, fails=0.01)}
    return App({"work": Queue(names, capacity_per_minute=2400)})


def three_names() -> App:
    return App({"work": Queue({name: Jobs(10, fails=0.002) for name in ("a", "b", "c")})})


def quiet() -> App:
    """A job each half hour."""
    return App({"reports": Queue({"report": Jobs(0)}, schedulers={"report": 30})})


def videos() -> App:
    """Jobs that run for minutes."""
    return App({"videos": Queue({"encode": Jobs(2, runs_seconds=90)}, slots=16)})


def leaking(share: float) -> Callable[[], App]:
    """Such a share of the jobs fails for good at all times."""
    return lambda: App({"mail": Queue({"send": Jobs(30, fails=share)})})


def busy() -> App:
    """300 jobs a minute, of which 1 of 500 fails for good."""
    return App({"mail": Queue({"send": Jobs(300, fails=0.002)}, capacity_per_minute=600)})


def nightly() -> App:
    """A job each night beside one each hour."""
    jobs = {"invoices": Jobs(0), "hourly": Jobs(0)}
    return App({"reports": Queue(jobs, schedulers={"invoices": DAY, "hourly": 60})})


def no_schedules() -> App:
    return App({"mail": Queue({"send": Jobs(1)})})


def limited() -> App:
    """A rate limit of 10 jobs a minute."""
    return App({"mail": Queue({"send": Jobs(1)}, limit_per_minute=10)})


def many(number: int) -> Callable[[], App]:
    return lambda: App({f"queue-{n:02}": Queue({"call": Jobs(10)}) for n in range(number)})


# Jobs are not taken


@incident(STOPPED, lasts=120, seen_in="taskforcesh/bullmq/issues/3185")
def standstill(app: App, minute: float) -> None:
    """The workers' run loops have ended; their processes and sockets live on."""
    app.queues["mail"].takes = False


@incident(STOPPED, lasts=120)
def standstill_with_regular_losses(app: App, minute: float) -> None:
    """The same, and one scrape is lost every 4 minutes."""
    app.queues["mail"].takes = False
    app.scraped = minute % 4 != 2


# What comes back once an hour is over when an hour has passed without it.
@incident(STOPPED, lasts=120, resolved_within=90)
def standstill_with_a_slow_redis(app: App, minute: float) -> None:
    """The same, and the exporter cannot read Redis for 30 seconds every 4 minutes."""
    app.queues["mail"].takes = False
    app.redis_answers = minute % 4 != 2


@incident(STOPPED, lasts=90, pages=2)
def standstill_and_then_redis_away(app: App, minute: float) -> None:
    """The same, and the exporter cannot reach Redis from the 25th minute to the 45th."""
    app.queues["mail"].takes = False
    app.redis_answers = not 25 <= minute < 45


@incident(STOPPED, seen_in="sidekiq/sidekiq/issues/636")
def no_workers(app: App, minute: float) -> None:
    """No worker is connected: they were killed, and nothing starts them."""
    app.queues["mail"].workers = 0


@incident(STOPPED, normal=quiet, lasts=120, within=45)
def no_workers_in_a_quiet_queue(app: App, minute: float) -> None:
    """No worker is connected to a queue that has a job each half hour."""
    app.queues["reports"].workers = 0


@incident(STOPPED, within=20, seen_in="OptimalBits/bull/issues/416")
def redis_full(app: App, minute: float) -> None:
    """Redis is full or read-only: no job can be added or taken."""
    app.queues["mail"].takes = False
    app.queues["mail"].jobs["send"].per_minute = 0


@incident(STOPPED, within=20, seen_in="taskforcesh/bullmq/issues/2466")
def delayed_jobs_stay(app: App, minute: float) -> None:
    """Workers take jobs, but make no delayed job ready."""
    app.queues["mail"].promotes = False


@incident(STOPPED, normal=archive, within=20)
def heartbeat_gone(app: App, minute: float) -> None:
    """Open Archiver's worker of an idle queue has ended its run loop."""
    app.queues["indexing"].jobs["index-email-batch"].per_minute = 0
    app.queues["indexing"].takes = False


@incident(STOPPED, normal=videos, lasts=90, within=20, seen_in="sidekiq/sidekiq/issues/3213")
def all_workers_hang(app: App, minute: float) -> None:
    """Every slot is taken by a call without a time limit; the locks are renewed."""
    app.queues["videos"].jobs["encode"].hangs = True
    if minute >= 88:
        app.queues["videos"].workers = 0  # restarted


@incident(STOPPED, lasts=90, within=20, seen_in="https://status.pusher.com/incidents/8xvflp0nwq5m")
def one_long_job_blocks_the_rest(app: App, minute: float) -> None:
    """A report of hours holds the only slot of a queue of short jobs."""
    queue = app.queues["mail"]
    queue.slots = 1
    queue.jobs["report"] = Jobs(0, hangs=True)
    queue.adds = {"report": 1} if minute == 0 else {}
    if minute >= 88:
        queue.workers = 0


@incident(STOPPED | {"BullMQJobActiveTooLong"}, lasts=120, within=75, severity="any")
def one_job_hangs(app: App, minute: float) -> None:
    """One of many slots is taken by a job that never ends."""
    queue = app.queues["mail"]
    queue.jobs["fetch"] = Jobs(0, hangs=True)
    queue.adds = {"fetch": 1} if minute == 0 else {}
    if minute >= 118:
        queue.workers = 0


@incident(STOPPED | UNSTABLE_WORKERS, lasts=120, within=30, severity="any")
def workers_crash_and_restart(app: App, minute: float) -> None:
    """Workers are there for 1 minute of 6."""
    app.queues["mail"].workers = 2 if minute % 6 < 1 else 0


@incident(
    STOPPED | UNSTABLE_WORKERS | FAILING,
    normal=videos,
    lasts=120,
    within=30,
    severity="any",
    seen_in="n8n-io/n8n/issues/4867",
)
def out_of_memory(app: App, minute: float) -> None:
    """Workers are killed every 5 minutes and lose the jobs that they work on."""
    app.queues["videos"].workers = 2 if minute % 5 < 4 else 0


@incident(
    STOPPED | UNSTABLE_WORKERS | FAILING,
    lasts=120,
    within=45,
    resolved_within=None,  # no such job has succeeded within a day: none comes any more
    severity="any",
    seen_in="sidekiq/sidekiq/issues/4633",
)
def poison_job(app: App, minute: float) -> None:
    """Every 10 minutes comes a job that kills its worker, twice, until it has failed."""
    app.queues["mail"].jobs["parse"] = Jobs(0, kills_worker=True)
    app.queues["mail"].adds = {"parse": 1} if minute % 10 == 0 else {}


@incident(frozenset({"BullMQQueuePausedTooLong"}), lasts=150, within=75, severity="any")
def paused_and_forgotten(app: App, minute: float) -> None:
    """Somebody has paused the queue and not resumed it."""
    app.queues["mail"].paused = True


@incident(SLOW, lasts=120, within=50, severity="any", seen_in="OptimalBits/bull/issues/1205")
def starvation(app: App, minute: float) -> None:
    """Jobs of a low priority are never taken, since others always wait."""
    queue = app.queues["mail"]
    queue.jobs = {"send": Jobs(62), "newsletter": Jobs(2, priority=1)}
    queue.capacity_per_minute = 60


# It ends with 9,600 jobs that wait, which are worked off at 210 a minute: the oldest has waited for
# too long for another 45 minutes.
@incident(
    SLOW,
    lasts=120,
    within=60,
    resolved_within=65,
    severity="any",
    seen_in="gitlab.com/gitlab-com/gl-infra/production",
)
def jobs_have_become_slower(app: App, minute: float) -> None:
    """100 jobs a minute come and 20 are done."""
    app.queues["mail"].jobs["send"].per_minute = 100
    app.queues["mail"].capacity_per_minute = 20


# Jobs fail


@incident(FAILING)
def all_fail(app: App, minute: float) -> None:
    """A certificate has expired: every job fails."""
    app.queues["mail"].jobs["send"].fails = 1


@incident(FAILING, lasts=60, trails=120)
def all_fail_with_regular_losses(app: App, minute: float) -> None:
    """The same, and one scrape is lost every 4 minutes, also after its end."""
    app.queues["mail"].jobs["send"].fails = 1 if minute < 60 else 0.045
    app.scraped = minute % 4 != 2


@incident(FAILING, lasts=90)
def all_fail_while_the_exporter_is_renamed(app: App, minute: float) -> None:
    """The same, and another pod of the exporter follows the first after half an hour."""
    app.queues["mail"].jobs["send"].fails = 1
    if minute >= 30:
        app.instance, app.restarts = "exporter-2:9538", 1
        app.scraped = minute >= 31


@incident(FAILING, lasts=120)
def half_fail(app: App, minute: float) -> None:
    """One of two mail servers refuses its login."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.5)


@incident(FAILING, normal=three_names)
def broken_import(app: App, minute: float) -> None:
    """A release broke the code of one job name of three."""
    app.queues["work"].jobs["b"].fails = 1


@incident(FAILING, normal=two_names, lasts=120)
def one_name_fails_beside_20_jobs_a_second(app: App, minute: float) -> None:
    """All of `import` fail, 150 in 5 minutes, next to 20 good jobs a second of another name."""
    app.queues["work"].jobs["import"].fails = 1


@incident(FAILING, lasts=120, within=15)
def all_attempts_of_a_name_fail_beside_a_tick(app: App, minute: float) -> None:
    """Every attempt fails and is tried again, while `tick` completes each minute."""
    queue = app.queues["mail"]
    queue.jobs["send"] = Jobs(20, fails=1, attempts=12)
    queue.schedulers = {"tick": 1}


@incident(FAILING, lasts=120, within=15)
def all_attempts_fail_but_36_jobs_an_hour(app: App, minute: float) -> None:
    """Every attempt fails and is tried again; of another name 36 jobs an hour complete."""
    app.queues["mail"].jobs = {"send": Jobs(20, fails=1, attempts=12), "cached": Jobs(0.6)}


@incident(FAILING, lasts=120, within=15)
def retry_storm(app: App, minute: float) -> None:
    """Nine of ten attempts fail, and all are tried again."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.9, attempts=10)


@incident(FAILING, lasts=90, within=15)
def too_many_requests(app: App, minute: float) -> None:
    """A service answers 429 to 85% of the calls, of which each job has 8."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.85, attempts=8, backoff_seconds=30)


@incident(FAILING, lasts=180)
def dependency_down_5_minutes_of_25(app: App, minute: float) -> None:
    """A service is down for 5 minutes of 25."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=1 if minute % 25 < 5 else 0.002)


@incident(
    FAILING, normal=quiet, begins=360, lasts=360, within=180, severity="any", after=20,
    resolved_within=None, pace=HOURS,
)  # fmt: skip
def quiet_queue_fails(app: App, minute: float) -> None:
    """All jobs of a queue with a job each half hour fail."""
    app.queues["reports"].jobs["report"].fails = 1


@incident(FAILING, lasts=360, within=60, resolved_within=90, pace=HOURS)
def forty_percent_of_72_an_hour(app: App, minute: float) -> None:
    """A small queue, 72 jobs an hour, in which 40% fail."""
    app.queues["mail"].jobs["send"] = Jobs(1.2, fails=0.4)


@incident(
    FAILING, normal=nightly, begins=2 * DAY - 30, lasts=DAY, within=120, severity="any",
    resolved_within=None, pace=DAYS,
)  # fmt: skip
def nightly_job_fails(app: App, minute: float) -> None:
    """A nightly job fails every night, next to 24 good jobs a day."""
    app.queues["reports"].jobs["invoices"].fails = 1


@incident(
    FAILING, normal=leaking(0.01), begins=6 * 60, lasts=DAY, within=12 * 60, severity="any",
    resolved_within=None, pace=DAYS,
)  # fmt: skip
def leak_1_to_10_percent(app: App, minute: float) -> None:
    """The share of failed jobs rises from 1% to 10% within a day."""
    app.queues["mail"].jobs["send"].fails = 0.01 + 0.09 * minute / DAY


@incident(
    FAILING, normal=leaking(0.01), begins=6 * 60, lasts=5 * DAY, within=4 * DAY, severity="any",
    resolved_within=None, pace=DAYS,
)  # fmt: skip
def leak_1_to_3_percent(app: App, minute: float) -> None:
    """The share of failed jobs rises from 1% to 3% within 5 days."""
    app.queues["mail"].jobs["send"].fails = 0.01 + 0.02 * minute / (5 * DAY)


@incident(
    FAILING, normal=leaking(0.002), begins=6 * 60, lasts=DAY, within=12 * 60, severity="any",
    resolved_within=None, pace=DAYS,
)  # fmt: skip
def constant_5_5_percent(app: App, minute: float) -> None:
    """5.5% of the jobs fail, with a budget of 1%."""
    app.queues["mail"].jobs["send"].fails = 0.055


@incident(
    FAILING, normal=leaking(0.002), begins=6 * 60, lasts=2 * DAY, repeats=14,
    resolved_within=None, pace=DAYS,
)  # fmt: skip
def constant_20_percent(app: App, minute: float) -> None:
    """20% of the jobs fail for two days."""
    app.queues["mail"].jobs["send"].fails = 0.2


@incident(
    FAILING, normal=leaking(0.2), begins=10 * 60, lasts=120, within=15, continues=True, pace=HOURS
)
def from_20_to_60_percent(app: App, minute: float) -> None:
    """20% of the jobs have failed for hours, and now 60% do."""
    app.queues["mail"].jobs["send"].fails = 0.6


@incident(
    FAILING, normal=leaking(0.2), begins=10 * 60, lasts=240, within=120, continues=True, pace=HOURS
)
def from_20_slowly_to_50_percent(app: App, minute: float) -> None:
    """20% of the jobs have failed for hours, and within two hours it becomes 50%."""
    app.queues["mail"].jobs["send"].fails = 0.2 + 0.3 * min(1, minute / 120)


@incident(FAILING, normal=many(25), begins=20, lasts=30, losses=(0,))
def one_dependency_of_25_queues(app: App, minute: float) -> None:
    """A service that all jobs need is down: 25 queues fail."""
    for queue in app.queues.values():
        queue.jobs["call"].fails = 1


@incident(
    NEW_REASON, normal=leaking(0.01), begins=120, lasts=90, within=20, resolved_within=None,
    severity="any", pages=0, mails=1,
)  # fmt: skip
def new_reason_in_a_queue_that_always_fails_a_little(app: App, minute: float) -> None:
    """1% of the jobs always fail, and now 3% more fail for a reason that was not there before."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.04, reasons=("timeout", *["bad data"] * 3))


@incident(
    NEW_REASON, normal=busy, begins=120, lasts=90, within=20, resolved_within=None, severity="any",
    pages=0, mails=1,
)  # fmt: skip
def release_with_five_new_reasons(app: App, minute: float) -> None:
    """A release fails 1% of the jobs, each for one of five reasons that were not there before."""
    reasons = ("x is not a function", "no such column", "no module", "invalid enum", "null")
    app.queues["mail"].jobs["send"] = Jobs(300, fails=0.012, reasons=("timeout", *reasons))


@incident(FAILING, begins=120, mails=0)
def all_fail_for_a_new_reason(app: App, minute: float) -> None:
    """A certificate has expired: every job fails, for a reason that was not there before."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=1, reasons=("certificate has expired",))


@incident(
    NEW_REASON, normal=leaking(0.2), begins=180, lasts=60, continues=True, within=20,
    severity="any", pages=0, mails=1, pace=HOURS,
)  # fmt: skip
def new_reason_behind_a_page(app: App, minute: float) -> None:
    """20% of the jobs have failed for hours, and another 5% fail for a new reason."""
    reasons = (*["timeout"] * 4, "bad data")
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.25, reasons=reasons)


# Schedules


@incident(SCHEDULES, within=30, severity="any", seen_in="taskforcesh/bullmq/issues/3272")
def scheduler_never_fires_again(app: App, minute: float) -> None:
    """The next job of a scheduler is gone: nothing plans another."""
    app.queues["mail"].broken_schedulers = ("tick",)


@incident(SCHEDULES, within=30, severity="any")
def scheduler_fires_next_year(app: App, minute: float) -> None:
    """A clock jumped while a scheduler planned its next run."""
    app.queues["mail"].broken_schedulers = ("tick",)
    app.queues["mail"].gauges = {
        "bullmq_scheduler_next_run_timestamp_seconds|scheduler=tick": 365 * DAY * 60
    }


@incident(SCHEDULES | GONE, within=30, severity="any")
def schedules_lost(app: App, minute: float) -> None:
    """FLUSHALL while workers live: the queue goes on, its schedules do not."""
    app.emptied = minute == 0
    app.queues["mail"].schedulers = {}


@incident(frozenset({"BullMQScheduleDuplicated"}), within=15, severity="any")
def schedule_fires_twice(app: App, minute: float) -> None:
    """An upgrade left the old entry of a scheduler behind."""
    app.queues["mail"].gauges = {"bullmq_queue_duplicate_schedulers": 1}


# Redis


@incident(REDIS)
def redis_away(app: App, minute: float) -> None:
    """Redis is down, or the network between."""
    app.redis_answers = False


@incident(REDIS, lasts=300, within=130, resolved_within=90, severity="any")
def redis_away_170_seconds_of_each_hour(app: App, minute: float) -> None:
    """Redis is away for 170 seconds of each hour."""
    app.redis_answers = minute % 60 >= 3


@incident(GONE, normal=many(3), within=15)
def empty_replica(app: App, minute: float) -> None:
    """A failover to a replica without data: no queue is left."""
    app.emptied = True
    for queue in app.queues.values():
        queue.there = False


@incident(
    GONE, normal=many(13), begins=20, within=40, severity="any", pages=0, mails=1,
    resolved_within=None, losses=(0,),
)  # fmt: skip
def twelve_queues_removed(app: App, minute: float) -> None:
    """Somebody removes 12 of 13 queues."""
    for name, queue in app.queues.items():
        queue.there = name == "queue-00"


@incident(
    frozenset({"BullMQJobsMissing"}),
    within=15,
    severity="any",
    seen_in="taskforcesh/bullmq/issues/2215",
)
def evicted_jobs(app: App, minute: float) -> None:
    """Redis evicts the data of jobs, as its memory is full."""
    app.queues["mail"].gauges = {"bullmq_queue_missing_jobs|state=delayed": 3}


@incident(frozenset({"BullMQPollsSlow"}), within=40, severity="any")
def slow_redis(app: App, minute: float) -> None:
    """Redis takes seconds to answer."""
    app.poll_takes_seconds = 4


@incident(
    frozenset({"BullMQFlowStuck"}), lasts=9 * 60, within=6 * 60 + 30, severity="any", pace=HOURS
)
def parent_waits_for_a_failed_child(app: App, minute: float) -> None:
    """The child of a flow has failed; its parent waits for it for ever."""
    since = {"bullmq_queue_oldest_waiting_children_timestamp_seconds": 30 * 60.0}
    app.queues["mail"].gauges = since


# The exporter


@incident(EXPORTER)
def exporter_away(app: App, minute: float) -> None:
    """The exporter cannot be scraped."""
    app.scraped = False


@incident(EXPORTER, within=15)
def polls_stopped(app: App, minute: float) -> None:
    """The exporter answers scrapes and reads nothing any more."""
    app.polls = False


@incident(EXPORTER | LOST_SCRAPES, lasts=120, within=60, severity="any", losses=(0,))
def exporter_crashes_and_restarts(app: App, minute: float) -> None:
    """The exporter is there for 2 minutes of 4, and its counters begin at 0 each time."""
    app.scraped = minute % 4 < 2
    app.restarts = 1 + int(minute // 4)


@incident(
    LOST_SCRAPES, lasts=120, within=60, severity="any", pages=0, losses=(0,), resolved_within=120
)
def lossy_scrapes(app: App, minute: float) -> None:
    """Three of ten scrapes are lost."""
    app.scraped = int(minute * 2) % 10 not in (1, 5, 6)


@incident(frozenset({"BullMQEventLag"}), within=15, severity="any")
def exporter_behind(app: App, minute: float) -> None:
    """More happens than the exporter can read."""
    app.gauges = {"bullmq_exporter_event_lag_seconds": 300}


@incident(CLOCK, normal=archive, lasts=120, within=60, severity="any", pages=0, mails=1)
def clock_11_minutes_behind(app: App, minute: float) -> None:
    """The clock of Open Archiver's host is 11 minutes behind; all else is well."""
    app.clock_behind_seconds = 660


@incident(CLOCK, lasts=120, within=60, severity="any", pages=0, mails=1)
def clock_400_seconds_behind(app: App, minute: float) -> None:
    """The clock of the application's host is 400 seconds behind; all else is well."""
    app.clock_behind_seconds = 400


# Nothing is wrong


@incident(normal=archive, lasts=120)
def import_of_3000_mailboxes(app: App, minute: float) -> None:
    """The night's import: its jobs wait for hours."""
    app.queues["ingestion"].adds = {"process-mailbox": 3000} if minute == 0 else {}


@incident(normal=archive)
def long_mailbox(app: App, minute: float) -> None:
    """One mailbox takes 50 minutes."""
    queue = app.queues["ingestion"]
    queue.jobs["large-mailbox"] = Jobs(0, runs_seconds=3000)
    queue.adds = {"large-mailbox": 1} if minute == 0 else {}


@incident(lasts=2)
def deployment(app: App, minute: float) -> None:
    """Workers are replaced, which takes two minutes."""
    app.queues["mail"].workers = 0


@incident(normal=videos, lasts=1)
def deployment_that_kills_jobs(app: App, minute: float) -> None:
    """Workers are replaced while a few jobs run, which others do again."""
    app.queues["videos"].workers = 0


@incident(normal=no_schedules, lasts=120)
def autoscaling(app: App, minute: float) -> None:
    """No worker while no job is there; some jobs every 20 minutes, and 2 minutes later a worker."""
    queue = app.queues["mail"]
    queue.jobs["send"].per_minute = 0
    queue.adds = {"send": 5} if minute % 20 == 0 else {}
    queue.workers = 1 if 2 <= minute % 20 < 8 else 0


@incident(normal=no_schedules, lasts=120)
def night(app: App, minute: float) -> None:
    """No jobs, and no workers either."""
    app.queues["mail"].jobs["send"].per_minute = 0
    app.queues["mail"].workers = 0


@incident(lasts=60)
def slow_polls(app: App, minute: float) -> None:
    """poll_interval is 6 minutes."""
    app.poll_seconds = 360


@incident(normal=limited, lasts=90)
def rate_limit(app: App, minute: float) -> None:
    """300 jobs at once, with a rate limit of 10 a minute."""
    app.queues["mail"].adds = {"send": 300} if minute == 0 else {}


@incident(lasts=30)
def maintenance(app: App, minute: float) -> None:
    """The queue is paused for half an hour."""
    app.queues["mail"].paused = True


@incident(lasts=30)
def batch(app: App, minute: float) -> None:
    """10 times as many jobs as usual, of which 2% fail."""
    app.queues["mail"].jobs["batch"] = Jobs(300, fails=0.02)
    app.queues["mail"].capacity_per_minute = 600


@incident(lasts=60)
def burst(app: App, minute: float) -> None:
    """4,000 jobs at once, which are done within 20 minutes."""
    app.queues["mail"].adds = {"send": 4000} if minute == 0 else {}


@incident(lasts=120)
def retries_by_design(app: App, minute: float) -> None:
    """Jobs look whether something is ready, and are tried again 3 times of 10."""
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.3, attempts=20, backoff_seconds=30)


@incident(normal=leaking(0.01), lasts=12 * 60, pace=HOURS)
def noise(app: App, minute: float) -> None:
    """A small queue, 30 jobs an hour, of which 1% fail."""
    app.queues["mail"].jobs["send"].per_minute = 0.5


@incident(lasts=1)
def redis_restart(app: App, minute: float) -> None:
    """Redis restarts within a minute."""
    app.redis_answers = minute >= 0.5


@incident(lasts=60)
def exporter_restart(app: App, minute: float) -> None:
    """The exporter restarts without a state file: its counters begin at 0."""
    app.restarts = 1
    app.scraped = minute >= 1


@incident(begins=120, lasts=90, normal=leaking(0.002))
def each_job_fails_for_a_reason_of_its_own(app: App, minute: float) -> None:
    """2% of the jobs fail, with reasons that hold what differs from job to job."""
    reasons = tuple(f"case {number}" for number in range(1000))
    app.queues["mail"].jobs["send"] = Jobs(30, fails=0.02, reasons=reasons)


@incident(lasts=60)
def exporter_renamed(app: App, minute: float) -> None:
    """Another pod of the exporter follows the first."""
    app.instance, app.restarts = "exporter-2:9538", 1
    app.scraped = minute >= 0.5


@incident(begins=120, lasts=60)
def queue_created_and_removed(app: App, minute: float) -> None:
    """A queue for one import: there for 25 minutes."""
    app.queues["import"] = Queue({"row": Jobs(60)}, there=minute < 25)


@incident(lasts=180, normal=lambda: App({"reports": Queue({}, schedulers={"report": 60})}))
def daylight_saving_time(app: App, minute: float) -> None:
    """A schedule's next run is an hour later than usual."""
    app.queues["reports"].schedulers = {"report": 120}
