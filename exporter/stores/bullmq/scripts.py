"""The Lua scripts of this package."""

from __future__ import annotations

from importlib import resources

from exporter.stores.redis.client import Script


def load_script(name: str) -> Script:
    """A script of this package, with the functions that all of them share before it."""
    package = resources.files("exporter.stores.bullmq")
    return Script(
        "\n".join(package.joinpath(part).read_text("utf-8") for part in ("layout.lua", name))
    )
