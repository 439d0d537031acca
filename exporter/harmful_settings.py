"""Settings that are allowed but harmful: a line for each, for the log and `--check`."""

from __future__ import annotations

from exporter.settings import Settings, names_of
from exporter.web.credentials import secret_warnings

# The limits of the rules in config/prometheus. What one poll sees is exposed until the next one,
# which must come before a rule fires: after 8 minutes, by its windows and its `for`. Without the
# counters of events, a rule has to see the same at several polls.
MAX_INTERVAL_SECONDS = 360
MAX_INTERVAL_SECONDS_WITHOUT_EVENTS = 60


def intervals_too_long(settings: Settings) -> list[str]:
    """Return a line for each interval that is too long for the alert rules; see docs/scaling.md."""
    limit, reason = MAX_INTERVAL_SECONDS, ""
    if not all(each.events.enabled for each in settings.by_target().values()):
        limit, reason = MAX_INTERVAL_SECONDS_WITHOUT_EVENTS, " while events are not followed"
    lines = []
    if settings.poll_interval > limit:
        alerts = ["BullMQQueueStandsStill", "BullMQQueueBlocked", "BullMQNoWorker"]
        if settings.poll_interval > MAX_INTERVAL_SECONDS:
            alerts += ["BullMQJobAbandoned", "BullMQPollsStopped"]
        lines.append(
            f"{names_of('poll_interval')} is {settings.poll_interval:g} seconds, and the alert "
            f"rules need at most {limit}{reason}: {', '.join(alerts)} may fire without a cause"
        )
    if settings.workers_interval > MAX_INTERVAL_SECONDS:
        lines.append(
            f"{names_of('workers_interval')} is {settings.workers_interval:g} seconds, and the "
            f"alert rules need at most {MAX_INTERVAL_SECONDS}: BullMQNoWorker may fire without "
            "a cause"
        )
    return lines


def harmful_settings(settings: Settings) -> list[str]:
    """Return a line for each setting that is allowed but harmful."""
    return [*intervals_too_long(settings), *secret_warnings(settings)]
