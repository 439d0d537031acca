"""What is reported of Bull's queues is what Bull itself says, for each version and server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.bullmq import History
from tests.support.exporters import StartExporter
from tests.support.servers import Server
from tests.support.truth import assert_truth_is_reported

MakeHistory = Callable[..., History]

VERSIONS = ("bull3", "bull4")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_count_and_every_job_is_what_bull_says(
    any_server: Server, start_exporter: StartExporter, history: MakeHistory, version: str
) -> None:
    queue = f"history-{version}"
    made = history(version, any_server.port, queue)
    exporter = start_exporter(any_server.url)

    assert_truth_is_reported(exporter, queue, made.truth, paused=False)
    assert_truth_is_reported(exporter, queue, made.run("pause"), paused=True)
    assert_truth_is_reported(exporter, queue, made.run("resume"), paused=False)
    assert exporter.metrics.value("bullmq_queue_info", queue=queue, version="bull") == 1
    assert exporter.metrics.value("bullmq_exporter_unwatched_queues", reason="bull") == 0
