"""A start with intervals that are too long for the alert rules says which alerts are wrong then."""

from __future__ import annotations

import re

import pytest

from exporter.harmful_settings import MAX_INTERVAL_SECONDS, intervals_too_long
from exporter.settings import Settings
from tests.support.exporters import StartExporter, run_exporter
from tests.support.rules import NAMES, RULES
from tests.support.servers import Server

POLLS = (
    "poll_interval (EXPORTER_POLL_INTERVAL, --poll-interval) is 400 seconds, and the alert rules "
    "need at most 360: BullMQQueueStandsStill, BullMQQueueBlocked, BullMQNoWorker, "
    "BullMQJobAbandoned, BullMQPollsStopped may fire without a cause"
)


@pytest.mark.parametrize(
    ("poll", "workers", "events", "warned_of"),
    [
        (5, 15, True, []),
        (360, 360, True, []),
        (361, 15, True, ["poll_interval"]),
        (60, 15, False, []),
        (61, 15, False, ["poll_interval"]),
        (5, 361, True, ["workers_interval"]),
        (3600, 86_400, False, ["poll_interval", "workers_interval"]),
    ],
)
def test_each_interval_that_is_too_long_is_one_line(
    poll: float, workers: float, events: bool, warned_of: list[str]
) -> None:
    settings = Settings.model_validate(
        {"poll_interval": poll, "workers_interval": workers, "events": {"enabled": events}}
    )
    lines = intervals_too_long(settings)
    assert [line.partition(" ")[0] for line in lines] == warned_of
    for line in lines:
        named = set(re.findall(r"BullMQ\w+", line))
        assert named
        assert named <= NAMES


def test_the_rules_and_the_exporter_name_the_same_limit() -> None:
    [minutes] = re.findall(
        r"need poll_interval of at most (\d+)m", (RULES / "alerts.yml").read_text()
    )
    assert int(minutes) * 60 == MAX_INTERVAL_SECONDS


def test_a_start_and_check_warn_of_it(server: Server, start_exporter: StartExporter) -> None:
    assert POLLS in start_exporter(server.url, EXPORTER_POLL_INTERVAL="400").log
    assert "alert rules" not in start_exporter(server.url).log

    def check(*flags: str) -> str:
        done = run_exporter("--check", "--redis-url", server.url, *flags)
        return done.stdout + done.stderr

    assert f"Warning: {POLLS}" in check("--poll-interval", "400")
    assert "alert rules" not in check()
