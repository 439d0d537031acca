"""The state file: damaged, shared, on a file system that stalls or is full."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.deadline import Deadline
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.tallies import Count, Layout
from exporter.queues.tracked_jobs import JobBudget
from exporter.state import state_file, state_format
from exporter.state.state_file import StateFile
from exporter.state.state_format import NOTHING_SAVED, QUEUES
from exporter.stores.bullmq.keys import events_key
from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.following import START, count, followed, write
from tests.support.programs import needs_root
from tests.support.servers import Server
from tests.support.waiting import eventually

QUEUE = Queue.named("bull", "ingestion")
LAYOUT = Layout((50, 100), (5, 20))
LAST_SAVE = "bullmq_exporter_last_save_timestamp_seconds"
SAVE_ERRORS = "bullmq_exporter_save_errors_total"
CANNOT_BE_USED = "the state file cannot be used: counters start over"
CANNOT_BE_WRITTEN = "the state file cannot be written"


def entries(*events: tuple[str, str]) -> list[tuple[bytes, list[bytes]]]:
    return [
        (
            b"%d-0" % (START + 40 * number),
            [b"event", event.encode(), b"jobId", job_id.encode(), b"name", b"import"],
        )
        for number, (event, job_id) in enumerate(events)
    ]


def real_memory() -> dict[str, Any]:
    """What a follower saves of a queue on which everything has happened once."""
    room = JobBudget(10)
    counter = QueueEventCounter(QUEUE, LAYOUT, room, max_names=10)
    happened = [("added", "1"), ("waiting", "1"), ("active", "1"), ("failed", "1")]
    happened += [("added", "2"), ("waiting", "2"), ("active", "2"), ("completed", "2")]
    happened += [
        ("added", "3"),
        ("waiting", "3"),
        ("added", "4"),
        ("waiting", "4"),
        ("active", "4"),
    ]
    counter.read(entries(*happened))
    counter.cursor.advance(entries(*happened))
    counter.note_check()
    return {
        "saved": START,
        "searched": START - 5,
        "removed": (1, 2),
        "bounds": LAYOUT.bounds,
        QUEUES: {QUEUE.base: counter.memory()},
    }


DATA = b"".join(state_format.encode(real_memory()))
OLDER = state_format.encode(real_memory())[1]  # before there was a checksum


# Damage


def decoded(data: bytes) -> Any:
    """What is read; None where it is refused, as StateFile.load refuses it."""
    try:
        return state_format.decode(data, LAYOUT)
    except Exception:
        return None


def test_a_file_with_a_flipped_bit_or_a_part_of_one_is_refused() -> None:
    assert decoded(DATA).queues[QUEUE.base]["tallies"]["import"][: len(Count)] == (
        *(4, 1, 1),
        *[0] * (len(Count) - 3),
    )
    for place in range(len(DATA)):
        for bit in range(8):
            damaged = bytearray(DATA)
            damaged[place] ^= 1 << bit
            assert decoded(bytes(damaged)) is None, (place, bit)
        assert decoded(DATA[:place]) is None, place
    assert decoded(DATA + b"\0") is None


@given(st.data())
def test_a_file_with_damage_of_any_kind_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(DATA) - 1))
    end = data.draw(st.integers(start + 1, len(DATA)))
    damaged = DATA[:start] + data.draw(st.binary(max_size=50)) + DATA[end:]
    assert damaged == DATA or decoded(damaged) is None


def use(saved: state_format.Saved) -> None:
    """Whatever a follower does with it."""
    for base, memory in saved.queues.items():
        room = JobBudget(10)
        counter = QueueEventCounter(Queue(base, "", ""), LAYOUT, room, max_names=10)
        counter.remember(memory)
        at = int(memory["position"].partition(b"-")[0])
        for event in ("active", "completed", "failed", "waiting", "delayed", "stalled"):
            counter.read([(b"%d-0" % (at + 10), [b"event", event.encode(), b"jobId", b"4"])])
        counter.read([(b"%d-0" % (at + 20), [b"event", b"completed", b"jobId", b"3"])])
        counter.note_check()
        for gap in counter.gaps:
            counter.search_window(gap)
            counter.is_past(gap)
        for job_id in counter.jobs:
            counter.ready_at(job_id, None)
        counter.freeze()
        counter.take_removed()
        state_format.encode({"saved": 0, QUEUES: {base: counter.memory()}})
        counter.put_away()
    saved.removed.plus(saved.removed)


def test_damage_in_a_file_without_a_checksum_ends_nothing_later() -> None:
    """The files of older versions: a damage may change a count, but is never an error later."""
    assert decoded(OLDER) == decoded(DATA)
    read = 0
    for place in range(len(OLDER)):
        flipped = (OLDER[place] ^ 1 << bit for bit in range(8))
        for byte in chain(flipped, (0x00, 0x7F, 0xC0, 0xC3, 0xCB, 0xFF)):
            damaged = bytearray(OLDER)
            damaged[place] = byte
            if saved := decoded(bytes(damaged)):
                read += 1
                use(saved)
    assert read  # there is nothing by which all of it could be found


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "incomplete"),
        (b"no state at all", "ExtraData"),
        (DATA[:-1], "its checksum is wrong: it is damaged or incomplete"),
        (DATA.replace(b"state 3", b"state 4"), "its format is b'4', this version reads 3"),
        (msgpack.packb(real_memory() | {"saved": float("inf")}), "saved: "),
        (msgpack.packb(real_memory() | {"bounds": 1}), "bounds: "),
        (b"\x81" * 2000, "StackError"),
    ],
)
async def test_a_file_that_is_refused_is_kept_once_and_one_line_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes, reason: str
) -> None:
    path, kept = tmp_path / "state", tmp_path / "state.unusable"
    for each in (b"another one", data):
        path.write_bytes(each)
        caplog.clear()
        assert await closed(path) == NOTHING_SAVED
    [record] = caplog.records
    assert record.message == CANNOT_BE_USED
    assert reason in record.__dict__["reason"]
    assert len(record.__dict__["reason"]) < 200 + len(str(path)) + 10
    assert kept.read_bytes() == data
    assert names(tmp_path) == {"state.lock", "state.unusable"}


def names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}


async def closed(path: Path) -> state_format.Saved:
    """What an exporter that starts reads, and ends at once."""
    file = StateFile(path)
    saved = await file.load(LAYOUT)
    await file.close(None)
    return saved


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves are waited for, however slow the disk is."""
    monkeypatch.setattr(state_file, "MAX_SAVE_WAIT_SECONDS", 180.0)
    monkeypatch.setattr(Deadline, "left", lambda _: 180.0)


# A lock


async def test_of_two_on_one_file_the_second_waits_for_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a new pod does while the old one ends: it goes on from what that saved last."""
    path = tmp_path / "state"
    old, new = StateFile(path), StateFile(path)
    assert await old.load(LAYOUT) == NOTHING_SAVED
    loading = asyncio.create_task(new.load(LAYOUT))
    await asyncio.wait({loading}, timeout=1)
    assert not loading.done()
    await old.close(real_memory())
    assert (await loading) == decoded(DATA)
    await new.close(None)
    [record] = caplog.records
    assert record.message == "waiting for the state file: counters are absent"
    assert record.__dict__["reason"] == f"{path}: in use by another process"


async def test_the_second_on_a_file_counts_without_saving_until_the_first_ends(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    caplog.set_level(logging.INFO, "exporter.state.state_file")
    monkeypatch.setattr(state_file, "MAX_START_WAIT_SECONDS", 0.1)
    path = tmp_path / "state"
    first = StateFile(path)
    await first.load(LAYOUT)
    await first.save(real_memory())
    data = path.read_bytes()
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            write(client, 0, "added", name="import")
            tallies = await until(
                lambda now: count(now, Count.ADDED) == 1 and now.saves and now.saves.failed
            )
            assert tallies.saves is not None
            assert tallies.saves.last == 0
            assert path.read_bytes() == data
            await first.close(None)
            await until(lambda now: now.saves and now.saves.last)
        async with followed(server.port, state_file=path) as until:
            await until(lambda now: count(now, Count.ADDED) == 1)
    assert [record.message for record in caplog.records] == [
        "waiting for the state file: counters are absent",
        "the state file cannot be used now: counters start over",
        "the state file is written again",
    ]


def test_two_exporters_on_one_file_are_distinguished_by_one_line(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    work = start_work("bullmq5", server.port)
    path = str(tmp_path / "state")
    first = start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=path)
    work.add("ingestion", "plain", 3)
    eventually(lambda: added(first) == 3)
    second = start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=path)
    [line] = eventually(lambda: second.lines("waiting for the state file: counters are absent"))
    assert line["reason"] == f"{path}: in use by another process"
    # Gauges do not wait for it; counters are absent rather than wrong.
    assert second.metrics.value("bullmq_job_count", queue="ingestion", state="waiting") == 3
    assert second.metrics.value("bullmq_exporter_events_followed") == 0
    assert added(second) is None
    # The lock of a process that is killed is free, too.
    first.process.kill()
    first.process.wait(30)
    work.add("ingestion", "plain", 2)
    eventually(lambda: added(second) == 5)
    assert len(second.lines("waiting for the state file: counters are absent")) == 1
    assert second.terminate() == 0


@pytest.mark.usefixtures("patient")
async def test_a_lock_file_that_is_removed_is_made_and_locked_anew(tmp_path: Path) -> None:
    path, lock = tmp_path / "state", tmp_path / "state.lock"
    first, second = StateFile(path), StateFile(path)
    await first.load(LAYOUT)
    lock.unlink()
    await first.save(real_memory())
    assert first.saves.last
    loading = asyncio.create_task(second.load(LAYOUT))
    await asyncio.wait({loading}, timeout=1)
    assert not loading.done()
    await first.close(None)
    assert (await loading) == decoded(DATA)
    await second.close(None)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("replaced", [False, True])
async def test_who_has_the_new_lock_file_has_the_file_alone(
    replaced: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, lock = tmp_path / "state", tmp_path / "state.lock"
    first, second = StateFile(path), StateFile(path)
    await first.load(LAYOUT)
    await first.save(real_memory())
    if replaced:
        (tmp_path / "other").touch()
        (tmp_path / "other").replace(lock)
    else:
        lock.unlink()
    assert await second.load(LAYOUT) == decoded(DATA)
    newer = real_memory() | {"saved": START + 1}
    await second.save(newer)
    data = path.read_bytes()
    await first.save(real_memory())
    assert first.saves.failed == 1
    assert path.read_bytes() == data
    [record] = caplog.records
    assert record.message == CANNOT_BE_WRITTEN
    assert record.__dict__["reason"] == f"{path}: in use by another process"
    await second.close(None)
    await first.save(real_memory())
    assert first.saves.failed == 1
    assert path.read_bytes() == DATA
    await first.close(None)


@pytest.mark.usefixtures("patient")
async def test_a_lock_file_that_is_removed_while_it_is_locked_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its opening and its locking: another process may have made a new one since."""
    path, lock = tmp_path / "state", tmp_path / "state.lock"
    flock = fcntl.flock

    def remove_and_lock(*arguments: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()
        flock(*arguments)

    file = StateFile(path)
    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    await file.save(real_memory())
    assert file.saves == (0, 1)
    assert not path.exists()
    await file.save(real_memory())
    assert file.saves.last
    await file.close(None)


@contextmanager
def another_user() -> Iterator[None]:
    """This process is not root."""
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that every user may write."""
    needs_root("becomes another user")
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


@pytest.mark.usefixtures("patient")
async def test_a_lock_file_of_another_user_that_may_be_read_is_locked(
    shared_directory: Path,
) -> None:
    """As when the container ran as root before."""
    path = shared_directory / "state"
    await closed(path)
    first, second = StateFile(path), StateFile(path)
    with another_user():
        await first.load(LAYOUT)
        await first.save(real_memory())
        assert first.saves.last
    await second.save(real_memory())
    assert second.saves == (0, 1)
    with another_user():
        await first.close(None)
    await second.save(real_memory())
    assert second.saves.last
    await second.close(None)


@pytest.mark.usefixtures("patient")
async def test_a_lock_file_that_may_not_be_locked_is_named_and_what_to_do(
    shared_directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = shared_directory / "state", shared_directory / "state.lock"
    lock.touch(0o600)
    file = StateFile(path)
    flock = fcntl.flock

    def refused(*_: Any) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with another_user():
        await file.load(LAYOUT)
        await file.save(real_memory())
        assert file.saves == (0, 1)
    lock.chmod(0o644)
    with another_user():
        # As NFS does where the file may only be read.
        monkeypatch.setattr(fcntl, "flock", refused)
        await file.save(real_memory())
        assert file.saves == (0, 2)
        assert not path.exists()
        monkeypatch.setattr(fcntl, "flock", flock)
        await file.save(real_memory())
        assert file.saves.last
        await file.close(None)
    [record] = caplog.records
    assert record.message == CANNOT_BE_WRITTEN
    assert f"this user may not lock {lock}: give it the file (chown)" in record.__dict__["reason"]


async def test_without_locks_the_file_is_used_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS without a lock manager."""

    def refused(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    file = StateFile(tmp_path / "state")
    assert await file.load(LAYOUT) == NOTHING_SAVED
    for _ in range(2):
        await file.save(real_memory())
    await file.close(real_memory())
    assert await closed(tmp_path / "state") == decoded(DATA)
    assert len(caplog.records) == 2  # one each
    assert "No locks available" in caplog.records[0].__dict__["reason"]


# Symbolic links


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("content", [None, DATA])
async def test_a_link_to_the_file_is_kept_and_what_it_names_is_written(
    content: bytes | None, tmp_path: Path
) -> None:
    volume, links = tmp_path / "volume", tmp_path / "links"
    volume.mkdir()
    links.mkdir()
    real, link, other = volume / "state", links / "state", links / "other"
    link.symlink_to(real)
    other.symlink_to("state")
    if content:
        real.write_bytes(content)
    file, second = StateFile(link), StateFile(other)
    assert await file.load(LAYOUT) == (decoded(content) if content else NOTHING_SAVED)
    await file.save(real_memory() | {"searched": START})
    assert file.saves.last
    assert decoded(real.read_bytes()) == decoded(DATA)._replace(complete_until=START)
    assert link.readlink() == real
    # Whoever comes by another way shares its lock.
    await second.save(real_memory())
    assert second.saves == (0, 1)
    assert names(volume) == {"state", "state.lock"}
    assert names(links) == {"state", "other"}
    await file.close(None)
    await second.close(None)


@pytest.mark.usefixtures("patient")
async def test_a_file_that_is_refused_is_renamed_where_it_is(tmp_path: Path) -> None:
    real, link = tmp_path / "state", tmp_path / "link"
    real.write_bytes(b"no state at all")
    link.symlink_to(real)
    assert await closed(link) == NOTHING_SAVED
    assert (tmp_path / "state.unusable").read_bytes() == b"no state at all"
    assert link.is_symlink()


@pytest.mark.usefixtures("patient")
async def test_links_in_place_of_its_other_files_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As somebody may put them into a directory that all may write."""
    path, precious, absent = (tmp_path / name for name in ("state", "precious", "absent"))
    precious.write_bytes(b"of somebody else")
    (tmp_path / "state.new").symlink_to(precious)
    (tmp_path / "state.lock").symlink_to(absent)
    file = StateFile(path)
    await file.load(LAYOUT)
    await file.save(real_memory())
    assert not file.saves.last
    [record] = caplog.records
    assert f"symbolic links: '{path}.lock'" in record.__dict__["reason"]
    assert not absent.exists()
    (tmp_path / "state.lock").unlink()
    # The first attempt removes the link, and fails.
    for _ in range(2):
        await file.save(real_memory())
    assert file.saves.last
    await file.close(None)
    assert precious.read_bytes() == b"of somebody else"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


# A file system that stalls, or is full


def added(exporter: Exporter) -> float | None:
    return exporter.metrics.value("bullmq_job_added_total", queue="ingestion", name="plain")


def polls(exporter: Exporter) -> float:
    return exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") or 0


def assert_watches(exporter: Exporter, server: Server, work: Any) -> None:
    """Counts and gauges are of now, and an outage is noticed."""
    work.add("ingestion", "plain", 3)
    eventually(lambda: added(exporter) == 3)
    server.stop()
    eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
    assert added(exporter) is None
    server.start()
    eventually(lambda: added(exporter) == 3)
    assert exporter.metrics.get("/-/healthy").status == 200


def test_a_file_system_that_stalls_delays_neither_polls_nor_scrapes_nor_the_end(
    own_server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    """A FIFO that nobody reads: who opens it to write waits for ever."""
    path = tmp_path / "state"
    os.mkfifo(tmp_path / "state.new")
    work = start_work("bullmq5", own_server.port)
    exporter = start_exporter(own_server.url, EXPORTER_EVENTS_STATE_FILE=str(path))
    assert_watches(exporter, own_server, work)
    [line] = eventually(lambda: exporter.lines(CANNOT_BE_WRITTEN))
    assert line["reason"] == f"{path}: its file system does not answer"
    assert exporter.metrics.value(LAST_SAVE) == 0
    assert (exporter.metrics.value(SAVE_ERRORS) or 0) > 0
    began = time.monotonic()
    assert exporter.terminate() == 0
    # 2 s for all of the end; the rest is for a busy machine.
    assert time.monotonic() - began < 20
    assert not path.exists()
    assert "Traceback" not in exporter.log


def test_a_file_system_that_answers_again_is_written_again(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    path, new = tmp_path / "state", tmp_path / "state.new"
    work = start_work("bullmq5", server.port)
    exporter = start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=str(path))
    eventually(lambda: exporter.metrics.value(LAST_SAVE))
    before = exporter.metrics.value(SAVE_ERRORS) or 0
    eventually(lambda: make_fifo(new))
    eventually(lambda: exporter.lines(CANNOT_BE_WRITTEN))
    work.add("ingestion", "plain", 4)
    eventually(lambda: added(exporter) == 4)
    stalled_since = exporter.metrics.value(LAST_SAVE)
    # What waits is let go: it writes into the FIFO, and fails since that cannot be synced.
    new.read_bytes()
    eventually(lambda: exporter.lines("the state file is written again"))
    eventually(lambda: (exporter.metrics.value(LAST_SAVE) or 0) > (stalled_since or 0))
    assert (exporter.metrics.value(SAVE_ERRORS) or 0) > before
    assert len(exporter.lines(CANNOT_BE_WRITTEN)) == 1
    assert exporter.terminate() == 0
    exporter = start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=str(path))
    eventually(lambda: added(exporter) == 4)


def make_fifo(path: Path) -> bool:
    """Between two saves."""
    try:
        os.mkfifo(path)
    except FileExistsError:
        return False
    return True


def test_a_file_system_that_stalls_at_the_start_delays_only_counters(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "state.lock")
    work = start_work("bullmq5", server.port)
    work.add("ingestion", "plain", 1)
    exporter = start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=str(tmp_path / "state"))
    [line] = eventually(lambda: exporter.lines("waiting for the state file: counters are absent"))
    assert "does not answer" in line["reason"]
    before = polls(exporter)
    eventually(lambda: polls(exporter) > before + 3)
    assert exporter.metrics.value("bullmq_job_count", queue="ingestion", state="waiting") == 1
    assert added(exporter) is None
    assert exporter.metrics.value("bullmq_exporter_events_followed") == 0
    assert exporter.terminate() == 0


async def test_a_start_that_has_waited_long_enough_counts_anew(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(state_file, "MAX_START_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(state_file, "SLOW_SECONDS", 0.05)
    path, lock = tmp_path / "state", tmp_path / "state.lock"
    path.write_bytes(DATA)
    os.mkfifo(lock)
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            write(client, 0, "added", name="import")
            await until(lambda now: count(now, Count.ADDED) == 1 and now.saves)
            assert path.read_bytes() == DATA
            # Once it answers, what is counted now replaces what could not be read.
            with lock.open("rb"):
                await until(lambda now: now.saves and now.saves.last)
        lock.unlink()
        async with followed(server.port, state_file=path) as until:
            await until(lambda now: count(now, Count.ADDED) == 1)
    assert [record.message for record in caplog.records] == [
        "waiting for the state file: counters are absent",
        "the state file cannot be used now: counters start over",
    ]


async def test_without_a_thread_for_it_the_file_is_waited_for_and_counts_are_reported(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """As where the number of processes is limited."""
    caplog.set_level(logging.INFO, state_file.__name__)
    monkeypatch.setattr(state_file, "LOCK_RETRY_SECONDS", 0.01)
    refusals, start_thread = 3, threading.Thread.start

    def start(thread: threading.Thread) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    path = tmp_path / "state"
    path.write_bytes(DATA)
    monkeypatch.setattr(threading.Thread, "start", start)
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            tallies = await until(lambda now: now.saves and now.saves.last)
            assert count(tallies, Count.ADDED) == 4  # of the file
            refusals = 1
            client.xadd(events_key(QUEUE), {"event": "added", "jobId": "5", "name": "import"})
            await until(lambda now: now.saves.failed and count(now, Count.ADDED) == 5)
            await until(lambda _: "the state file is written again" in caplog.messages)
    assert [record.message for record in caplog.records] == [
        "waiting for the state file: counters are absent",
        CANNOT_BE_WRITTEN,
        "the state file is written again",
    ]
    assert "can't start new thread" in caplog.records[0].reason


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    needs_root("mounts a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_costs_one_line_and_its_last_file_stays(
    own_server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    tiny_disk: Path,
) -> None:
    path = tiny_disk / "state"
    work = start_work("bullmq5", own_server.port)
    exporter = start_exporter(own_server.url, EXPORTER_EVENTS_STATE_FILE=str(path))
    eventually(lambda: exporter.metrics.value(LAST_SAVE))
    with (tiny_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(b"\0" * 4096)
    [line] = eventually(lambda: exporter.lines(CANNOT_BE_WRITTEN))
    assert "No space left on device" in line["reason"]
    assert_watches(exporter, own_server, work)
    assert len(exporter.lines(CANNOT_BE_WRITTEN)) == 1
    assert state_format.decode(path.read_bytes(), Layout((1,), (1,)))
    (tiny_disk / "filler").unlink()
    eventually(lambda: exporter.lines("the state file is written again"))
    assert exporter.terminate() == 0
    assert names(tiny_disk) == {"state", "state.lock"}


def test_without_a_state_file_nothing_is_said_of_saves(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url)
    eventually(lambda: exporter.metrics.value("bullmq_exporter_events_followed") == 1)
    assert exporter.metrics.value(LAST_SAVE) is None
    assert exporter.metrics.value(SAVE_ERRORS) is None
