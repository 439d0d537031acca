"""How much memory the exporter takes, whatever the speed of the machine."""

from __future__ import annotations

import pytest

from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

# Job names decide, not queues: polls of 10,000 queues with 2 each would take longer.
QUEUES, NAMES = 1000, 20
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
ADD_EVENTS = """
for name = 1, ARGV[1] do
  local id = ARGV[2] .. '-' .. name
  local job = {'jobId', id}
  redis.call('XADD', KEYS[1], '*', 'event', 'added', 'jobId', id, 'name', 'job-name-' .. name)
  redis.call('XADD', KEYS[1], '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
  redis.call('XADD', KEYS[1], '*', 'event', 'completed', 'jobId', id, 'returnvalue', 'null')
end
"""


@pytest.mark.timeout(600)
def test_job_names_of_many_queues_take_3_kb_each(
    server: Server, start_exporter: StartExporter
) -> None:
    """Their page has 75 MB of text in each of two formats: 750 MiB, were they kept as text."""
    with server.client() as client, client.pipeline(transaction=False) as pipe:
        for queue in range(QUEUES):
            pipe.hset(f"bull:queue-{queue:05d}:meta", "version", "bullmq:5.56.3")
        pipe.execute()
        # A process of its own, which shares no memory with others, and polls that take their time.
        exporter = start_exporter(server.url, files=4096, EXPORTER_POLL_INTERVAL="2")
        # In the text format, which is then made after each poll as well.
        eventually(lambda: exporter.metrics.value("bullmq_exporter_queues") == QUEUES)
        for round_ in range(2):
            for queue in range(QUEUES):
                pipe.eval(ADD_EVENTS, 1, f"bull:queue-{queue:05d}:events", NAMES, str(round_))
            pipe.execute()
            of_job = f'{{queue="queue-00999",name="job-name-20"}} {round_ + 1}'
            counted = f"bullmq_job_completed_total{of_job}"
            # Each look at the page decompresses all of it.
            eventually(lambda counted=counted: counted in page(exporter), within=200, pause=2)
    assert exporter.peak_mib < 250


def page(exporter: Exporter) -> str:
    return exporter.metrics.get("/metrics", Accept=OPENMETRICS, Accept_Encoding="gzip").text
