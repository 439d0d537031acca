"""Files that valid settings name: what can be used, and what is said where one cannot."""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme

from exporter.settings import SettingsError, load, prepare


def error_at_start(environment: Mapping[str, str], file: Path | None = None) -> str:
    """What is wrong with settings that are valid."""
    settings = load({}, environment, file)
    with pytest.raises(SettingsError) as caught:
        prepare(settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def pem_files(directory: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    issued = trustme.CA().issue_cert("exporter.internal")
    cert, key = directory / "cert.pem", directory / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key


def test_settings_are_valid_or_not_whatever_the_files_are_that_they_name(tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    variables = {
        f"EXPORTER_{section}_TLS_{part}": nothing
        for section in ("REDIS", "METRICS")
        for part in ("CERT", "KEY")
    }
    variables |= {"EXPORTER_REDIS_TLS_CA": nothing, "EXPORTER_EVENTS_STATE_FILE": f"{nothing}/s"}
    settings = load({}, variables)
    assert settings.metrics.tls_cert == settings.redis.tls_ca == tmp_path / "nothing"


def test_the_metrics_port_is_served_with_tls_if_there_is_a_certificate(tmp_path: Path) -> None:
    assert prepare(load({}, {})).metrics_tls is None
    cert, key = pem_files(tmp_path)
    variables = {"EXPORTER_METRICS_TLS_CERT": str(cert), "EXPORTER_METRICS_TLS_KEY": str(key)}
    settings = load({}, variables)
    prepared = prepare(settings)
    assert isinstance(prepared.metrics_tls, ssl.SSLContext)
    assert prepared.settings is settings


@pytest.mark.parametrize("section", ["redis", "metrics"])
def test_a_certificate_and_a_key_that_do_not_belong_together_are_refused(
    section: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    cert, _ = pem_files(tmp_path)
    _, key = pem_files(tmp_path / "other")
    name = f"EXPORTER_{section.upper()}_TLS"
    for wrong in (key, cert, tmp_path, tmp_path / "missing"):
        message = error_at_start({f"{name}_CERT": str(cert), f"{name}_KEY": str(wrong)})
        assert message.startswith(f"{section}.tls_cert ({name}_CERT) {cert} and ")
        assert f"{section}.tls_key ({name}_KEY) {wrong} cannot be used, two PEM files" in message


def test_files_of_a_target_are_named_with_it(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text("targets: [{name: eu}, {name: us, redis: {tls_ca: /none}}]")
    message = error_at_start({}, file)
    assert message.startswith("redis.tls_ca of the target us: /none cannot be used")


def test_an_authority_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    no_certificate = tmp_path / "notes.pem"
    no_certificate.write_text("hello")
    for file in (no_certificate, tmp_path / "missing.pem", tmp_path):
        message = error_at_start({"EXPORTER_REDIS_TLS_CA": str(file)})
        assert message.startswith("redis.tls_ca (EXPORTER_REDIS_TLS_CA): ")
        assert str(file) in message
        assert "PEM" in message


def test_a_state_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    no_files = (tmp_path, tmp_path / "fifo", Path("/dev/full"))
    links = tuple(tmp_path / name for name in ("to_fifo", "to_missing", "to_itself"))
    for link, named in zip(links, ("fifo", "missing/state", "to_itself"), strict=True):
        link.symlink_to(named)
    for file in (*no_files, tmp_path / "missing" / "state", *links, tmp_path / "with_\0"):
        message = error_at_start({"EXPORTER_EVENTS_STATE_FILE": str(file)})
        assert message.startswith("events.state_file (EXPORTER_EVENTS_STATE_FILE): ")
        assert str(file) in message
    (tmp_path / "to_new").symlink_to("state")
    for name in ("state", "to_new"):
        assert prepare(load({}, {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / name)}))


def test_postgres_without_its_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert error_at_start({"EXPORTER_POSTGRES_HOST": "h"}) == (
        "postgres.host (EXPORTER_POSTGRES_HOST, --postgres-url) needs the package psycopg: "
        "pip install 'bullmq-exporter[postgres]'"
    )
    prepare(load({}, {}))
