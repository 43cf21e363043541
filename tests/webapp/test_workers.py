"""The pool of worker processes: replaced when they die, killed when they hang, ended when asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.queue
import pytest

from engine import wire
from webapp import workers
from webapp.workers import Pool, WorkerProcess

PATIENCE_SECONDS = 60


class Ear:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: gevent.queue.Queue[wire.FromWorker] = gevent.queue.Queue()
        self.deaths: gevent.queue.Queue[tuple[WorkerProcess, str | None]] = gevent.queue.Queue()
        self.arrivals = 0

    def arrived(self) -> None:
        self.arrivals += 1

    def heard(self, _worker: WorkerProcess, message: wire.FromWorker) -> None:
        self.messages.put(message)

    def died(self, worker: WorkerProcess, culprit: str | None) -> None:
        self.deaths.put((worker, culprit))


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def pool(ear: Ear, tmp_path: Path) -> Iterator[Pool]:
    pool = Pool(1, ear, tmp_path)
    pool.start()
    yield pool
    pool.stop()
    assert not pool.processes


def opened(pool: Pool, ear: Ear) -> WorkerProcess:
    """The worker, holding a lab "one" in slot 5."""
    worker = pool.choose()
    worker.labs[5] = "one"
    pool.send(worker, wire.Open("one", 5, "new", "one", None, 0, [], 0, quarantined=False, afresh=False, limits={}))
    assert isinstance(ear.messages.get(timeout=PATIENCE_SECONDS), wire.Opened)
    return worker


def test_a_worker_answers_and_ends_when_it_is_asked(pool: Pool, ear: Ear) -> None:
    worker = opened(pool, ear)
    assert pool.processes == [worker.process.pid]
    assert (pool.ready, ear.arrivals) == ([worker], 1)
    assert os.getpriority(os.PRIO_PROCESS, worker.process.pid) >= 15
    pool.stop()
    assert worker.process.poll() == 0
    assert isinstance(ear.messages.get(timeout=PATIENCE_SECONDS), wire.Checkpoint)
    assert ear.deaths.empty()


def test_a_dead_worker_is_replaced(pool: Pool, ear: Ear) -> None:
    worker = opened(pool, ear)
    os.kill(worker.process.pid, signal.SIGKILL)
    assert ear.deaths.get(timeout=PATIENCE_SECONDS)[0] is worker
    assert pool.choose() is not worker


def test_a_worker_that_hangs_is_killed(pool: Pool, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = opened(pool, ear)
    os.kill(worker.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(workers, "SILENT_SECONDS", 3.0)
    assert ear.deaths.get(timeout=PATIENCE_SECONDS)[0] is worker


def test_the_marker_names_the_culprit(pool: Pool, ear: Ear) -> None:
    worker = opened(pool, ear)
    worker.kill()
    ear.deaths.get(timeout=PATIENCE_SECONDS)  # nobody else writes the marker now
    worker.marker.write_bytes(bytes(4))
    assert worker.culprit() is None
    worker.marker.write_bytes((5).to_bytes(4, "little"))
    assert worker.culprit() == "one"
