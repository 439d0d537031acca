"""No secret that was configured is shown: not by logs, errors, metrics, answers or pages."""

from __future__ import annotations

import logging
import os
from base64 import b64encode
from contextlib import redirect_stderr
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from exporter import logs
from exporter.settings import LEAVES, LogSettings, SettingsError, files, load, prepare, yaml_file
from exporter.stores.redis.credentials import Credentials
from tests.support.exporters import Exporter, StartExporter, run_exporter
from tests.support.ports import free_port
from tests.support.servers import running
from tests.support.waiting import eventually

SECRETS = {
    "redis.password": "secret-of-redis-%41",
    "redis.sentinel_password": "secret-of-sentinel",
    "metrics.password": "secret-of-the-metrics",
    "api.key": "secret-key-of-the-api-0123456789",
    "api.jwt_secret": "secret-of-the-tokens-long-enough-for-hs256",
}
KEY_OF_THE_FILE = "secret-key-of-the-file-0123456789"


def shown_by(exporter: Exporter) -> str:
    """Everything that can be had from it, by who has a credential and who has none."""
    paths = (
        "/",
        "/openapi.json",
        "/v1/jobs/queues",
        "/v1/jobs/queues/mail",
        "/nothing",
        "/page.js",
    )
    answers = []
    for path in (*paths, "/v1/jobs/queues?detail=no", "/v1/jobs/queues/mail?status=x"):
        for headers in ({"X-API-KEY": SECRETS["api.key"]}, {"X-API-KEY": "wrong"}, {}):
            answers.append(exporter.api.without_credentials().request("GET", path, headers))
    known = b64encode(f"reader:{SECRETS['metrics.password']}".encode()).decode()
    for path in ("/metrics", "/", "/-/ready", "/nothing"):
        answers.append(exporter.metrics.get(path))
        answers.append(exporter.metrics.get(path, Authorization=f"Basic {known}"))
    return "\n".join(f"{answer.headers}\n{answer.text}" for answer in answers) + exporter.log


def test_no_secret_is_reported_while_all_is_well_and_while_nothing_is(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    # Those of PostgreSQL take the place of Redis: test_postgres.py has them.
    secret = {path for path, leaf in LEAVES.items() if leaf.secret}
    assert SECRETS.keys() | {"redis.url", "postgres.url", "postgres.password"} == secret
    config = tmp_path / "exporter.yml"
    config.write_text(
        f"api: {{keys: [{{name: grafana, key: {KEY_OF_THE_FILE}}}]}}\nmetrics: {{user: reader}}\n"
    )
    variables = {
        LEAVES[path].variable: secret
        for path, secret in SECRETS.items()
        # With a URL no Sentinel is asked.
        if path != "redis.sentinel_password"
    }
    with running("valkey", tmp_path, "--requirepass", SECRETS["redis.password"]) as server:
        with server.client(password=SECRETS["redis.password"]) as client:
            client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        url = f"redis://:{quote(SECRETS['redis.password'])}@127.0.0.1:{server.port}"
        more = variables | {"EXPORTER_LOG_LEVEL": "debug", "EXPORTER_LOG_FORMAT": "json"}
        exporter = start_exporter(url, "--config", str(config), ready=False, **more)
        eventually(lambda: exporter.metrics.get("/-/ready").status == 200)
        said = shown_by(exporter)
        assert 'bullmq_job_count{queue="mail"' in said
        server.stop()
        eventually(lambda: exporter.lines("Redis is unavailable"))
        said += shown_by(exporter)
    for secret in (*SECRETS.values(), KEY_OF_THE_FILE, quote(SECRETS["redis.password"])):
        assert secret not in said


@pytest.mark.parametrize("form", ["json", "logfmt"])
def test_the_mark_in_place_of_a_secret_does_not_say_what_it_is(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    # Words of the lines themselves, two of them long enough to be searched for.
    secrets = ["R", "2", "info", "mail", "unavailable", "somewhere else", "a long secret"]
    log = tmp_path / "log"
    with log.open("w") as file, redirect_stderr(file):
        logs.configure(LogSettings.model_validate({"format": form}), secrets)
        own, library = logging.getLogger("exporter.collect.watcher"), logging.getLogger("redis")
        own.warning("Redis is unavailable", extra={"reason": "no answer", "queue": "mail"})
        logging.getLogger().handlers[0].flush()
        quiet = log.read_text()
        library.warning("redis://user:R@host:1/0, not a long secret")
        own.warning("Redis is unavailable", extra={"reason": "was: a long secret"})
        logging.getLogger().handlers[0].flush()
    assert "Redis is unavailable" in quiet
    assert "[redacted]" not in quiet
    said = log.read_text().removeprefix(quiet)
    assert "a long secret" not in said
    assert "redis://[redacted]@host:1/0, not [redacted]" in said
    assert "was: [redacted]" in said
    assert "Redis is unavailable" in said


MISPLACED = "hunter2hunter2"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_HOST", f"redis://:{MISPLACED}@localhost"),
        ("REDIS_HOST", f"user:{MISPLACED}@localhost"),
        ("REDIS_PORT", f"redis://:{MISPLACED}@localhost:6379"),
        ("EXPORTER_REDIS_URL", f"redis://:{MISPLACED}/@localhost"),
        ("EXPORTER_REDIS_SOCKET", f"unix://:{MISPLACED}@/run/redis.sock"),
        ("EXPORTER_REDIS_SENTINELS", f"user:{MISPLACED}@localhost:26379"),
        ("EXPORTER_REDIS_SENTINELS", f"{MISPLACED}@localhost:26379"),
        ("EXPORTER_REDIS_SENTINELS", f"redis://:{MISPLACED}@localhost:26379"),
        ("EXPORTER_METRICS_LISTEN", f"user:{MISPLACED}@localhost:9538"),
        ("EXPORTER_API_LISTEN", MISPLACED),
        ("EXPORTER_API_CORS_ORIGINS", f"https://user:{MISPLACED}@archive.example/"),
        ("EXPORTER_API_TRUSTED_PROXIES", MISPLACED),
        ("EXPORTER_POLL_INTERVAL", f"{SECRETS['redis.password']} {MISPLACED}"),
        ("REDIS_PASSWORD_FILE", MISPLACED),
        ("EXPORTER_API_KEY_FILE", MISPLACED),
    ],
)
def test_a_secret_at_the_place_of_another_setting_is_not_repeated(
    variable: str, value: str
) -> None:
    environment = {variable: value}
    if variable != "REDIS_PASSWORD_FILE":
        environment |= {"REDIS_PASSWORD": SECRETS["redis.password"]}
    if variable == "EXPORTER_REDIS_SENTINELS":
        environment |= {"EXPORTER_REDIS_SENTINEL_MASTER": "main"}
    with pytest.raises(SettingsError) as refused:
        load({}, environment)
    assert str(refused.value).startswith(f"{variable}")
    assert MISPLACED not in str(refused.value)


def test_the_text_of_a_key_at_the_place_of_its_file_is_not_repeated(tmp_path: Path) -> None:
    cert = tmp_path / "tls.pem"
    cert.touch()
    pem = f"-----BEGIN PRIVATE KEY-----\n{MISPLACED}\n-----END PRIVATE KEY-----"
    for section in ("METRICS", "REDIS"):
        variables = {f"EXPORTER_{section}_TLS_CERT": str(cert), f"EXPORTER_{section}_TLS_KEY": pem}
        with pytest.raises(SettingsError) as refused:
            prepare(load({}, variables))
        assert f"EXPORTER_{section}_TLS_CERT) {cert} and" in str(refused.value)
        assert MISPLACED not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["redis: {password:%s}", "api: {key=%s}", "redis: {password:\t%s}"]
)
def test_a_secret_that_a_file_has_for_a_name_is_not_repeated(text: str, tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(text % MISPLACED)
    with pytest.raises(SettingsError) as refused:
        load({}, {}, file)
    assert MISPLACED not in str(refused.value)


# Files that do not answer: nobody writes into a FIFO


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        *(({f"{leaf.variable}_FILE": "FIFO"}, None) for leaf in LEAVES.values() if leaf.secret),
        ({"EXPORTER_REDIS_TLS_CA": "FIFO"}, None),
        ({"EXPORTER_REDIS_TLS_CERT": "FIFO", "EXPORTER_REDIS_TLS_KEY": "FIFO"}, None),
        ({"EXPORTER_REDIS_TLS_CERT": "CERT", "EXPORTER_REDIS_TLS_KEY": "FIFO"}, None),
        ({"EXPORTER_METRICS_TLS_CERT": "CERT", "EXPORTER_METRICS_TLS_KEY": "FIFO"}, None),
        ({}, "api: {keys: [{name: grafana, key_file: FIFO}]}"),
        ({}, "targets: [{name: eu, redis: {password_file: FIFO}}]"),
        ({}, None),  # the settings file itself
    ],
)
def test_a_file_that_does_not_answer_ends_the_start_in_one_line(
    variables: dict[str, str], text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_READ_SECONDS", 0.1)
    fifo, cert = tmp_path / "a fifo", tmp_path / "cert.pem"
    os.mkfifo(fifo)
    trustme.CA().cert_pem.write_to_path(cert)
    paths = {"FIFO": str(fifo), "CERT": str(cert)}
    config = None if variables else fifo
    if text is not None:
        config = tmp_path / "exporter.yml"
        config.write_text(text.replace("FIFO", str(fifo)))
        monkeypatch.setattr(yaml_file, "read_in_time", lambda read: read())
    with pytest.raises(SettingsError, match=r"^[^\n]+$") as refused:
        prepare(load({}, {name: paths[file] for name, file in variables.items()}, config))
    assert str(refused.value).endswith("cannot be read: no answer within 0.1 s")
    assert str(fifo) in str(refused.value)


async def test_a_secret_may_come_from_a_pipe_which_can_be_read_once() -> None:
    """As from `REDIS_PASSWORD_FILE=<(pass redis)` in a shell."""
    ours, theirs = os.pipe()
    os.write(theirs, b"from-a-program\n")
    os.close(theirs)
    redis = load({}, {"REDIS_PASSWORD_FILE": f"/dev/fd/{ours}"}).redis
    credentials = Credentials(redis)
    for _ in range(2):
        assert await credentials.get_credentials_async() == ("from-a-program",)
    os.close(ours)


def test_errors_on_stderr_are_blotted_as_the_log_is() -> None:
    """Should a reason hold a secret all the same."""
    host = "a-name-that-is-nowhere.invalid"
    shown = run_exporter("--check", REDIS_HOST=host, REDIS_PORT=str(free_port()))
    hidden = run_exporter("--check", REDIS_HOST=host, REDIS_PASSWORD=host)
    url = run_exporter("--check", REDIS_HOST=f"redis://:{MISPLACED}@localhost")
    assert {each.returncode for each in (shown, hidden, url)} == {2}
    assert host in shown.stderr
    assert host not in hidden.stderr
    assert "Redis at [redacted]:6379" in hidden.stderr
    assert MISPLACED not in url.stderr
    assert "REDIS_HOST: must be only a name or an address" in url.stderr
