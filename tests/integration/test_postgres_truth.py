"""What we expose of BullMQ in PostgreSQL is what BullMQ itself says."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.bullmq import History
from tests.support.exporters import StartExporter
from tests.support.postgres import EACH_DATABASE, Database
from tests.support.truth import assert_truth_is_reported

MakeHistory = Callable[..., History]
FINISHED = ("completed", "failed")


@EACH_DATABASE
def test_every_count_and_every_job_in_postgres_is_what_bullmq_says(
    database: Database, start_exporter: StartExporter, history: MakeHistory
) -> None:
    made = history("bullmq6", database.url, "mail")
    exporter = start_exporter("", "--postgres-url", database.url)

    assert_truth_is_reported(exporter, "mail", made.truth, paused=False, tied_states=FINISHED)
    assert_truth_is_reported(exporter, "mail", made.run("pause"), paused=True, tied_states=FINISHED)
    assert_truth_is_reported(
        exporter, "mail", made.run("resume"), paused=False, tied_states=FINISHED
    )
