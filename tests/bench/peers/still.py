"""The limit of a scrape: the bytes of a file over aiohttp. Usage: python still.py FILE."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web
from serving import serve


async def main(body: bytes) -> None:
    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
        return web.Response(body=body, headers=headers)

    await serve(metrics)


asyncio.run(main(Path(sys.argv[1]).read_bytes()))
