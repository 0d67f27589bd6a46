"""Originals by content key: bounded, shared between processes, and never the reason for a crash."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprs_core import InputError
from cprs_integrations.expand import PAGE_CHARACTERS, read_original
from cprs_integrations.store import OriginalStore, key_of

WRITER = """
import sys
from cprs_integrations.store import OriginalStore
store = OriginalStore(sys.argv[1])
n = 0
while True:
    store.put(f"text {n} " + "x" * 5_000)
    print(n, flush=True)
    n += 1
"""


def noise(n: int) -> str:
    """Text of about 1,000 bytes that does not compress."""
    return os.urandom(700).hex()[:1_000] + str(n)


@given(st.text())
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(text):
    store = OriginalStore()
    assert store.get(store.put(text)) == text


def test_lone_surrogates_and_nulls_survive():
    store = OriginalStore()
    text = "a\ud800b\x00c"
    assert store.get(store.put(text)) == text


def test_the_same_text_has_one_key_and_one_row(tmp_path):
    store = OriginalStore(tmp_path / "store.db")
    assert store.put("lease") == store.put("lease") == key_of("lease")
    used = store.bytes_used
    store.put("lease")
    assert store.bytes_used == used


def test_an_unknown_key_is_none():
    assert OriginalStore().get("0123456789ab") is None


def test_the_first_frozen_result_stays():
    store = OriginalStore()
    store.freeze("key", "first")
    store.freeze("key", "second")
    assert store.frozen("key") == "first"
    assert store.get("key") is None


def test_a_file_is_there_again_in_the_next_process(tmp_path):
    key = OriginalStore(tmp_path / "store.db").put("lease")
    code = "import sys; from cprs_integrations.store import OriginalStore as S; print(S(sys.argv[1]).get(sys.argv[2]))"
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "store.db", key], capture_output=True, text=True, check=True
    )
    assert said.stdout == "lease\n"


def test_the_size_is_bounded_and_the_oldest_go_first(tmp_path):
    store = OriginalStore(tmp_path / "store.db", max_bytes=20_000)
    keys = [store.put(noise(n)) for n in range(60)]
    assert store.bytes_used <= 20_000
    assert store.get(keys[-1]) is not None
    assert any(store.get(key) is None for key in keys[:30])


def test_a_text_larger_than_the_store_is_refused_and_counted():
    store = OriginalStore(max_bytes=500)
    assert store.put(noise(0) * 5) is None
    assert store.failures == 1


def _put_many(path: str, first: int) -> None:
    store = OriginalStore(path)
    for n in range(first, first + 40):
        assert store.put(f"text {n}") is not None


def test_processes_write_side_by_side(tmp_path):
    path = str(tmp_path / "store.db")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_many, args=(path, 40 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    store = OriginalStore(path)
    assert all(store.get(key_of(f"text {n}")) == f"text {n}" for n in range(120))


def test_threads_share_one_store(tmp_path):
    store = OriginalStore(tmp_path / "store.db")
    threads = [threading.Thread(target=lambda n=n: store.put(f"text {n}")) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(store.get(key_of(f"text {n}")) for n in range(40))


def test_many_may_open_a_new_file_at_the_same_moment(tmp_path):
    together = threading.Barrier(4)

    def put(number: int) -> int:
        failures = 0
        for n in range(25):
            store = OriginalStore(tmp_path / f"{n}.db")
            together.wait(60)
            store.put(f"text {number}")
            failures += store.failures
            store.close()
        return failures

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(put, range(4))) == [0, 0, 0, 0]


def test_a_killed_process_leaves_a_whole_store(tmp_path):
    path = tmp_path / "store.db"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = 0
    for line in process.stdout:
        last = int(line)
        if last >= 50:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = OriginalStore(path)
    assert all(store.get(key_of(f"text {n} " + "x" * 5_000)) is not None for n in range(last + 1))
    assert store.put("after the crash") is not None
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_connection_of_its_own(tmp_path):
    store = OriginalStore(tmp_path / "store.db")
    store.put("parent")
    child = os.fork()
    if child == 0:
        is_fine = store.get(key_of("parent")) == "parent" and store.put("child") is not None
        os._exit(0 if is_fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(key_of("child")) == "child"


def test_a_corrupt_file_is_reported_and_left_alone(tmp_path, caplog):
    path = tmp_path / "store.db"
    path.write_bytes(b"no database" * 500)
    store = OriginalStore(path)
    assert store.put("text") is None
    assert store.get("0123456789ab") is None
    assert store.failures == 2
    assert caplog.text.count("memory goes on without it") == 2  # once for writing, once for reading
    assert path.read_bytes() == b"no database" * 500


def test_a_damaged_row_reads_as_missing(tmp_path):
    store = OriginalStore(tmp_path / "store.db")
    key = store.put("text")
    store.close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("UPDATE texts SET body = ?", (b"garbage",))
    assert store.get(key) is None
    assert store.failures == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes everywhere")
def test_a_file_that_cannot_be_written_is_still_read(tmp_path):
    path = tmp_path / "store.db"
    key = OriginalStore(path).put("text")
    os.chmod(path, stat.S_IRUSR)
    os.chmod(tmp_path, stat.S_IRUSR | stat.S_IXUSR)
    store = OriginalStore(path)
    assert store.get(key) == "text"
    assert store.put("more") is None


def test_a_database_that_refuses_writes_is_still_read(tmp_path):
    class ReadOnlyStore(OriginalStore):
        def _open(self) -> sqlite3.Connection:
            connection = super()._open()
            connection.execute("PRAGMA query_only = ON")
            return connection

    key = OriginalStore(tmp_path / "store.db").put("text")
    store = ReadOnlyStore(tmp_path / "store.db")
    assert store.get(key) == "text"
    assert store.put("more") is None
    assert store.failures == 1


def test_a_full_disk_is_counted_and_not_raised(tmp_path):
    class SmallDisk(OriginalStore):
        def _open(self) -> sqlite3.Connection:
            connection = super()._open()
            connection.execute("PRAGMA max_page_count = 8")
            return connection

    store = SmallDisk(tmp_path / "store.db")
    kept = [store.put(noise(n)) for n in range(60)]
    assert None in kept
    assert store.failures > 0
    assert store.get(kept[0]) is not None


def test_a_folder_that_does_not_exist_is_reported(tmp_path):
    store = OriginalStore(tmp_path / "nowhere" / "store.db")
    assert store.put("text") is None
    assert store.failures == 1


def test_an_empty_store_is_refused():
    with pytest.raises(InputError, match="max_bytes is 0"):
        OriginalStore(max_bytes=0)


def test_search_gives_numbered_lines_and_takes_any_pattern():
    store = OriginalStore()
    key = store.put("one\nthe lease (of Ada\nthree")
    assert store.search(key, "LEASE") == [(2, "the lease (of Ada")]
    assert store.search(key, "(of") == [(2, "the lease (of Ada")]
    assert store.search("ffffffffffff", "lease") == []


def test_expand_pages_and_searches_and_explains():
    store = OriginalStore()
    text = "\n".join(f"line {n}" for n in range(3_000))
    key = store.put(text)
    pages = -(-len(text) // PAGE_CHARACTERS)
    first = read_original(store, f' "{key}" ')
    assert first.endswith(f"[page 1 of {pages}]")
    joined = "".join(read_original(store, key, page=n + 1).rsplit("\n[page", 1)[0] for n in range(pages))
    assert joined == text
    assert read_original(store, key, search="line 2777") == "2778: line 2777"
    assert "No line of" in read_original(store, key, search="lease")
    assert "No original" in read_original(store, "nothing")


RECORDS = json.dumps([{"id": n, "state": "timed out" if n in (3_000, 9_000) else "fine"} for n in range(10_000)])


@pytest.mark.parametrize("pattern", ["timed out", "time(d|s) out", ".*timed out.*"])
def test_a_search_in_one_enormous_line_shows_what_is_around_each_match(pattern):
    store = OriginalStore()
    found = store.search(store.put(RECORDS), pattern)
    assert [number for number, _ in found] == [1, 1]
    assert '"id": 3000' in found[0][1]
    assert '"id": 9000' in found[1][1]
    assert all(len(excerpt) < 500 for _, excerpt in found)


def test_a_search_for_anything_before_a_word_takes_no_square():
    store = OriginalStore()
    key = store.put("fine and well " * 1_000_000)
    began = time.perf_counter()
    assert store.search(key, ".*timed out.*") == []
    assert time.perf_counter() - began < 5


def test_an_expression_that_would_take_years_is_given_up_and_expand_says_so():
    store = OriginalStore()
    key = store.put("It rained.\n" + "a" * 1_000 + "b\nThe lease.")
    assert "takes too long" in read_original(store, key, search="(a|aa)+$")
    assert read_original(store, key, search="lease") == "3: The lease."


def test_a_search_finds_the_end_of_a_long_line_and_matches_across_what_is_read_at_once():
    store = OriginalStore()
    for before in (0, 399, 1_590, 1_995, 3_000, 9_999):
        key = store.put("-" * before + "the lease")
        assert [number for number, _ in store.search(key, "the lease")] == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_wait_for_a_thread_that_its_parent_had(tmp_path):
    store = OriginalStore(tmp_path / "memory.db")
    key = store.put("the lease")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            done.wait(20)

    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if store.get(key) == "the lease" else 1)
    status = os.waitpid(child, 0)[1]
    done.set()
    assert status == 0


def test_a_store_is_copied_and_pickled_without_its_connection(tmp_path):
    store = OriginalStore(tmp_path / "memory.db", max_bytes=10_000)
    key = store.put("the lease")
    for copied in (copy.deepcopy(store), pickle.loads(pickle.dumps(store))):
        assert copied.get(key) == "the lease"
        assert copied.max_bytes == 10_000
