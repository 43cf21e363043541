"""The data folder: what is kept and let go, and what it says when it cannot be used."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from engine.wire import Entry
from webapp.store import KEPT_CHECKPOINTS, SCHEMA_VERSION, Change, Store, StoreError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with closing(Store(folder)) as opened:
        yield opened


def change(revision: int, position: int = 0, lab: str = "a") -> Change:
    document = msgspec.msgpack.encode({"name": f"name {revision}", "hosts": []})
    return Change(
        lab,
        Entry(revision, position, Raw(msgspec.msgpack.encode({"n": revision}))),
        document,
        f"name {revision}",
    )


def revisions(store: Store, lab: str = "a") -> list[int]:
    return [entry.revision for entry in store.saved(lab).log]


def blobs(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (folder / "blobs").rglob("*") if path.is_file())


def test_a_new_lab_is_nothing_but_its_origin(store: Store) -> None:
    store.create("a", "demo", "Demo")
    saved = store.saved("a")
    assert (saved.checkpoint, saved.revision, saved.log) == (None, 0, [])
    row = store.lab("a")
    assert row is not None
    assert (row.origin, row.name, row.document) == ("demo", "Demo", b"")
    with pytest.raises(ValueError, match="there is a lab a"):
        store.create("a", "new", "again")
    assert store.lab("b") is None
    with pytest.raises(KeyError):
        store.saved("b")


def test_what_was_committed_is_there_after_opening_again(folder: Path) -> None:
    store = Store(folder)
    store.create("a", "new", "x")
    store.commit([change(1, 10), change(2, 20)])
    store.close()
    with closing(Store(folder)) as again:
        log, row = again.saved("a").log, again.lab("a")
    assert [(entry.revision, entry.position) for entry in log] == [(1, 10), (2, 20)]
    assert bytes(log[1].command) == msgspec.msgpack.encode({"n": 2})
    assert row is not None
    assert (row.revision, row.name) == (2, "name 2")


def test_commits_are_synced(store: Store) -> None:
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2


def test_a_batch_is_kept_whole_or_not_at_all(store: Store) -> None:
    store.create("a", "new", "x")
    store.commit([change(1)])
    with pytest.raises(Exception, match="UNIQUE"):
        store.commit([change(2), change(1)])
    assert revisions(store) == [1]


def test_a_checkpoint_shortens_the_log_behind_the_one_before_it(store: Store, folder: Path) -> None:
    store.create("a", "new", "x")
    for revision in range(1, 7):
        store.commit([change(revision)])
        if revision % 2 == 0:
            store.checkpoint("a", revision, revision * 100, b"state %d" % revision)
    assert KEPT_CHECKPOINTS == 2
    assert blobs(folder) == [b"state 4", b"state 6"]
    saved = store.saved("a")
    assert (saved.checkpoint, saved.revision, saved.log) == (b"state 6", 6, [])
    store.commit([change(7)])
    assert revisions(store) == [7]


def test_a_damaged_checkpoint_costs_only_replay(store: Store, folder: Path) -> None:
    store.create("a", "new", "x")
    for revision in (1, 2, 3):
        store.commit([change(revision)])
        store.checkpoint("a", revision, 0, b"state %d" % revision)
    newest = next(
        path for path in (folder / "blobs").rglob("*") if path.is_file() and path.read_bytes() == b"state 3"
    )
    newest.write_bytes(b"state 4")
    saved = store.saved("a")
    assert (saved.checkpoint, saved.revision) == (b"state 2", 2)
    assert revisions(store) == [3]
    for path in (folder / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    assert store.saved("a") is None


def test_labs_with_the_same_state_share_its_blob(store: Store, folder: Path) -> None:
    for lab in ("a", "b"):
        store.create(lab, "new", lab)
        store.checkpoint(lab, 0, 0, b"same")
    assert blobs(folder) == [b"same"]
    for number in range(3):
        store.checkpoint("a", 0, number, b"other %d" % number)
    assert store.saved("b").checkpoint == b"same"
    assert b"same" in blobs(folder)


def test_only_one_server_uses_a_folder(store: Store, folder: Path) -> None:
    with pytest.raises(StoreError, match=r"Another Ringside \(process \d+\)"):
        Store(folder)
    store.close()
    Store(folder).close()


def test_a_newer_folder_is_refused_with_both_versions(folder: Path) -> None:
    Store(folder).close()
    database = sqlite3.connect(folder / "ringside.sqlite")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(StoreError, match=f"schema {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
        Store(folder)


def test_files_that_are_not_ours_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    path = folder / "ringside.sqlite"
    path.write_bytes(b"my diary, " * 200)
    with pytest.raises(StoreError, match="not a Ringside database"):
        Store(folder)
    assert path.read_bytes() == b"my diary, " * 200
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("PRAGMA application_id = 77")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        Store(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "data")


def test_the_secret_is_made_once_and_for_its_owner_only(folder: Path) -> None:
    with closing(Store(folder)) as store:
        key = store.secret_key()
    assert len(key) == 32
    assert stat.S_IMODE((folder / "secret-key").stat().st_mode) == 0o600
    with closing(Store(folder)) as again:
        assert again.secret_key() == key


def test_comparisons_belong_to_their_lab_and_outlive_the_server(folder: Path) -> None:
    with closing(Store(folder)) as store:
        for lab in ("a", "b"):
            store.create(lab, "new", lab)
        store.keep_comparison("a", "one", b"first")
        store.keep_comparison("a", "two", b"second")
        store.keep_comparison("b", "three", b"third")
        store.drop_comparison("b", "one")
    with closing(Store(folder)) as store:
        assert [(row.id, row.content) for row in store.comparisons("a")] == [("one", b"first"), ("two", b"second")]
        store.drop_comparison("a", "one")
        assert [row.id for row in store.comparisons("a")] == ["two"]
        assert [row.id for row in store.comparisons("b")] == ["three"]


def test_a_folder_of_the_first_version_gets_the_tables_that_came_later(folder: Path) -> None:
    with closing(Store(folder)) as store:
        store.create("a", "new", "a")
    with closing(sqlite3.connect(folder / "ringside.sqlite")) as database:
        database.execute("DROP TABLE comparisons")
        database.execute("PRAGMA user_version = 1")
        database.commit()
    with closing(Store(folder)) as store:
        assert [row.id for row in store.labs()] == ["a"]
        store.keep_comparison("a", "one", b"first")
    with closing(sqlite3.connect(folder / "ringside.sqlite")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
