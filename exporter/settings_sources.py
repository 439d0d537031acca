"""Where settings come from: flags over environment over YAML file over defaults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import ValidationError

from exporter.settings import (
    FLAGS,
    LEAVES,
    OPEN_ARCHIVER_NAMES,
    Settings,
    SettingsError,
    Watched,
    described_path,
    read_in_time,
    secret_in,
)

# Lists of mappings, which no variable can hold.
FILE_ONLY = {"api.keys", "targets"}
# What Kubernetes adds for each Service of the namespace, here for those named `exporter…`.
SERVICE_LINK = re.compile(
    r"EXPORTER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
SERVICE_LINK_PORT = re.compile(r"(tcp|udp|sctp)://")


class _Value(NamedTuple):
    value: Any
    origin: str  # how the user would name it: a flag, a variable, or a key of the file


_Layer = dict[str, _Value]


def load(
    flags: Mapping[str, str], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """The settings in force.

    `flags` maps a setting's path to the text given for it. Raises SettingsError.
    """
    merged: _Layer = {}
    for layer in (
        _from_file(file) if file else {},
        _from_environment(environment),
        {path: _Value(_utf8(text, FLAGS[path]), FLAGS[path]) for path, text in flags.items()},
    ):
        added = _expand_url(_read_secret_files(layer))
        if "redis.password" in added:
            merged.pop("redis.password_file", None)  # that of the password before
        merged |= added
    if "targets" in merged and merged["targets"].value:
        for path, given in merged.items():
            if _section(path) in Watched.model_fields:
                raise SettingsError(
                    f"{given.origin}: cannot be combined with targets: each has its own"
                )
    tls = merged.get("redis.tls")
    if tls and tls.origin == OPEN_ARCHIVER_NAMES["redis.tls"] and "redis.tls_ca" not in merged:
        # Open Archiver connects with `rejectUnauthorized: false` (config/redis.ts): the same
        # variable must work against the same server. The log warns of it.
        merged.setdefault("redis.tls_verify", _Value(False, tls.origin))
    try:
        return Settings.model_validate(_nested(merged))
    except ValidationError as error:
        raise SettingsError(_explain(error, merged)) from None


def _section(path: str) -> str:
    return path.partition(".")[0]


def _nested(layer: _Layer) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, (value, _) in layer.items():
        *sections, name = path.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested


def _from_environment(environment: Mapping[str, str]) -> _Layer:
    variables = {leaf.variable: path for path, leaf in LEAVES.items() if path not in FILE_ONLY}
    variables |= {
        f"{leaf.variable}_FILE": f"{leaf.path}_file" for leaf in LEAVES.values() if leaf.secret
    }
    misnamed = {LEAVES[path].derived: name for path, name in OPEN_ARCHIVER_NAMES.items()}
    secrets = {leaf.variable for leaf in LEAVES.values() if leaf.secret}
    layer: _Layer = {}
    for name, text in environment.items():
        # A Service named `redis` makes Kubernetes set REDIS_PORT=tcp://10.0.0.1:6379.
        if name.endswith("_PORT") and SERVICE_LINK_PORT.match(text):
            continue
        if name in variables:
            # Compose hands `${REDIS_USER}` on as an empty string where it is not set.
            if text.strip():
                value = text if name in secrets else text.strip()
                layer[variables[name]] = _Value(_utf8(value, name), name)
        elif name.startswith("EXPORTER_") and not SERVICE_LINK.fullmatch(name):
            if name in misnamed:
                raise SettingsError(f"{name}: no such setting; did you mean {misnamed[name]}?")
            raise SettingsError(f"{name}: no such setting{_did_you_mean(name, variables)}")
    return layer


def _utf8(text: str, origin: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{origin}: is not UTF-8 text") from None
    return text


def _from_file(file: Path) -> _Layer:
    from exporter.settings_file import parsed  # noqa: PLC0415 - a MiB that most have no use for

    document = parsed(file)
    paths = {*LEAVES, *(f"{leaf.path}_file" for leaf in LEAVES.values() if leaf.secret)}
    layer = _flat(document, str(file), paths)
    if "api.keys" in layer:
        layer["api.keys"] = _key_files(layer["api.keys"])
    if "targets" in layer:
        of_target = {"name", *(path for path in paths if _section(path) in Watched.model_fields)}
        layer["targets"] = _each_target(layer["targets"], of_target)
    return layer


def _flat(document: Any, what: str, paths: Collection[str], at: str = "") -> _Layer:
    """The settings of a mapping of mappings by their paths, of which there are these.

    `what` it is, and `at` which place of it, is said where something is wrong.
    """
    layer: _Layer = {}
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
                if name != path:  # what follows is a value, perhaps a secret
                    raise SettingsError(f"{what}: {at}{name}: a space is wanted behind its colon")
                hint = _did_you_mean(path, paths)
                raise SettingsError(f"{what}: {at}{path}: no such setting{hint}")
            elif value is not None:
                layer[path] = _Value(value, f"{what}: {at}{path}")

    walk({} if document is None else document, "")
    return layer


def _each_target(targets: _Value, paths: Collection[str]) -> _Value:
    """`targets` is a list, so the URLs and secrets' files of its entries are taken apart here."""
    if not isinstance(targets.value, list):
        return targets
    file = targets.origin.removesuffix(": targets")
    return _Value(
        [
            _nested(_expand_url(_read_secret_files(_flat(entry, file, paths, f"targets.{at}."))))
            for at, entry in enumerate(targets.value)
        ],
        targets.origin,
    )


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; config/exporter.yml lists them all"


def _read_secret(path: Any, origin: str) -> str:
    try:
        return read_in_time(partial(secret_in, Path(str(path))))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        described = described_path(Path(str(path)))
        raise SettingsError(f"{origin}: {described}cannot be read: {reason}") from None


def _read_secret_files(layer: _Layer) -> _Layer:
    read = dict(layer)
    for leaf in LEAVES.values():
        given = read.pop(f"{leaf.path}_file", None) if leaf.secret else None
        if given is None:
            continue
        if leaf.path in read:
            raise SettingsError(f"{given.origin} and {read[leaf.path].origin}: set one of the two")
        read[leaf.path] = _Value(_read_secret(given.value, given.origin), given.origin)
        if leaf.path == "redis.password":
            # It may change while we run: each connection reads it anew.
            read[f"{leaf.path}_file"] = given
    return read


def _key_files(keys: _Value) -> _Value:
    """`api.keys` is a list, so its `key_file` entries are read here."""
    if not isinstance(keys.value, list):
        return keys
    read = []
    for index, entry in enumerate(keys.value):
        if isinstance(entry, dict) and entry.get("key_file") is not None:
            rest = {name: value for name, value in entry.items() if name != "key_file"}
            origin = f"{keys.origin}.{index}.key_file"
            if rest.get("key") is not None:
                raise SettingsError(f"{origin} and {keys.origin}.{index}.key: set one of the two")
            read.append(rest | {"key": _read_secret(entry["key_file"], origin)})
        else:
            read.append(entry)
    return _Value(read, keys.origin)


def _expand_url(layer: _Layer) -> _Layer:
    given = layer.get("redis.url")
    if given is None:
        return layer
    refusal = SettingsError(
        f"{given.origin}: must be redis[s]://[user[:password]@]host[:port][/database] or "
        "unix://[user[:password]@]/path/of/the.sock, with what is special in a URL "
        "(@ : / ? # %) percent-encoded in user and password"
    )
    try:
        url = urlsplit(str(given.value))
        port = url.port
    except ValueError:
        raise refusal from None
    if url.scheme == "unix":
        return _expand_socket_url(layer, given, url, refusal)
    database = url.path.strip("/")
    if (
        url.scheme not in ("redis", "rediss", "valkey", "valkeys")
        or not url.hostname
        or port == 0
        or url.query
        or url.fragment
        or not re.fullmatch(r"[0-9]{0,10}", database)
    ):
        raise refusal
    parts: dict[str, Any] = {"host": url.hostname, "tls": url.scheme in ("rediss", "valkeys")}
    if port is not None:
        parts["port"] = port
    if database:
        parts["db"] = database
    return _with_url(layer, given, url, parts | {"socket": None})


def _expand_socket_url(
    layer: _Layer, given: _Value, url: SplitResult, refusal: SettingsError
) -> _Layer:
    if url.hostname or not url.path.strip("/") or url.query or url.fragment:
        raise refusal
    return _with_url(layer, given, url, {"socket": unquote(url.path), "tls": False})


def _with_url(layer: _Layer, given: _Value, url: SplitResult, parts: dict[str, Any]) -> _Layer:
    if url.username:
        parts["user"] = unquote(url.username)
    if url.password:
        parts["password"] = unquote(url.password)
    # It names a server: no Sentinel is asked for one.
    parts |= {"sentinels": (), "sentinel_master": None}
    replaced = {"redis.url", *(["redis.password_file"] if url.password else [])}
    expanded = {path: value for path, value in layer.items() if path not in replaced}
    return expanded | {f"redis.{name}": _Value(part, given.origin) for name, part in parts.items()}


# By the first word of pydantic's type of error, where its message speaks of Python.
MAX_COMPLAINTS = {
    "bool": "must be true or false",
    "extra": "no such setting",
    "float": "must be a number",
    "int": "must be a whole number",
    "missing": "is missing",
    "model": "must be a mapping of settings to values",
    "path": "must be a file's path",
    "string": "must be text",
    "tuple": "must be a list",
}


def _explain(error: ValidationError, layer: _Layer) -> str:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    kind, context = first["type"], first.get("ctx", {})
    if kind.endswith("too_short"):
        least = context["min_length"]
        message = "must not be empty" if least == 1 else f"must have at least {least} characters"
    else:
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = message.replace("greater than or equal to", "at least")
        message = message.replace("less than or equal to", "at most")
        message = MAX_COMPLAINTS.get(kind.partition("_")[0], message)
    parent = next(
        (known for known in LEAVES if path == known or path.startswith(f"{known}.")), None
    )
    if parent is None:
        return message
    origin = layer[parent].origin + path[len(parent) :] if parent in layer else path
    shown = first["input"]
    if LEAVES[parent].secret or parent in FILE_ONLY or not _may_be_shown(shown, kind, layer):
        return f"{origin}: {message}"
    return f"{origin}: {message}, not {shown[:60]!r}"


def _may_be_shown(value: Any, kind: str, layer: _Layer) -> bool:
    """Whether a wrong value, with this type of error, is repeated: it may be or hold a secret.

    What stands for a number or a choice is, an address or another text is not.
    """
    if not isinstance(value, str) or kind == "value_error" or "://" in value or "@" in value:
        return False
    secrets = [
        str(each.value) for path, each in layer.items() if path in LEAVES and LEAVES[path].secret
    ]
    return not any(secret in value for secret in secrets)
