"""Whatever is wrong at the start ends it with exit code 2 and one line that says what to do."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as pem
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import app, check, cli, logs
from exporter.settings import FLAGS
from tests.support.exporters import clean_environment, run_exporter
from tests.support.ports import free_port
from tests.support.servers import running

PASSWORD = "hunter2-of-the-server"  # what must never show holds `hunter2`
WRONG = "hunter2-of-somebody-else"

# What is said of `--config=--`, of which argparse makes an empty list up to Python 3.12.
DASHES = (
    "-- is not a value of an option"
    if sys.version_info < (3, 13)
    else "--config --: cannot be read"
)


def assert_refused(result: subprocess.CompletedProcess[str], *expected: str) -> None:
    """Ended with one line on stderr that has all of `expected`, and no secret."""
    shown = f"exit code {result.returncode}, stderr:\n{result.stderr}"
    assert result.returncode == 2, shown
    assert result.stdout == "", shown
    assert len(result.stderr.splitlines()) == 1, shown
    assert result.stderr.startswith("bullmq-exporter: "), shown
    assert "Traceback" not in result.stderr, shown
    assert "hunter2" not in result.stderr, shown
    missing = [part for part in expected if part not in result.stderr]
    assert not missing, f"not said: {missing}; {shown}"


# The file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"prefix: b\xfcll", ["is not UTF-8"]),
        (b"redis:\n\thost: a", ["is not valid YAML", "line 2, column 1"]),
        (b"redis: {password: hunter2", ["is not valid YAML", "line 1"]),
        (b"redis: {password: *hunter2}", ["is not valid YAML", "line 1, column 19"]),
        (b"poll_intervall: 3", ["poll_intervall: no such setting; did you mean poll_interval?"]),
        (b"redis: {pasword: hunter2}", ["redis.pasword: no such", "mean redis.password?"]),
        (b"poll_interval: [3]", ["poll_interval: must be a number"]),
        (b"redis: a", ["redis must be a mapping of settings to values"]),
        (b"redis: {port: 65536}", ["redis.port: must be at most 65535, not '65536'"]),
        (b"api: {listen: ':65536'}", ["api.listen: must be HOST:PORT", "0 to 65535"]),
        (b"api: {key: hunter2}", ["api.key: must have at least 16 characters"]),
    ],
)
def test_a_file_that_cannot_be_used(content: bytes, expected: list[str], tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_bytes(content)
    assert_refused(run_exporter("--config", str(file)), str(file), *expected)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    file = str(tmp_path / "missing.yml")
    assert_refused(
        run_exporter("--config", file), f"--config {file}: ", "No such file or directory"
    )


def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    assert_refused(
        run_exporter("--config", str(tmp_path)), f"--config {tmp_path}: ", "Is a directory"
    )


# Flags and variables


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--redis-urll", "redis://:hunter2@h"], ["unknown option --redis-urll", "--redis-url?"]),
        (["--password=hunter2"], ["unknown option --password", "--help lists the options"]),
        (["--check", "redis://:hunter2@h"], ["unexpected positional argument", "--help"]),
        (["--config"], ["--config", "expected one argument"]),
        (["--config=--"], [DASHES]),
        (["--check", "--demo"], ["--demo: not allowed with argument --check"]),
        (["--log-level", "loud"], ["--log-level: must be 'debug', 'info', 'warning' or 'error'"]),
        (["--poll-interval", "nan"], ["--poll-interval: must be at ", "not 'nan'"]),
        (["--poll-interval", "5s"], ["--poll-interval: must be a number, not '5s'"]),
        (["--metrics-listen", "9538"], ["--metrics-listen: must be HOST:PORT", "0 to 65535"]),
        (["--redis-url", "http://:hunter2@h"], ["--redis-url: must be redis[s]://"]),
        (["--prefix", "bull:"], ["--prefix", "ends in a colon"]),
    ],
)
def test_a_bad_flag(flags: list[str], expected: list[str]) -> None:
    assert_refused(run_exporter(*flags), *expected)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"REDIS_PORT": "65536"}, ["REDIS_PORT: must be at most 65535"]),
        ({"REDIS_PORT": "abc"}, ["REDIS_PORT: must be a whole number, not 'abc'"]),
        ({"EXPORTER_LOG_LEVEL": "loud"}, ["EXPORTER_LOG_LEVEL: must be 'debug', 'info'"]),
        ({"EXPORTER_API_KEY": "hunter2"}, ["EXPORTER_API_KEY: must have at least 16 characters"]),
        (
            {"EXPORTER_API_KEI": "hunter2"},
            ["EXPORTER_API_KEI: no", "did you mean EXPORTER_API_KEY?"],
        ),
        ({"REDIS_PASSWORD_FILE": "/no/file"}, ["REDIS_PASSWORD_FILE: /no/file cannot be read"]),
        ({"EXPORTER_REDIS_TLS_CA": "/no/file"}, ["EXPORTER_REDIS_TLS_CA", "/no/file", "PEM"]),
        (
            {"EXPORTER_METRICS_TLS_CERT": "/no/cert", "EXPORTER_METRICS_TLS_KEY": "/no/key"},
            ["EXPORTER_METRICS_TLS_CERT) /no/cert", "EXPORTER_METRICS_TLS_KEY) /no/key", "PEM"],
        ),
        (
            {"EXPORTER_METRICS_PASSWORD": "hunter2"},
            ["EXPORTER_METRICS_USER", "EXPORTER_METRICS_PASSWORD", "set both or none"],
        ),
    ],
)
def test_a_bad_variable(variables: dict[str, str], expected: list[str]) -> None:
    assert_refused(run_exporter(**variables), *expected)


def test_a_variable_that_is_no_text() -> None:
    assert_refused(run_exporter(REDIS_HOST=os.fsdecode(b"\xff")), "REDIS_HOST: is not UTF-8 text")


# Runs what follows its first argument, a terminal, with that as its controlling terminal.
AT_TERMINAL = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"


def test_a_key_with_a_password_is_refused_and_no_password_asked_for(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = trustme.CA().issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(os.fspath(cert))
    plain = pem.load_pem_private_key(made.private_key_pem.bytes(), None)
    locked = pem.BestAvailableEncryption(b"locked")
    key.write_bytes(
        plain.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.TraditionalOpenSSL, locked)
    )
    ours, theirs = os.openpty()
    try:
        result = subprocess.run(
            [
                *(sys.executable, "-c", AT_TERMINAL, os.ttyname(theirs)),
                *(sys.executable, "-m", "exporter"),
            ],
            check=False,
            env=clean_environment(
                EXPORTER_METRICS_TLS_CERT=str(cert), EXPORTER_METRICS_TLS_KEY=str(key)
            ),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert_refused(result, "EXPORTER_METRICS_TLS_KEY", "the key without a password")


# Ports


@pytest.mark.parametrize("port", ["metrics", "api"])
def test_a_port_that_is_taken(port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listen = {"metrics": "127.0.0.1:0", "api": "127.0.0.1:0"} | {port: address}
        result = run_exporter("--metrics-listen", listen["metrics"], "--api-listen", listen["api"])
    assert_refused(
        result,
        f"{port}.listen (EXPORTER_{port.upper()}_LISTEN, --{port}-listen): {address} is taken",
        "choose another port, or 0 for a free one",
    )


def test_an_address_of_another_machine() -> None:
    assert_refused(
        run_exporter("--metrics-listen", "192.0.2.1:0"), "--metrics-listen", "192.0.2.1:0 cannot"
    )


# Redis


@dataclass(frozen=True)
class Redis:
    """A server with a password, users, a plain port and a TLS port."""

    plain: str
    tls: str
    wrong_name: str
    authority: str
    other_authority: str


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    directory = tmp_path_factory.mktemp("redis")
    made, other = trustme.CA(), trustme.CA()
    files = {name: str(directory / f"{name}.pem") for name in ("ca", "other", "cert", "key")}
    made.cert_pem.write_to_path(files["ca"])
    other.cert_pem.write_to_path(files["other"])
    server_certificate = made.issue_cert("localhost")
    server_certificate.cert_chain_pems[0].write_to_path(files["cert"])
    server_certificate.private_key_pem.write_to_path(files["key"])
    tls_port = str(free_port())
    options = ["--requirepass", PASSWORD, "--tls-port", tls_port, "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", files["cert"], "--tls-key-file", files["key"]]
    options += ["--tls-ca-cert-file", files["ca"]]
    with running("redis", directory, *options) as server:
        with server.client(password=PASSWORD) as admin:
            admin.execute_command("ACL", "SETUSER", "writer", "on", f">{PASSWORD}", "~*", "+set")
            admin.execute_command("ACL", "SETUSER", "keyless", "on", f">{PASSWORD}", "+@all")
            admin.hset("bull:a:meta", "version", "bullmq:5.56.3")
        yield Redis(
            plain=f"localhost:{server.port}",
            tls=f"localhost:{tls_port}",
            wrong_name=f"127.0.0.1:{tls_port}",
            authority=files["ca"],
            other_authority=files["other"],
        )


def test_what_is_right_is_accepted(redis: Redis) -> None:
    """Else the refusals below could have other reasons than theirs."""
    for url, variables in (
        (f"redis://:{PASSWORD}@{redis.plain}", {}),
        (f"rediss://:{PASSWORD}@{redis.tls}", {"EXPORTER_REDIS_TLS_CA": redis.authority}),
        (f"rediss://:{PASSWORD}@{redis.wrong_name}", {"EXPORTER_REDIS_TLS_VERIFY": "false"}),
    ):
        result = run_exporter("--check", "--redis-url", url, **variables)
        assert (result.returncode, result.stderr) == (0, "")
        assert "1 queues" in result.stdout
        assert "hunter2" not in result.stdout


def test_no_server_at_all() -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}"
    expected = ["127.0.0.1", "Connection refused", "see redis.host (REDIS_HOST, --redis-url)"]
    assert_refused(run_exporter("--check", "--redis-url", url), *expected)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "a" * 64])
def test_a_server_whose_name_is_none(host: str) -> None:
    assert_refused(
        run_exporter("--check", REDIS_HOST=host), host, "see redis.host (REDIS_HOST, --redis-url)"
    )


def test_a_server_that_is_something_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        result = run_exporter(
            "--check", REDIS_HOST="127.0.0.1", REDIS_PORT=port, EXPORTER_REDIS_TIMEOUT="1"
        )
    assert_refused(result, "did not answer within 1 s", "see redis.host (REDIS_HOST, --redis-url)")


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_wrong_password(redis: Redis, user: str) -> None:
    result = run_exporter("--check", "--redis-url", f"redis://{user}:{WRONG}@{redis.plain}")
    expected = [
        "refused the credentials",
        "redis.user (REDIS_USER)",
        "redis.password (REDIS_PASSWORD)",
    ]
    assert_refused(result, redis.plain, *expected)


def test_no_password_where_one_is_wanted(redis: Redis) -> None:
    result = run_exporter("--check", "--redis-url", f"redis://{redis.plain}")
    expected = ["requires a password", "redis.user (REDIS_USER)", "redis.password (REDIS_PASSWORD)"]
    assert_refused(result, redis.plain, *expected)


@pytest.mark.parametrize("user", ["writer", "keyless"])
def test_a_user_who_may_not_read(redis: Redis, user: str) -> None:
    result = run_exporter("--check", "--redis-url", f"redis://{user}:{PASSWORD}@{redis.plain}")
    assert_refused(result, f"does not let user '{user}' read", "redis.user (REDIS_USER)", "README")


def test_a_database_that_does_not_exist(redis: Redis) -> None:
    result = run_exporter("--check", "--redis-url", f"redis://:{PASSWORD}@{redis.plain}/99")
    assert_refused(result, redis.plain, "out of range", "redis.db (EXPORTER_REDIS_DB)")


def test_tls_to_a_plain_port(redis: Redis) -> None:
    url = f"rediss://:{PASSWORD}@{redis.plain}"
    result = run_exporter("--check", "--redis-url", url, EXPORTER_REDIS_TIMEOUT="1")
    assert_refused(result, redis.plain, "not use TLS", "redis.tls (REDIS_TLS_ENABLED)")


def test_no_tls_to_a_tls_port(redis: Redis) -> None:
    result = run_exporter("--check", "--redis-url", f"redis://:{PASSWORD}@{redis.tls}")
    assert_refused(
        result, redis.tls, "if it requires TLS, set redis.tls (REDIS_TLS_ENABLED) to true"
    )


@pytest.mark.parametrize("why", ["unknown authority", "other authority", "other name"])
def test_a_certificate_that_is_not_trusted(redis: Redis, why: str) -> None:
    address = redis.wrong_name if why == "other name" else redis.tls
    authority = {"other authority": redis.other_authority, "other name": redis.authority}.get(why)
    result = run_exporter(
        "--check",
        "--redis-url",
        f"rediss://:{PASSWORD}@{address}",
        EXPORTER_REDIS_TLS_CA=authority or "",
    )
    expected = [
        "certificate was not accepted",
        "EXPORTER_REDIS_TLS_CA",
        "EXPORTER_REDIS_TLS_VERIFY",
    ]
    assert_refused(result, address, *expected)


# Anything at all


@dataclass
class Ended:
    """How the command line ended, run in this process with nothing to start."""

    code: object = None
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)


def run_here(arguments: list[str]) -> Ended:
    async def started(*_: object, **__: object) -> None: ...

    async def checked(*_: object) -> check.Checked:
        return check.Checked("checked", has_found=True)

    ended = Ended()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bullmq-exporter", *arguments])
        patch.setattr(os, "environ", clean_environment())
        patch.setattr(app, "run", started)
        patch.setattr(check, "check", checked)
        patch.setattr(cli, "_demo", lambda *_, **__: None)
        patch.setattr(logs, "configure", lambda *_: None)
        patch.setattr(logging, "disable", lambda *_: None)
        with redirect_stdout(ended.out), redirect_stderr(ended.err):
            try:
                cli.main()
                ended.code = 0
            except SystemExit as stop:
                ended.code = stop.code
    return ended


texts = st.text(st.characters(exclude_categories=[], exclude_characters="\0"), max_size=20)
flags = st.sampled_from(
    [*FLAGS.values(), "--config", "--check", "--demo", "--postgres", "--version", "--help"]
)
values = st.sampled_from(
    [
        *("", "-1", "0", "1", "nan", "inf", "5s", "--", "a,b", "info", "é", "\udcff", "%", "%s"),
        *(":0", "[::1]:1", "/", "/dev/null", "@/dev/null"),
        *("redis://h", "rediss://u:p@h:1/2", "redis://u:p@["),
    ]
)
words = flags | values | texts | st.builds("{}={}".format, flags, values | texts)


@given(st.lists(words, max_size=6) | st.lists(st.tuples(flags, values)).map(lambda p: sum(p, ())))
@settings(deadline=None, max_examples=600)
def test_any_command_line_runs_or_is_refused_in_one_line(arguments: list[str]) -> None:
    ended = run_here(list(arguments))
    lines = ended.err.getvalue().splitlines()
    if ended.code == 0:
        assert lines == []
    else:
        assert ended.code == 2
        assert ended.out.getvalue() == ""
        assert len(lines) == 1
        assert lines[0].startswith("bullmq-exporter: ")


def test_the_harness_of_the_test_above_reaches_both_ends() -> None:
    assert run_here(["--redis-url", "redis://h"]).code == 0
    assert run_here(["--check"]).out.getvalue() == "checked\n"
    assert run_here(["--check", "--nothing"]).code == 2
