"""Several Redis in one process: each is reported on its own, and none waits for another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.settings import SettingsError, load
from tests.support.bullmq import History
from tests.support.exporters import Exporter, StartExporter, run_exporter
from tests.support.servers import Server, running
from tests.support.waiting import eventually

MakeHistory = Callable[..., History]
OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    for name in ("eu", "us"):
        (tmp_path / name).mkdir()
    with (
        running("valkey", tmp_path / "eu", "--requirepass", "password-of-eu") as eu,
        running("redis", tmp_path / "us", "--requirepass", "password-of-us") as us,
    ):
        for server, name in ((eu, "eu"), (us, "us")):
            with server.client(password=f"password-of-{name}") as client:
                client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
                for job in ("1", name):
                    client.lpush("bull:mail:wait", job)
                    client.hset(f"bull:mail:{job}", mapping={"name": f"of-{name}", "data": "{}"})
        yield eu, us


def configuration(tmp_path: Path, servers: tuple[Server, Server], more: str = "") -> Path:
    eu, us = servers
    (tmp_path / "us-password").write_text("password-of-us")
    file = tmp_path / "exporter.yml"
    file.write_text(
        f"""\
targets:
  - name: eu
    redis: {{url: "redis://:password-of-eu@127.0.0.1:{eu.port}", timeout: 1}}
  - name: us
    redis: {{host: 127.0.0.1, port: {us.port}, password_file: {tmp_path}/us-password}}
    retention: {{failed: 7}}
{more}"""
    )
    return file


def up(exporter: Exporter, target: str) -> float | None:
    return exporter.metrics.value("bullmq_up", target=target)


def waiting(exporter: Exporter, target: str) -> float | None:
    labels = {"target": target, "queue": "mail", "state": "waiting"}
    return exporter.metrics.value("bullmq_job_count", **labels)


def test_each_target_is_reported_under_its_name(
    servers: tuple[Server, Server], tmp_path: Path, start_exporter: StartExporter
) -> None:
    file = configuration(tmp_path, servers, f"events: {{state_file: {tmp_path}/state}}")
    exporter = start_exporter("", "--config", str(file))
    eventually(lambda: (waiting(exporter, "eu"), waiting(exporter, "us")) == (2, 2))
    with servers[1].client(password="password-of-us") as client:
        client.lpush("bull:mail:wait", "3")
    eventually(lambda: waiting(exporter, "us") == 3)
    assert waiting(exporter, "eu") == 2
    limit = exporter.metrics.samples("bullmq_queue_retention_limit", state="failed")
    assert limit == {("mail", "us"): 7}
    both = {("eu",), ("us",)}
    read = "bullmq_exporter_events_read_total"
    eventually(lambda: exporter.metrics.samples(read).keys() == both)
    for family in ("bullmq_up", "bullmq_exporter_queues", "bullmq_exporter_poll_errors_total"):
        assert exporter.metrics.samples(family).keys() == both
    eventually(lambda: (tmp_path / "state.eu").exists() and (tmp_path / "state.us").exists())

    # Strict about families that stand in two places, as Prometheus 3 is.
    page = exporter.metrics.get("/metrics", Accept=OPENMETRICS).text
    families = [family.name for family in text_string_to_metric_families(page)]
    assert len(families) == len(set(families))
    text = exporter.metrics.get("/metrics").text

    queues = exporter.api.get("/v1/jobs/queues").json["queues"]
    assert [(queue["target"], queue["name"]) for queue in queues] == [
        ("eu", "mail"),
        ("us", "mail"),
    ]
    jobs = exporter.api.get("/v1/jobs/queues/mail?status=waiting&target=us").json
    assert (jobs["target"], jobs["jobs"][0]["name"]) == ("us", "of-us")
    job = exporter.api.get("/v1/jobs/queues/mail/jobs/us").json
    assert (job["target"], job["job"]["name"]) == ("us", "of-us")
    for key, target in (("us/bull:mail:1", "us"), ("eu/bull:mail:1", "eu"), ("bull:mail:us", "us")):
        assert exporter.api.get(f"/v1/jobs/keys/{key}").json["target"] == target
    assert exporter.api.get("/v1/jobs/keys/eu/bull:mail:us").status == 404
    refused = exporter.api.get("/v1/jobs/queues/mail?target=asia")
    assert (refused.status, refused.json) == (400, {"message": "target must be one of eu, us"})
    for path in ("", "?detail=true", "/mail/failures", "/mail?text=x"):
        assert exporter.api.get(f"/v1/jobs/queues{path}").status == 200
    document = exporter.api.get("/openapi.json").json
    assert document["components"]["parameters"]["Target"]["schema"]["enum"] == ["eu", "us"]
    # Their names are for those who may see the queues.
    public = exporter.api.without_credentials().get("/openapi.json").json
    assert "enum" not in public["components"]["parameters"]["Target"]["schema"]
    for secret in ("password-of-eu", "password-of-us"):
        assert secret not in exporter.log + text


def test_an_exemplar_says_the_target(
    own_server: Server, tmp_path: Path, start_exporter: StartExporter, history: MakeHistory
) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(f"targets: [{{name: eu, redis: {{url: {own_server.url}}}}}]")
    exporter = start_exporter("", "--config", str(file))
    history("bullmq5", own_server.port, "ingestion")
    named = eventually(
        lambda: [
            exemplar.labels["job_key"]
            for family in text_string_to_metric_families(
                exporter.metrics.get("/metrics", Accept=OPENMETRICS).text
            )
            for sample in family.samples
            if (exemplar := sample.exemplar) is not None
        ]
    )
    assert all(key.startswith("eu/bull:ingestion:") for key in named)
    assert exporter.api.get(f"/v1/jobs/keys/{named[0]}").json["name"] == "ingestion"


def test_a_target_that_hangs_delays_none_and_is_said_to_be_away(
    servers: tuple[Server, Server], tmp_path: Path, start_exporter: StartExporter
) -> None:
    eu, us = servers
    exporter = start_exporter("", "--config", str(configuration(tmp_path, servers)))
    eventually(lambda: (waiting(exporter, "eu"), waiting(exporter, "us")) == (2, 2))
    eu.pause()
    eventually(lambda: up(exporter, "eu") == 0)
    polls = "bullmq_exporter_poll_duration_seconds_count"
    errors = "bullmq_exporter_poll_errors_total"
    before, failed = (
        exporter.metrics.value(polls, target="us"),
        exporter.metrics.value(errors, target="eu"),
    )
    eventually(lambda: exporter.metrics.value(polls, target="us") >= before + 10)
    # Each poll of `eu` takes its whole second: if those of `us` waited, there would be as many.
    assert exporter.metrics.value(errors, target="eu") < failed + 8
    assert (up(exporter, "us"), waiting(exporter, "us"), waiting(exporter, "eu")) == (1, 2, None)
    ready = exporter.metrics.get("/-/ready")
    assert (ready.status, ready.text) == (200, "ready, except eu\n")

    answer = exporter.api.get("/v1/jobs/queues").json
    assert [queue["target"] for queue in answer["queues"]] == ["us"]
    assert answer["unavailable"] == [{"target": "eu", "message": "Redis cannot be reached"}]
    assert exporter.api.get("/v1/jobs/queues?target=eu").status == 503
    assert exporter.api.get("/v1/jobs/queues/mail?status=waiting&target=eu").status == 503
    # Which of the two is meant cannot be known, so the one that answers is shown.
    assert exporter.api.get("/v1/jobs/queues/mail?status=waiting").json["target"] == "us"
    assert exporter.api.get("/v1/jobs/queues/mail/jobs/us").json["target"] == "us"
    # `eu` may have it.
    assert exporter.api.get("/v1/jobs/queues/mail/jobs/never-there").status == 503
    assert exporter.api.get("/v1/jobs/keys/bull:mail:us").json["target"] == "us"
    assert exporter.api.get("/v1/jobs/keys/bull:mail:eu").status == 503
    [line] = eventually(lambda: exporter.lines("Redis is unavailable"))
    assert line["target"] == "eu"
    assert "redis.host of the target eu" in line["reason"]

    us.pause()
    eventually(lambda: up(exporter, "us") == 0)
    assert exporter.metrics.get("/-/ready").status == 503
    assert exporter.api.get("/v1/jobs/queues").status == 503
    for server in servers:
        server.resume()
    eventually(lambda: (waiting(exporter, "eu"), waiting(exporter, "us")) == (2, 2))
    assert eventually(lambda: exporter.lines("Redis is back"))[-1]["target"] in ("eu", "us")


def test_check_shows_each_target_or_what_is_wrong_with_it(
    servers: tuple[Server, Server], tmp_path: Path
) -> None:
    file = configuration(tmp_path, servers)

    def check() -> subprocess.CompletedProcess[str]:
        return run_exporter("--check", "--config", str(file))

    good = check()
    assert good.returncode == 0, good.stderr
    for name, server in zip(("eu", "us"), servers, strict=True):
        assert f"{name}: Redis at 127.0.0.1:{server.port} answers; 1 queues:" in good.stdout
    servers[1].stop()
    bad = check()
    assert bad.returncode == 2
    assert bad.stderr.startswith(f"bullmq-exporter: us: Redis at 127.0.0.1:{servers[1].port} ")
    assert len(bad.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("targets: {a: 1}", {}, "targets: must be a list"),
        ("targets: [1]", {}, "targets.0 must be a mapping of settings to values"),
        ("targets: [{redis: {host: h}}]", {}, "targets.0.name: is missing"),
        ("targets: [{name: 'a.b'}]", {}, "targets.0.name: "),
        ("targets: [{name: a}, {name: a}]", {}, "each must have a name of its own"),
        ("targets: [{name: a, redis: {port: 0}}]", {}, "targets.0.redis.port: must be at least 1"),
        (
            "targets: [{name: a, redis: {prot: 1}}]",
            {},
            "targets.0.redis.prot: no such setting",
        ),
        ("targets: [{name: a, api: {key: k}}]", {}, "targets.0.api: no such setting"),
        ("targets: [{name: a, redis: {url: 'secret'}}]", {}, "targets.0.redis.url: must be redis"),
        (
            "targets: [{name: a, redis: {password_file: /none}}]",
            {},
            "redis.password_file: /none",
        ),
        ("targets: [{name: a}]\nprefix: b", {}, "prefix: cannot be combined with targets"),
        (
            "targets: [{name: a}]",
            {"REDIS_HOST": "h"},
            "REDIS_HOST: cannot be combined with targets",
        ),
        ("targets: [{name: a, prefix: '{x},{y}', redis: {cluster: true}}]", {}, "same hash tag"),
        (
            "targets: [{name: a, prefix: '{x*}', redis: {cluster: true}}]",
            {},
            "cannot hold a pattern",
        ),
    ],
)
def test_what_is_wrong_with_a_target_is_said(
    text: str, variables: dict[str, str], expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"^[^\n]+$") as refused:
        load({}, variables, file)
    assert expected in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_secrets_of_targets_are_known_as_such(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    entry = {"name": "a", "redis": {"url": "redis://:of-the-url@h"}}
    other = {"name": "b", "redis": {"password": "of-b"}}
    file.write_text(json.dumps({"targets": [entry, other]}))
    settings = load({}, {}, file)
    assert sorted(settings.secrets()) == ["of-b", "of-the-url"]
    named = settings.by_target()
    assert [each.redis.address for each in named.values()] == ["h:6379", "localhost:6379"]
