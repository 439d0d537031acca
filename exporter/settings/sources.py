"""Where settings come from: flags over environment over YAML file over defaults."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exporter.settings.layer import Layer, Value
from exporter.settings.messages import SettingsError, explain, hint_for
from exporter.settings.model import LEAVES, Settings, Watched
from exporter.settings.names import FILE_ONLY, FLAGS, OPEN_ARCHIVER_NAMES, derived_variable
from exporter.settings.postgres_url import expand_postgres_url
from exporter.settings.redis_url import expand_redis_url
from exporter.settings.secret_files import read_key_files, read_secret_files

# The variables that Kubernetes adds for each Service of the namespace whose name begins with
# `exporter`.
SERVICE_LINK = re.compile(
    r"EXPORTER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
SERVICE_LINK_PORT = re.compile(r"(tcp|udp|sctp)://")


def load(
    flags: Mapping[str, str], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Return the effective settings. Reads the file, and the secret files that the sources name.

    `flags` maps a setting's path to the text given for it. Raises SettingsError.
    """
    layers = (
        _from_file(file) if file else {},
        _from_environment(environment),
        {path: Value(_utf8(text, FLAGS[path]), FLAGS[path]) for path, text in flags.items()},
    )
    return validate(_merged(_expanded(layer) for layer in layers))


def validate(layer: Layer) -> Settings:
    """The settings with these values, and defaults for the others. Raises SettingsError."""
    try:
        return Settings.model_validate(_nested(layer))
    except ValidationError as error:
        raise SettingsError(explain(error, layer)) from None


def _expanded(layer: Layer) -> Layer:
    """The layer with the content of its secret files and URLs. Raises SettingsError."""
    return expand_postgres_url(expand_redis_url(read_secret_files(layer)))


# The settings that say that queues are in Redis, unless they have these values, which are the
# defaults in config/exporter.yml.
REDIS_PLACES = ("redis.host", "redis.socket", "redis.sentinels", "prefix")
NO_PLACES: tuple[Any, ...] = (None, "localhost", "bull", ["bull"], [], ())


def _require_one_store(layer: Layer) -> Layer:
    """Return the layer. Raises SettingsError if it names both Redis and PostgreSQL."""
    host = layer.get("postgres.host")
    if host is None:
        return layer
    for path in REDIS_PLACES:
        if path in layer and layer[path].value not in NO_PLACES:
            raise SettingsError(
                f"{layer[path].origin} and {host.origin}: queues are either in Redis or in "
                "PostgreSQL, where BullMQ has a schema (postgres.schema_name) and no prefix; to "
                "watch both, make them two targets"
            )
    return layer


def _merged(layers: Iterable[Layer]) -> Layer:
    """The merged layers; a later one takes precedence. Raises SettingsError."""
    merged: Layer = {}
    for layer in layers:
        for path in ("redis.password", "postgres.password"):
            if path in layer:
                merged.pop(f"{path}_file", None)  # the file of an earlier layer's password
        merged |= layer
    if "targets" in merged and merged["targets"].value:
        for path, given in merged.items():
            if _section(path) in Watched.model_fields:
                raise SettingsError(
                    f"{given.origin}: cannot be combined with targets: each has its own"
                )
    _require_one_store(merged)
    tls = merged.get("redis.tls")
    if tls and tls.origin == OPEN_ARCHIVER_NAMES["redis.tls"] and "redis.tls_ca" not in merged:
        # Open Archiver connects with `rejectUnauthorized: false` (config/redis.ts): the same
        # variable must work against the same server. The log warns of it.
        merged.setdefault("redis.tls_verify", Value(False, tls.origin))
    return merged


def _section(path: str) -> str:
    return path.partition(".")[0]


def _nested(layer: Layer) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, (value, _) in layer.items():
        *sections, name = path.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested


def _from_environment(environment: Mapping[str, str]) -> Layer:
    variables = {leaf.variable: path for path, leaf in LEAVES.items() if path not in FILE_ONLY}
    variables |= {
        f"{leaf.variable}_FILE": f"{leaf.path}_file" for leaf in LEAVES.values() if leaf.secret
    }
    misnamed = {derived_variable(path): name for path, name in OPEN_ARCHIVER_NAMES.items()}
    secrets = {leaf.variable for leaf in LEAVES.values() if leaf.secret}
    layer: Layer = {}
    for name, text in environment.items():
        # A Service named `redis` makes Kubernetes set REDIS_PORT=tcp://10.0.0.1:6379.
        if name.endswith("_PORT") and SERVICE_LINK_PORT.match(text):
            continue
        if name in variables:
            # Compose passes `${REDIS_USER}` as an empty string if it is not set.
            if text.strip():
                value = text if name in secrets else text.strip()
                layer[variables[name]] = Value(_utf8(value, name), name)
        elif name.startswith("EXPORTER_") and not SERVICE_LINK.fullmatch(name):
            if name in misnamed:
                raise SettingsError(f"{name}: no such setting; did you mean {misnamed[name]}?")
            raise SettingsError(f"{name}: no such setting{hint_for(name, variables)}")
    return layer


def _utf8(text: str, origin: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{origin}: is not UTF-8 text") from None
    return text


def _from_file(file: Path) -> Layer:
    from exporter.settings.yaml_file import parsed  # noqa: PLC0415 - a MiB that most have no use for

    document = parsed(file)
    paths = {*LEAVES, *(f"{leaf.path}_file" for leaf in LEAVES.values() if leaf.secret)}
    layer = _flat(document, str(file), paths)
    if "api.keys" in layer:
        layer["api.keys"] = read_key_files(layer["api.keys"])
    if "targets" in layer:
        target_paths = {"name", *(path for path in paths if _section(path) in Watched.model_fields)}
        layer["targets"] = _each_target(layer["targets"], target_paths)
    return layer


def _flat(document: Any, what: str, paths: Collection[str], at: str = "") -> Layer:
    """The settings of nested mappings by their paths, which must be among `paths`.

    Messages name `what` it is, and `at` which place in it.
    """
    layer: Layer = {}
    sections = {path.rpartition(".")[0] for path in paths} - {""}

    def walk(mapping: Any, under: str) -> None:
        if not isinstance(mapping, dict):
            where = f"{at}{under}".rstrip(".") or "the file"
            raise SettingsError(f"{what}: {where} must be a mapping of settings to values")
        for key, value in mapping.items():
            path = f"{under}{key}"
            if path in sections:
                walk({} if value is None else value, f"{path}.")
            elif path not in paths:
                name = re.split(r"[:=\s]", path)[0]
                if name != path:  # the rest is a value, perhaps a secret
                    raise SettingsError(f"{what}: {at}{name}: a space must follow its colon")
                hint = hint_for(path, paths)
                raise SettingsError(f"{what}: {at}{path}: no such setting{hint}")
            elif value is not None:
                layer[path] = Value(value, f"{what}: {at}{path}")

    walk({} if document is None else document, "")
    return layer


def _each_target(targets: Value, paths: Collection[str]) -> Value:
    """`targets` is a list, so the URLs and secret files of its entries are expanded here."""
    if not isinstance(targets.value, list):
        return targets
    file = targets.origin.removesuffix(": targets")
    return Value(
        [
            _nested(_require_one_store(_expanded(_flat(entry, file, paths, f"targets.{at}."))))
            for at, entry in enumerate(targets.value)
        ],
        targets.origin,
    )
