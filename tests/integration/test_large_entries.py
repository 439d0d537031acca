"""Events that are larger than a reply may be, slower than it may take, or cut off on their way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.tallies import Count, Layout, Tallies
from exporter.queues.tracked_jobs import JobBudget
from exporter.settings import RedisSettings
from exporter.stores.bullmq.events import large_entries
from exporter.stores.bullmq.events.large_entries import LargeEntries
from exporter.stores.bullmq.keys import events_key
from exporter.stores.redis.client import RedisReader, RedisUnavailable
from exporter.stores.redis.partial_reply import first_items
from tests.support.following import KEY, QUEUE, START, count, followed, quick, write
from tests.support.proxy import Proxy
from tests.support.servers import Server

__all__ = ["quick"]  # its checks follow one another without a rest

ADD = """for i = 1, ARGV[1] do
  redis.call('XADD', KEYS[1], '*', 'event', ARGV[3], 'jobId', 'large-' .. i,
    ARGV[4], string.rep('x', ARGV[2]), 'prev', 'active')
end"""


def add_large(
    client: Any,
    number: int,
    size: int,
    *,
    queue: Queue = QUEUE,
    event: str = "completed",
    key: str = "returnvalue",
) -> None:
    client.eval(ADD, 1, events_key(queue), number, size, event, key)


def ended(tallies: Tallies, what: Count = Count.COMPLETED, queue: Queue = QUEUE) -> int:
    return sum(each.values[what] for each in tallies.queues[queue].by_name.values())


BEGIN = "replies with events are too large or too slow: reading them without return values"
END = "events whose replies were too large or too slow have been read"


async def followed_before(server: Server, path: Path) -> None:
    """What follows is unread when an exporter with this state file starts."""
    with server.client(socket_timeout=60) as client:
        async with followed(server.port, state_file=path) as until:
            fields = {"event": "added", "jobId": "before", "name": "import"}
            client.xadd(KEY, fields, id=f"{START}-0")
            await until(lambda now: count(now, Count.ADDED) == 1)


async def test_large_events_behind_a_slow_link_are_counted(
    any_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with any_server.client(socket_timeout=60) as client, Proxy(any_server.port) as proxy:
        client.flushall()
        await followed_before(any_server, tmp_path / "state")
        add_large(client, 10, 4_000_000)
        proxy.rate = 10e6
        async with followed(proxy.port, state_file=tmp_path / "state") as until:
            tallies = await until(lambda now: ended(now) == 10)
            await until(lambda _: caplog.text.count(END) == 1)
    assert tallies.queues[QUEUE].missed == 0
    assert caplog.text.count(BEGIN) == 1
    # One reply that is given up at 16 MB, with what is on its way by then.
    assert proxy.passed < 24e6


async def test_large_events_of_many_queues_are_counted(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    queues = [Queue.named("bull", f"queue-{number}") for number in range(20)]
    with server.client(socket_timeout=60) as client, Proxy(server.port) as proxy:
        async with followed(server.port, *queues, state_file=path):
            pass
        for queue in queues:
            add_large(client, 2, 2_000_000, queue=queue)
        async with followed(proxy.port, *queues, state_file=path) as until:
            tallies = await until(lambda now: all(ended(now, queue=each) == 2 for each in queues))
    assert {tallies.queues[each].missed for each in queues} == {0}
    assert caplog.text.count(BEGIN) == 1
    assert proxy.passed < 24e6


NO_SCRIPTS = ("ACL", "SETUSER", "default", "-eval", "-evalsha", "-eval_ro", "-evalsha_ro")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_events_whose_replies_are_cut_off_are_counted(
    own_server: Server, tmp_path: Path, scripts: bool
) -> None:
    with own_server.client(socket_timeout=60) as client, Proxy(own_server.port) as proxy:
        await followed_before(own_server, tmp_path / "state")
        add_large(client, 5, 300_000)
        add_large(client, 1, 300_000, event="failed", key="failedReason")
        write(client, 10**9, "added", "after", name="import")
        if not scripts:
            client.execute_command(*NO_SCRIPTS)
        proxy.most = 100_000
        async with followed(proxy.port, state_file=tmp_path / "state") as until:
            tallies = await until(lambda now: count(now, Count.ADDED) == 2)
        assert ended(tallies) == 5
        assert ended(tallies, Count.FAILED) == 1
        assert tallies.queues[QUEUE].missed == 0


async def test_an_event_that_cannot_be_had_is_missed_and_those_after_it_are_read(
    own_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by a script, nor from the beginning of the reply, which does not reach its job."""
    with own_server.client(socket_timeout=60) as client, Proxy(own_server.port) as proxy:
        await followed_before(own_server, tmp_path / "state")
        client.eval(
            "redis.call('XADD', KEYS[1], '*', 'event', string.rep('x', 300000), 'jobId', '1')",
            *(1, KEY),
        )
        write(client, 10**9, "added", "after", name="import")
        client.execute_command(*NO_SCRIPTS)
        proxy.most = 100_000
        async with followed(proxy.port, state_file=tmp_path / "state") as until:
            tallies = await until(lambda now: count(now, Count.ADDED) == 2)
    assert tallies.queues[QUEUE].missed == 1
    assert caplog.text.count("an event cannot be read: skipped") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "waiting", "jobId": "1", "prev": "failed"},
        {"event": "added", "jobId": "1", "name": "import"},
        {"event": "completed", "jobId": "1", "returnvalue": "null", "prev": "active"},
        {"event": "drained"},
    ],
    ids=lambda fields: fields["event"],
)
async def test_a_reply_that_is_cut_anywhere_is_no_end_of_the_stream_and_no_event_without_its_rest(
    own_server: Server, fields: dict[str, str]
) -> None:
    """Where scripts are refused, entries are read from the beginnings of replies."""
    with own_server.client() as client, Proxy(own_server.port) as proxy:
        before = client.xadd(KEY, {"event": "drained"})
        added = client.xadd(KEY, fields)
        client.execute_command(*NO_SCRIPTS)
        counter = QueueEventCounter(
            QUEUE, Layout((1,), (1,)), JobBudget(1), max_names=1, stream=events_key(QUEUE)
        )
        counter.cursor.position = before
        reader = RedisReader(RedisSettings(host="127.0.0.1", port=proxy.port), connections=1)
        large = LargeEntries(reader)
        info = (await large.read([counter], {counter}, entries=False)).infos[counter]
        words = [word.encode() for item in fields.items() for word in item]
        got: set[int] = set()
        for proxy.most in range(1, 600):
            try:
                reading = await large.read([counter], {counter})
            except RedisUnavailable:
                continue
            assert reading.infos == {counter: info}
            assert reading.unread == {} and reading.unfinished == {KEY}
            [(entry_id, found)] = reading.entries[KEY]
            assert entry_id == added
            # What is used of a `completed` is there before the end of its return value.
            used = 4 if b"returnvalue" in words else 5 if b"name" in words else len(words)
            assert list(found) == words[: len(found)] and len(found) >= used
            got.add(len(found))
        assert len(words) in got
        await reader.close()


async def test_a_queue_costs_after_large_events_what_it_cost_before(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_entries, "LARGE_TTL_SECONDS", 0.3)

    async def cost(client: Any) -> tuple[set[str], float]:
        """The commands of a while, and how many bytes Redis sent for each."""
        client.config_resetstat()
        await asyncio.sleep(1)
        calls = {
            name.removeprefix("cmdstat_"): each["calls"]
            for name, each in client.info("commandstats").items()
        }
        sent = client.info("stats")["total_net_output_bytes"]
        return set(calls) - {"config|resetstat", "info"}, sent / sum(calls.values())

    with server.client(socket_timeout=60) as client:
        async with followed(server.port) as until:
            write(client, -1_000_000, "added", "1", name="import")
            await until(lambda now: count(now, Count.ADDED) == 1)
            before, _ = await cost(client)
            add_large(client, 3, 3_000_000)
            await until(lambda now: ended(now) == 3)
            await asyncio.sleep(0.5)
            after, sent = await cost(client)
            # The check asks for the length alone: XINFO would send two of those entries.
            assert before - {"exists", "hmget"} == {"xread", "xinfo|stream"}
            assert after - {"exists", "hmget"} == {"xread", "evalsha_ro", "xlen", "xrange"}
            assert sent < 10_000
            # And what is small is read in large batches again.
            pipeline = client.pipeline(transaction=False)
            for number in range(5000):
                pipeline.xadd(KEY, {"event": "added", "jobId": str(number), "name": "import"})
            pipeline.execute()
            client.config_resetstat()
            await until(lambda now: count(now, Count.ADDED) == 5001)
            assert client.info("commandstats")["cmdstat_xread"]["calls"] < 100


async def test_while_jobs_return_much_none_of_it_is_sent(server: Server) -> None:
    with server.client(socket_timeout=60) as client, Proxy(server.port) as proxy:
        async with followed(proxy.port) as until:
            add_large(client, 1, 1_000_000)
            await until(lambda now: ended(now) == 1)
            proxy.passed = 0
            for number in range(2, 12):
                add_large(client, 1, 1_000_000)
                await until(lambda now, number=number: ended(now) == number)
    assert proxy.passed < 1_000_000


async def test_a_start_beside_large_events_sends_them_to_nobody(server: Server) -> None:
    queues = [Queue.named("bull", f"queue-{number}") for number in range(12)]
    with server.client(socket_timeout=60) as client, Proxy(server.port) as proxy:
        for queue in queues:
            add_large(client, 1, 2_000_000, queue=queue)
        async with followed(proxy.port, *queues) as until:
            for queue in queues:
                client.xadd(events_key(queue), {"event": "added", "jobId": "1", "name": "import"})
            await until(
                lambda now: all(ended(now, Count.ADDED, queue=each) == 1 for each in queues)
            )
            assert proxy.passed < 24e6


async def test_no_stream_waits_forever_where_there_is_more_to_read_than_time(
    server: Server,
) -> None:
    """Nor one that is only checked here, since all that is large in it was read long ago."""
    queues = [Queue.named("bull", name) for name in ("busy", "busier", "checked", "new")]
    counters = [
        QueueEventCounter(
            each, Layout((1,), (1,)), JobBudget(1), max_names=1, stream=events_key(each)
        )
        for each in queues
    ]
    busy, busier, checked, new = counters
    reader = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
    large = LargeEntries(reader)
    entry = (b"1-0", [b"event", b"completed", b"jobId", b"1", b"returnvalue", b"x" * 100_000])
    for each in (busy, busier):
        large.note_entries(each.stream, [entry])
        large.note_info(each.stream, 0, 0)
    large.note_info(checked.stream, 0, 100_000)
    order = []
    for turn in range(8):
        if turn == 3:
            large.suspect({new.stream})
        # There is time for one of them alone.
        [counter, *_] = large.in_turn(counters)
        reading = await large.read([counter], {checked}, entries=counter is not checked)
        assert reading.counters == [counter]
        order.append(counter)
    assert set(order[:3]) == {busy, busier, checked}
    # One that joins waits for those that were there, and no longer.
    assert order[3:6] == order[:3] and order[6] is new
    await reader.close()


def test_the_items_at_the_beginning_of_a_reply_are_those_that_are_whole() -> None:
    reply = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n5-0\r\n*2\r\n$1\r\na\r\n$9\r\nbbbbbbbbb\r\n"
    whole = [[b"s", [[b"5-0", [b"a", b"bbbbbbbbb"]]]]]
    assert first_items(reply) == whole
    for at in range(len(reply)):
        assert str(first_items(reply[:at])).strip("[]") in str(whole)
    assert first_items(reply[:-5]) == [[b"s", [[b"5-0", [b"a"]]]]]
    in_resp3 = b"%2\r\n$6\r\nlength\r\n:7\r\n$5\r\nfirst\r\n_\r\n"
    assert first_items(in_resp3) == [b"length", 7, b"first", None]
    assert first_items(in_resp3[:-3]) == [b"length", 7, b"first"]
    assert first_items(b"$-1\r\n") == []
