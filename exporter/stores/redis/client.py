"""A connection to Redis or Valkey that only reads, and whose failures are bounded in time and
explained.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import math
import os
import re
import socket
import ssl
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hiredis
from redis import exceptions

from exporter.queues.errors import StoreInvalidReply, StoreRefused, StoreUnavailable
from exporter.settings import RedisSettings
from exporter.stores.redis.connections import MAX_REPLIES_BYTES, ConnectionCut, pool
from exporter.stores.redis.credentials import Credentials

Command = Sequence[bytes | str | int]

# Maximum size of a reply of unknown size in bytes. hiredis holds a second copy while it parses, so
# one reply takes at most twice as much memory.
MAX_REPLY_BYTES = 16 << 20
# Bytes of the beginning of such a reply that are kept in case its end does not arrive.
REPLY_HEAD_BYTES = 1 << 16
# The total time limit of such a reply while data keeps arriving, in multiples of `redis.timeout`.
MAX_REPLY_TIMEOUTS = 10
# Maximum length of an error's text that is repeated.
MAX_REASON = 200

log = logging.getLogger(__name__)


class RedisUnavailable(StoreUnavailable):
    """Redis did not answer."""

    public = "Redis cannot be reached"


class RedisRefused(RedisUnavailable, StoreRefused):
    """Redis refused: wrong credentials, a missing permission or command."""


class InvalidReply(RedisUnavailable, StoreInvalidReply):
    """Redis answered with something other than what was requested."""

    public = "Redis sent an invalid reply"


class NoConnection(RedisUnavailable):
    """All connections were in use by other calls, while Redis did answer."""

    public = "Too many requests at the same time; try again in a few seconds"


class ReplyIncomplete(RedisUnavailable):
    """A reply arrived only in part: it is too large, takes too long, or the connection was cut.
    `head` is its beginning.
    """

    def __init__(self, message: str, head: bytes) -> None:
        super().__init__(message)
        self.head = head


class _ReplyTooLarge(Exception):
    pass


class _Arriving:
    """A reply of unknown size as it arrives: its time limit restarts with each piece."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._limit: asyncio.Timeout | None = None
        self._deadline = 0.0
        self.size = 0
        self.head = b""

    def begin(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._deadline = asyncio.get_running_loop().time() + MAX_REPLY_TIMEOUTS * self._timeout

    def take(self, piece: bytes) -> None:
        """Note a piece that has arrived. Raises _ReplyTooLarge."""
        assert self._limit is not None
        self.size += len(piece)
        if self.size > MAX_REPLY_BYTES:
            raise _ReplyTooLarge
        if len(self.head) < REPLY_HEAD_BYTES:
            self.head += piece[: REPLY_HEAD_BYTES - len(self.head)]
        now = asyncio.get_running_loop().time()
        self._limit.reschedule(min(now + self._timeout, self._deadline))

    def is_incomplete(self, error: Exception) -> bool:
        """Whether this error cut the reply off."""
        return self.size > 0 and isinstance(error, OSError | ConnectionCut | _ReplyTooLarge)


def expected(answers: Sequence[Any], *types: type) -> Sequence[Any]:
    """Return the answers. Raises TypeError if one is of another type, which no server sends."""
    for answer in answers:
        if not isinstance(answer, (*types, Exception)):
            raise TypeError(f"{str(answer)[:40]!r} is not of the expected type")
    return answers


def readable(answers: Sequence[Any]) -> Sequence[Any]:
    """Return the answers of a pipeline. Raises RedisRefused if Redis refused a command.

    A key of the wrong type is not a refusal: the caller treats it like a missing key.
    """
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise RedisRefused(f"Redis refused to read: {str(answer)[:MAX_REASON]}")
    return answers


def mapped(answer: Mapping[bytes, Any] | Sequence[Any]) -> Mapping[bytes, Any]:
    """Convert keys and values: a map in RESP3, a flat list in RESP2."""
    if isinstance(answer, Mapping):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))


def scored(answer: Sequence[Any]) -> list[tuple[bytes, bytes]]:
    """Pairs of members and scores, with scores as text as in RESP2; in RESP3 they are numbers."""
    if answer and isinstance(answer[0], list):
        return [
            (member, b"%d" % score if score.is_integer() and abs(score) < 1e17 else b"%a" % score)
            for member, score in answer
        ]
    return list(zip(answer[::2], answer[1::2], strict=True))


def packed(command: Command) -> bytes:
    """A command as it is sent. redis-py, which packs in Python, takes ten times as long."""
    words: Any = tuple(command)  # hiredis's own types allow only one word
    return bytes(hiredis.pack_command(words))


def escaped_glob(text: str) -> str:
    """A pattern, as SCAN and PSUBSCRIBE take it, that matches this text alone."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def packed_word(word: bytes) -> bytes:
    """One word of a command as it is sent."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


class Script:
    """A Lua script with its hash for EVALSHA."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisReader:
    """Sends read commands. Every call ends within `settings.timeout` seconds.

    `connections` is how many may be open at once; a further call waits for one within its time
    limit. `slot` is the cluster's slot that all keys are in; None without a cluster. `max_bytes`
    bounds the replies of a call.
    """

    def __init__(
        self,
        settings: RedisSettings,
        *,
        connections: int,
        slot: int | None = None,
        max_bytes: int = MAX_REPLIES_BYTES,
    ) -> None:
        self._settings = settings
        self.slot = slot
        self._max_bytes = max_bytes
        self._read_only_scripts = True
        self._answered = -math.inf  # when Redis last answered, monotonic
        self._credentials = Credentials(settings)
        self._pool = pool(settings, self._credentials, connections=connections, slot=slot)
        # Callers get a connection in the order in which they wait. redis-py's
        # BlockingConnectionPool does not keep the order: of 50 clients some waited seven times as
        # long as most.
        self._free_connections = asyncio.Semaphore(connections)

    async def close(self) -> None:
        await self._pool.disconnect()

    async def command(self, *command: bytes | str | int) -> Any:
        """One command's answer. Raises RedisUnavailable."""
        return await self._call(lambda: self._one(command))

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers in order, in one round trip; a failed command's answer is its
        exception.

        Without commands there is no round trip. Raises RedisUnavailable.
        """
        if not commands:
            return []
        return await self.packed(b"".join(map(packed, commands)), len(commands))

    async def packed(
        self, commands: bytes, number: int, *, unknown_size: bool = False
    ) -> list[Any]:
        """Return the answers to `number` packed commands; a failed command's answer is its
        exception.

        `unknown_size`: the size of the answers is not known in advance. Then the time limit applies
        to each piece of them (and ten times the limit to all), at most MAX_REPLY_BYTES are read,
        and an incomplete answer is not requested again.

        Raises RedisUnavailable, including ReplyIncomplete if the size is unknown.
        """
        arriving = _Arriving(self._settings.timeout) if unknown_size else None
        answers: list[Any] = await self._call(
            lambda: self._exchange(commands, number, arriving), arriving
        )
        return answers

    async def _one(self, command: Command) -> Any:
        (answer,) = await self._exchange(packed(command), 1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _exchange(
        self, commands: bytes, number: int, arriving: _Arriving | None = None
    ) -> list[Any]:
        """The answers as the server sends them: redis-py's conversions cost time, and differ
        between RESP2 and RESP3.
        """
        connection = await self._pool.get_connection()
        return await self._exchange_on(connection, commands, number, arriving)

    async def _exchange_on(
        self, connection: Any, commands: bytes, number: int, arriving: _Arriving | None
    ) -> list[Any]:
        arrived = arriving.take if arriving is not None else None
        size = self._max_bytes
        try:
            try:
                return list(await connection.exchange(commands, number, arrived, size))
            except (exceptions.ConnectionError, OSError) as error:
                if arriving is not None and arriving.is_incomplete(error):
                    raise  # another try would end in the same way
                # The server may have closed it in the meantime.
                await connection.disconnect()
                await connection.connect()
                return list(await connection.exchange(commands, number, arrived, size))
        except BaseException:
            # Unread answers would be taken for those to the next commands.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def run(self, script: Script, keys: Sequence[bytes], args: Command = ()) -> Any:
        """A script's answer. Raises RedisUnavailable.

        EVALSHA_RO if the server has it (Redis 7.0, Valkey), else EVALSHA. If the server does not
        know the script yet, the source is sent with the call (EVAL), so SCRIPT LOAD and the
        permission for it are not needed.
        """

        async def evaluated() -> Any:
            if self._read_only_scripts:
                try:
                    return await self._evaluate("_RO", script, keys, args)
                except exceptions.ResponseError as error:
                    if "unknown command" not in str(error).lower():
                        raise
                    self._read_only_scripts = False
            return await self._evaluate("", script, keys, args)

        return await self._call(evaluated)

    async def open_connection(self) -> Any:
        """A connection for more than commands and their answers; see `close_connection`.

        Raises RedisUnavailable.
        """
        return await self._call(self._pool.get_connection)

    async def close_connection(self, connection: Any) -> None:
        """Close a connection from `open_connection`, even in the middle of a reply."""
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    async def _call(
        self, operation: Callable[[], Awaitable[Any]], arriving: _Arriving | None = None
    ) -> Any:
        """Run the operation within its time limit, and convert all errors to ours."""
        timeout = self._settings.timeout
        began, waited = time.monotonic(), timeout
        try:
            async with asyncio.timeout(timeout) as limit:
                if arriving is not None:
                    arriving.begin(limit)
                async with self._free_connections:
                    waited = time.monotonic() - began
                    answer = await self._where_its_slot_is(operation)
        except (
            *(TimeoutError, exceptions.RedisError, OSError, EOFError, UnicodeError),
            _ReplyTooLarge,
        ) as error:
            if arriving is not None and arriving.is_incomplete(error):
                raise ReplyIncomplete(self._cut_off(error, arriving.size), arriving.head) from None
            if isinstance(error, TimeoutError) and waited > timeout / 2 and self._answered > began:
                raise NoConnection(
                    f"all connections to Redis at {self._settings.address} were in use for "
                    f"{waited:.1f} s"
                ) from None
            raise self.explained(error) from None
        except Exception as error:
            # An invalid reply to what redis-py sends before commands: HELLO, CLUSTER SLOTS.
            raise self._invalid(error) from error
        self._answered = time.monotonic()
        return answer

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Raises InvalidReply for any error in code that interprets answers.

        No server is trusted to answer in the expected form, and not everything can be checked on
        arrival.
        """
        try:
            yield
        except (RedisUnavailable, TimeoutError):
            raise
        except Exception as error:
            raise self._invalid(error) from error

    async def _where_its_slot_is(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        """Run the operation, and once more if its slot has moved to another node."""
        try:
            return await operation()
        except exceptions.MovedError:
            if self.slot is None:
                raise
            await self._pool.disconnect(inuse_connections=False)
            return await operation()

    async def _evaluate(
        self, suffix: str, script: Script, keys: Sequence[bytes], args: Command
    ) -> Any:
        rest = (len(keys), *keys, *args)
        try:
            return await self._one((f"EVALSHA{suffix}", script.sha, *rest))
        except exceptions.NoScriptError:
            return await self._one((f"EVAL{suffix}", script.source, *rest))

    def _cut_off(self, error: Exception, size: int) -> str:
        """Why a reply did not arrive whole, in one line."""
        settings = self._settings
        match error:
            case _ReplyTooLarge():
                why = f"the reply is larger than {MAX_REPLY_BYTES >> 20} MiB"
            case TimeoutError():
                why = (
                    f"only {size:,} bytes of the reply arrived in time; "
                    f"see {settings.names_of('timeout')}"
                )
            case _:
                why = f"the connection was cut after {size:,} bytes of the reply"
        return f"Redis at {settings.address}: {why}"

    def explained(self, error: Exception) -> RedisUnavailable:
        """What went wrong in one line, and the setting to look at."""
        settings, said = self._settings, str(error)[:MAX_REASON]
        where = f"Redis at {settings.address}"
        credentials = f"{settings.names_of('user')} and {settings.names_of('password')}"
        match error:
            case exceptions.InvalidResponse():
                return self._invalid(error)
            case TimeoutError() | exceptions.TimeoutError():
                hint = self._tls_hint() if settings.tls else ""
                problem = _in_brackets(self._credentials.tls_problem)
                return RedisUnavailable(
                    f"{where} did not answer within {settings.timeout:g} s{hint}{problem}; "
                    f"see {settings.names_of('host')}"
                )
            case exceptions.AuthenticationError() | exceptions.AuthorizationError():
                if settings.password is None:
                    return RedisRefused(f"{where} requires a password; see {credentials}")
                problem = _in_brackets(self._credentials.password_problem)
                return RedisRefused(
                    f"{where} refused the credentials ({said}){problem}; see {credentials}"
                )
            case exceptions.NoPermissionError():
                user = settings.user or "default"
                return RedisRefused(
                    f"{where} does not let user {user!r} read ({said}); see "
                    f"{settings.names_of('user')}, the README has the ACL line"
                )
            case exceptions.MovedError() if self.slot is None:
                return RedisRefused(
                    f"{where} is a node of a cluster; set {settings.names_of('cluster')} to true"
                )
            case exceptions.ResponseError():
                see = f"; see {settings.names_of('db')}" if "DB index" in str(error) else ""
                return RedisRefused(f"{where} refused: {said}{see}")
        return RedisUnavailable(self._unreachable(where, error))

    def _invalid(self, error: Exception) -> InvalidReply:
        """An InvalidReply that says where in this program it was found."""
        log.debug("an invalid reply", exc_info=error)
        at = "".join(
            f", {Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)[-1:]
        )
        settings = self._settings
        return InvalidReply(
            f"Redis at {settings.address} sent an invalid reply ({type(error).__name__}: "
            f"{str(error)[:MAX_REASON]}{at}); see {settings.names_of('host')}"
        )

    def _unreachable(self, where: str, error: BaseException) -> str:
        settings = self._settings
        chain, cause = [], error
        while cause is not None:
            chain.append(cause)
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        text = " ".join(str(part) for part in chain)
        problem = _in_brackets(self._credentials.tls_problem)
        if settings.tls and any(isinstance(part, ssl.SSLError) for part in chain):
            if any(isinstance(part, ssl.SSLCertVerificationError) for part in chain):
                return (
                    f"{where}: its certificate was not accepted{problem}; see "
                    f"{settings.names_of('tls_ca')} and {settings.names_of('tls_verify')}"
                )
            return f"{where} does not use TLS{problem}; see {settings.names_of('tls')}"
        # Each of several addresses of a host may have failed in a different way.
        codes = dict.fromkeys(int(code) for code in re.findall(r"Err(?:no|or) (\d+)\b", text))
        reasons = [part.strerror for part in chain if isinstance(part, OSError) and part.strerror]
        # If the system gives no reason, redis-py's own: the last part of its message, not what led
        # to it.
        reason = ", ".join(map(os.strerror, codes)) or (reasons or [str(error)])[0]
        connected = codes.keys() <= {errno.ECONNRESET, errno.EPIPE} and not any(
            isinstance(part, socket.gaierror | UnicodeError) for part in chain
        )
        hint = self._tls_hint() if connected else ""
        return (
            f"{where} cannot be reached: {reason}{hint}{problem}; see {settings.names_of('host')}"
        )

    def _tls_hint(self) -> str:
        """With TLS on only one side a server closes the connection, or waits for more."""
        settings = self._settings
        if self._answered > -math.inf:
            return ""
        if settings.tls:
            return f"; if it does not use TLS, set {settings.names_of('tls')} to false"
        return f"; if it requires TLS, set {settings.names_of('tls')} to true"


def _in_brackets(problem: str | None) -> str:
    return f" ({problem})" if problem else ""
