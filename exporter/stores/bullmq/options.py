"""Reads fields of jobs that may have any length, such as their options."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.stores.redis.client import RedisReader, expected

# Longer options are not read. Parsing 20 MB in a script blocked Redis 7.0 for half a second.
MAX_OPTIONS_BYTES = 16 * 1024


async def read_options(redis: RedisReader, jobs: Sequence[bytes]) -> list[bytes | None]:
    """The options of the jobs with these keys: None if there are none, empty if they are too long.

    Raises RedisUnavailable.
    """
    return await read_field(redis, jobs, b"opts", MAX_OPTIONS_BYTES)


async def read_field(
    redis: RedisReader, jobs: Sequence[bytes], field: bytes, max_bytes: int
) -> list[bytes | None]:
    """This field of the jobs with these keys: None if there is none, empty if it is too long.

    Raises RedisUnavailable.
    """
    lengths = expected(await redis.pipeline([(b"HSTRLEN", job, field) for job in jobs]), int)
    # A key that is not a hash has no length.
    sizes = [length if isinstance(length, int) else 0 for length in lengths]
    short = [job for job, size in zip(jobs, sizes, strict=True) if 0 < size <= max_bytes]
    answers = await redis.pipeline([(b"HGET", job, field) for job in short])
    expected(answers, bytes, type(None))
    values = {
        job: answer for job, answer in zip(short, answers, strict=True) if isinstance(answer, bytes)
    }
    return [
        b"" if size > max_bytes else values.get(job) for job, size in zip(jobs, sizes, strict=True)
    ]
