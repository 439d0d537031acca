"""A connection to Redis or Valkey that only reads, and that fails in time and in words."""

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
# How much of an error's text is repeated.
MAX_REASON = 200

log = logging.getLogger(__name__)


class RedisUnavailable(StoreUnavailable):
    """Redis did not answer."""

    public = "Redis cannot be reached"


class RedisRefused(RedisUnavailable, StoreRefused):
    """Redis answered, and will not do it: wrong credentials, a missing permission or command."""


class InvalidReply(RedisUnavailable, StoreInvalidReply):
    """Redis answered with something else than what was asked for."""

    public = "Redis sent an invalid reply"


class NoConnection(RedisUnavailable):
    """All connections were in use by other calls, which Redis answered."""

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
    """The answers. Raises TypeError where one is of another type: that of no server."""
    for answer in answers:
        if not isinstance(answer, (*types, Exception)):
            raise TypeError(f"{str(answer)[:40]!r} is not of the expected type")
    return answers


def readable(answers: Sequence[Any]) -> Sequence[Any]:
    """The answers of a pipeline. Raises RedisRefused where Redis would not read.

    A key of another type is not its refusal: whoever asked sees that there is nothing of its kind.
    """
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise RedisRefused(f"Redis refused to read: {str(answer)[:MAX_REASON]}")
    return answers


def mapped(answer: Mapping[bytes, Any] | Sequence[Any]) -> Mapping[bytes, Any]:
    """Keys and values: a map in RESP3, a flat list in RESP2."""
    if isinstance(answer, Mapping):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))


def scored(answer: Sequence[Any]) -> list[tuple[bytes, bytes]]:
    """Members and scores, as Redis writes these in RESP2; in RESP3 they are numbers in pairs."""
    if answer and isinstance(answer[0], list):
        return [
            (member, b"%d" % score if score.is_integer() and abs(score) < 1e17 else b"%a" % score)
            for member, score in answer
        ]
    return list(zip(answer[::2], answer[1::2], strict=True))


def packed(command: Command) -> bytes:
    """A command as it is sent. In redis-py, which does it in Python, it takes ten times as long."""
    words: Any = tuple(command)  # hiredis's own types know of one word alone
    return bytes(hiredis.pack_command(words))


def packed_word(word: bytes) -> bytes:
    """One word of a command as it is sent."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


class Script:
    """A Lua script, and the hash that EVALSHA knows it by."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisReader:
    """Sends read commands. Every call ends within `settings.timeout` seconds.

    `connections` is how many may be open at once; a further call waits its turn within its time.
    `slot`: which slot of a cluster all keys are in; None where there is no cluster. `max_bytes`
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
        self._answered = -math.inf  # monotonic, the last time
        self._credentials = Credentials(settings)
        self._pool = pool(settings, self._credentials, connections=connections, slot=slot)
        # Who waits for a connection gets it in turn. redis-py's pool that waits gives it to whoever
        # asks next: of 50 clients some waited seven times as long as most.
        self._turn = asyncio.Semaphore(connections)

    async def close(self) -> None:
        await self._pool.disconnect()

    async def command(self, *command: bytes | str | int) -> Any:
        """One command's answer. Raises RedisUnavailable."""
        return await self._call(lambda: self._one(command))

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The answers in order, in one round trip; one that failed is the exception itself.

        No command is no round trip. Raises RedisUnavailable.
        """
        if not commands:
            return []
        return await self.packed(b"".join(map(packed, commands)), len(commands))

    async def packed(
        self, commands: bytes, number: int, *, unknown_size: bool = False
    ) -> list[Any]:
        """The answers to so many packed commands; one that failed is the exception itself.

        `unknown_size`: how large the answers are is not known before. Then the time limit holds for
        each piece of them (and ten times as much for all), at most MAX_REPLY_BYTES are read, and
        what cannot be had whole is not asked for again.

        Raises RedisUnavailable, ReplyIncomplete among it where the size is unknown.
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
        """The answers as the server gives them: what redis-py makes of them costs time, and differs
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
                    raise  # the same again would end in the same way
                # The server may have closed it in the meantime.
                await connection.disconnect()
                await connection.connect()
                return list(await connection.exchange(commands, number, arrived, size))
        except BaseException:
            # What was not read of the answers would be taken for those to the next commands.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def run(self, script: Script, keys: Sequence[bytes], args: Command = ()) -> Any:
        """A script's answer. Raises RedisUnavailable.

        EVALSHA_RO where the server has it (Redis 7.0, Valkey), else EVALSHA. A server that does
        not know the script yet is given its source with the call: no SCRIPT LOAD, no permission
        for one.
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
        """A connection for what is no command and its answer; see `close_connection`.

        Raises RedisUnavailable.
        """
        return await self._call(self._pool.get_connection)

    async def close_connection(self, connection: Any) -> None:
        """Close a connection that `open_connection` has opened, whatever is under way on it."""
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    async def _call(
        self, operation: Callable[[], Awaitable[Any]], arriving: _Arriving | None = None
    ) -> Any:
        """The operation within its time, and all errors as ours."""
        timeout = self._settings.timeout
        began, waited = time.monotonic(), timeout
        try:
            async with asyncio.timeout(timeout) as limit:
                if arriving is not None:
                    arriving.begin(limit)
                async with self._turn:
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
            # What a server says before it takes commands: HELLO, CLUSTER SLOTS.
            raise self._invalid(error) from error
        self._answered = time.monotonic()
        return answer

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Raises InvalidReply for any error in what makes something of answers.

        No answer of a server is trusted to have the form that was asked for, and not all of it can
        be checked where it arrives.
        """
        try:
            yield
        except (RedisUnavailable, TimeoutError):
            raise
        except Exception as error:
            raise self._invalid(error) from error

    async def _where_its_slot_is(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        """The operation; once more where its slot has moved to another node."""
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
        # Several addresses of one host may each have failed in their own way.
        codes = dict.fromkeys(int(code) for code in re.findall(r"Err(?:no|or) (\d+)\b", text))
        reasons = [part.strerror for part in chain if isinstance(part, OSError) and part.strerror]
        # Without a word of the system redis-py's own: what it says last, not what led to it.
        reason = ", ".join(map(os.strerror, codes)) or (reasons or [str(error)])[0]
        connected = codes.keys() <= {errno.ECONNRESET, errno.EPIPE} and not any(
            isinstance(part, socket.gaierror | UnicodeError) for part in chain
        )
        hint = self._tls_hint() if connected else ""
        return (
            f"{where} cannot be reached: {reason}{hint}{problem}; see {settings.names_of('host')}"
        )

    def _tls_hint(self) -> str:
        """A server that is spoken to in the wrong way hangs up, or waits for more."""
        settings = self._settings
        if self._answered > -math.inf:
            return ""
        if settings.tls:
            return f"; if it does not use TLS, set {settings.names_of('tls')} to false"
        return f"; if it requires TLS, set {settings.names_of('tls')} to true"


def _in_brackets(problem: str | None) -> str:
    return f" ({problem})" if problem else ""
