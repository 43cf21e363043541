"""The engine's worker processes: started, listened to, replaced when they die.

Invariants
- Each worker has an identity that is never used again, so a message that a dead worker left behind is
  recognised and dropped.
- A worker that says nothing for `SILENT_SECONDS` is killed: it hangs in something that has no end.
- The marker of a worker (four bytes in a file it shares with us) holds the slot of the lab it was working
  for, 0 between labs: after its death it names the culprit, whatever killed it.
- Nothing here knows what a message means; `Listener` does.
DESIGN.md "Processes".
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import gevent
import gevent.event
import gevent.subprocess
import zmq.green as zmq

import engine
from engine import wire

SILENT_SECONDS = 60.0
WATCH_SECONDS = 2.0
STOP_SECONDS = 15.0
MARKER_BYTES = 4

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who is told what the workers say."""

    def arrived(self) -> None:
        """A worker is ready. Must not wait."""

    def heard(self, worker: WorkerProcess, message: wire.FromWorker) -> None:
        """A message arrived. Runs in the receiving greenlet, in order; must not wait."""

    def died(self, worker: WorkerProcess, culprit: str | None) -> None:
        """A worker ended without having been asked to. `culprit`: the lab it was working for."""


class WorkerProcess:
    """One worker process and the labs that it holds, by slot."""

    def __init__(self, identity: str, endpoint: str, folder: Path, library: Path) -> None:
        self.identity = identity
        self.labs: dict[int, str] = {}
        self.ready = gevent.event.Event()  # set by its Hello, and by its death
        self.alive = True
        self.started = self.heard_at = time.monotonic()
        self.marker = folder / identity
        self.marker.write_bytes(bytes(MARKER_BYTES))
        source = str(Path(engine.__file__).resolve().parent.parent)
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = gevent.subprocess.Popen(
            [sys.executable, "-m", "engine.worker", endpoint, identity, str(self.marker), str(library)],
            stdin=gevent.subprocess.PIPE,
            stdout=sys.stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        )

    def culprit(self) -> str | None:
        """The lab that the worker was working for when it ended."""
        return self.labs.get(int.from_bytes(self.marker.read_bytes(), "little"))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)


class Pool:
    """`count` workers, always. `library`: the folder of the images that they share (engine.library)."""

    def __init__(self, count: int, listener: Listener, library: Path) -> None:
        self._library = library
        self._count = count
        self._listener = listener
        self._folder = Path(
            tempfile.mkdtemp(prefix="ringside-")
        )  # readable by its owner only, and so is the socket in it
        self._endpoint = f"ipc://{self._folder / 'socket'}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.bind(self._endpoint)
        self._made = 0
        self._workers: dict[str, WorkerProcess] = {}
        self._stopping = False
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        self._greenlets = [gevent.spawn(self._receive), gevent.spawn(self._watch)]
        for _ in range(self._count):
            self._spawn()

    def send(self, worker: WorkerProcess, message: wire.ToWorker) -> None:
        if worker.alive:
            self._socket.send_multipart([worker.identity.encode(), wire.encode(message)])

    def send_all(self, message: wire.ToWorker) -> None:
        """To every worker that is ready; one that is not reads everything when it starts."""
        for worker in self.ready:
            self.send(worker, message)

    def choose(self) -> WorkerProcess:
        """The worker with the fewest labs, ready to take another. Waits for one."""
        while True:
            workers = [worker for worker in self._workers.values() if worker.alive]
            if workers:
                worker = min(workers, key=lambda worker: len(worker.labs))
                worker.ready.wait()
                if worker.alive:
                    return worker
            else:
                gevent.sleep(0.05)

    @property
    def ready(self) -> list[WorkerProcess]:
        """The workers that can be given something."""
        return [worker for worker in self._workers.values() if worker.alive and worker.ready.is_set()]

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return [worker.process.pid for worker in self.ready]

    def stop(self) -> None:
        """Ask every worker to save and end, and wait for it. Once is enough."""
        if self._stopping:
            return
        self._stopping = True
        workers = list(self._workers.values())
        for worker in workers:
            if worker.ready.is_set():
                self.send(worker, wire.Stop())
            else:
                worker.kill()  # it has no lab, and no socket yet to be asked on
        with gevent.Timeout(STOP_SECONDS, False):
            for worker in workers:
                worker.process.wait()
            gevent.sleep(0.05)  # what they said last is still in the socket
        for worker in workers:
            worker.kill()
        gevent.killall(self._greenlets)
        self._socket.close(linger=0)
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> None:
        self._made += 1
        worker = WorkerProcess(f"worker-{self._made}", self._endpoint, self._folder, self._library)
        self._workers[worker.identity] = worker
        gevent.spawn(self._await_end, worker)

    def _await_end(self, worker: WorkerProcess) -> None:
        status = worker.process.wait()
        worker.alive = False
        worker.ready.set()
        del self._workers[worker.identity]
        worker.process.stdin.close()
        if self._stopping:
            return
        culprit = worker.culprit()
        log.warning(
            "%s ended with status %s while working for %s", worker.identity, status, culprit or "no lab"
        )
        if time.monotonic() - worker.started < 1:
            gevent.sleep(1)  # a worker that cannot even start must not be started thousands of times
        self._spawn()
        self._listener.died(worker, culprit)

    def _receive(self) -> None:
        while True:
            identity, content = self._socket.recv_multipart()
            worker = self._workers.get(identity.decode())
            if worker is None:
                continue
            worker.heard_at = time.monotonic()
            message = wire.decode_from_worker(content)
            if isinstance(message, wire.Hello):
                worker.ready.set()
                self._listener.arrived()
            elif not isinstance(message, wire.Beat | wire.Bye):
                self._listener.heard(worker, message)

    def _watch(self) -> None:
        while True:
            gevent.sleep(WATCH_SECONDS)
            for worker in list(self._workers.values()):
                if time.monotonic() - worker.heard_at > SILENT_SECONDS:
                    log.error("%s has said nothing for %d s and is killed", worker.identity, SILENT_SECONDS)
                    worker.kill()
