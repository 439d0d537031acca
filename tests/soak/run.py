"""BullMQ works, Prometheus scrapes, people look, on and on: does the exporter stay as it was?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.support.bullmq import Work
from tests.support.counters import assert_counted
from tests.support.exporters import spawn_exporter
from tests.support.servers import running

# What a queue of Open Archiver sees: most jobs succeed, some at the second attempt, some never.
ROUND = (
    ("send", 60, {"removeOnComplete": 100}),
    ("fails-first", 10, {"attempts": 2, "removeOnComplete": 100}),
    ("fails", 10, {"attempts": 2, "removeOnFail": 500}),
)
QUEUES = ("ingestion", "indexing", "mail")
# Rounds that there are at least, of 240 jobs each: a busy machine needs longer to get warm.
MIN_ROUNDS = 60


@dataclass(frozen=True)
class Sample:
    """What the process held at one moment."""

    resident: int  # bytes
    files: int


def _sample(pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    [resident] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return Sample(1024 * int(resident.split()[1]), len(list(Path(f"/proc/{pid}/fd").iterdir())))


@dataclass(frozen=True)
class Report:
    """Samples over the time, after what is read and made at first is there."""

    samples: Sequence[Sample]
    jobs: int

    def thirds(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """The second and the last third: the first is for warming up."""
        third = len(self.samples) // 3
        return self.samples[third : 2 * third], self.samples[2 * third :]

    @property
    def growth(self) -> float:
        """Bytes of memory more in the last third than in the second, by their medians."""
        before, after = self.thirds()
        return median(each.resident for each in after) - median(each.resident for each in before)

    @property
    def further_files(self) -> int:
        """Open files and connections more, by the largest numbers."""
        before, after = self.thirds()
        return max(each.files for each in after) - max(each.files for each in before)


def soak(directory: Path, minutes: float) -> Report:
    """Works, scrapes and looks for so long, and for so many rounds.

    Raises AssertionError where a counter is not exact.
    """
    with running("valkey", directory) as server:
        state = {"EXPORTER_EVENTS_STATE_FILE": str(directory / "state")}
        quick = {"EXPORTER_POLL_INTERVAL": "0.5", "EXPORTER_DISCOVERY_INTERVAL": "5"}
        exporter = spawn_exporter(server.url, directory / "exporter.log", **state, **quick)
        work = Work("bullmq5", server.port)
        samples, jobs = [], 0
        try:
            exporter.wait_ready()
            for queue in QUEUES:
                work.work(queue, {"concurrency": 10})
            ends = time.monotonic() + 60 * minutes
            while time.monotonic() < ends or len(samples) < MIN_ROUNDS:
                for queue in QUEUES:
                    for name, number, options in ROUND:
                        work.add(queue, name, number, options)
                        jobs += number
                for _ in range(4):
                    assert exporter.metrics.get("/metrics", Accept_Encoding="gzip").status == 200
                    for path in ("", "/ingestion", "/ingestion/failures", "/mail?text=answer"):
                        assert exporter.api.get(f"/v1/jobs/queues{path}").status == 200
                    exporter.api.get("/v1/jobs/queues/ingestion/jobs/1")
                    exporter.api.without_credentials().get("/v1/jobs/queues")
                work.settle()
                samples.append(_sample(exporter.process.pid))
            truth = work.settle()
            assert_counted(exporter, truth)
            assert exporter.metrics.value("bullmq_exporter_tracked_jobs") == 0
            assert "Traceback" not in exporter.log
        finally:
            work.close()
            exporter.terminate()
    return Report(samples, jobs)
