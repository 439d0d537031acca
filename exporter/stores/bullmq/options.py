"""The options of jobs, which applications can make as long as they like."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.stores.redis.client import RedisReader, expected

# Longer options are not read. To parse 20 MB in a script held Redis 7.0 for half a second.
MAX_OPTIONS_BYTES = 16 * 1024


async def read_options(redis: RedisReader, jobs: Sequence[bytes]) -> list[bytes | None]:
    """The options of the jobs with these keys: None without any, empty where they are too long.

    Raises RedisUnavailable.
    """
    lengths = expected(await redis.pipeline([(b"HSTRLEN", job, b"opts") for job in jobs]), int)
    # What is not a hash has no length.
    sizes = [length if isinstance(length, int) else 0 for length in lengths]
    short = [job for job, size in zip(jobs, sizes, strict=True) if 0 < size <= MAX_OPTIONS_BYTES]
    answers = await redis.pipeline([(b"HGET", job, b"opts") for job in short])
    expected(answers, bytes, type(None))
    options = {
        job: answer for job, answer in zip(short, answers, strict=True) if isinstance(answer, bytes)
    }
    return [
        b"" if size > MAX_OPTIONS_BYTES else options.get(job)
        for job, size in zip(jobs, sizes, strict=True)
    ]
