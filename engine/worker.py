"""The process that holds labs: the one part of the engine that knows a clock and talks to the outside.

    python -m engine.worker ENDPOINT IDENTITY MARKER LIBRARY   (started by webapp.workers; stdin: a lifeline)

One thread, one loop: take the messages that are there, give every lab that is due one slice of about
`SLICE_SECONDS`, send what happened. A command that takes long (a step to a trap that is far away, a seek,
loading) runs as a job in a greenlet that hands control back whenever the engine reports progress, so other
labs go on and `lab.pause` can end it.

Invariants
- A lab is touched by nobody while one of its jobs is under way: what arrives for it waits in
  `Seat.waiting`, in order.
- Every accepted command is stamped with the position at which it took effect, and reported (`Done`) in that
  order; replaying those entries on a checkpoint gives the same lab.
- The wall clock decides only how many steps run before the next look at the messages, never what a step does.
- The worker writes no file but its marker, reads none but the library's (engine.library), and nothing a lab
  does ends it: a defect of the engine costs the lab concerned a reload.
- The process ends when its lifeline does, so no worker outlives the web process, however that died.
DESIGN.md "Processes" and "The CPU" 6.
"""

from __future__ import annotations

import mmap
import os
import secrets
import signal
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import zmq
from greenlet import GreenletExit, getcurrent, greenlet
from msgspec import Raw

from engine import wire
from engine.commands import (
    AnyCommand,
    AnyQuery,
    LabError,
    LabPause,
    LabRedo,
    LabReset,
    LabSeek,
    LabStep,
    LabStepBack,
    LabUndo,
    Problem,
    StretchQuery,
    TraceDetailQuery,
    TraceQuery,
)
from engine.lab import Lab, Limits
from engine.library import Library
from engine.machine.native import objects

NICENESS = 15
SLICE_SECONDS = 0.02
TICK_SECONDS = 0.1
LONG_SECONDS = 0.3  # what takes longer has its progress told
CHECKPOINT_SECONDS = 10.0
CHECKPOINT_SHARE = 0.05  # of the time at most, spent on periodic checkpoints of one lab
LONGEST_SLEEP_SECONDS = 0.5
RATE_AT_FIRST = 100_000.0  # steps a second, until a lab's own rate is known
MARKER = struct.Struct("<I")

_JUMPS = (LabStepBack, LabSeek, LabReset, LabUndo, LabRedo)
_MAY_TAKE_LONG = (LabStep, LabStepBack, LabSeek, LabUndo, LabRedo)
_SAVE_AT_ONCE = (LabPause, *_MAY_TAKE_LONG, LabReset)

#: Why a command that was accepted once is refused now: what it started from is not on this server any more.
_LIBRARY_LACKS = ("no-such-image", "library-damaged")

_encode = wire.encode
_decode_command = msgspec.msgpack.Decoder(AnyCommand).decode
_decode_query = msgspec.msgpack.Decoder(AnyQuery).decode


class Pace:
    """How far a lab may run now: a lab's speed against the wall clock. Times are seconds of a monotonic
    clock.

    At N units a second one unit is due every 1/N s and time that was missed is not caught up; at "real" the
    lab's virtual time follows the clock and gives up what it is behind by more than `SLACK_NS`; at "max" it
    is always due.
    """

    SLACK_NS = 100_000_000

    def __init__(self, speed: str, unit: str, now: float) -> None:
        self.speed, self.unit = speed, unit
        self._interval = 1 / int(speed) if speed.isdigit() else 0.0
        self.due = now
        self._origin, self._passed_ns = now, 0

    def budget(self, slice_steps: int, now: float) -> tuple[int, int | None]:
        """(steps, stop after so many traps) for the next slice; (0, None) when nothing is due yet."""
        if self.speed == "max":
            return slice_steps, None
        if self.speed == "real":
            ahead = int((now - self._origin) * 1e9) - self._passed_ns
            if ahead > self.SLACK_NS:
                self._origin += (ahead - self.SLACK_NS) / 1e9
                ahead = self.SLACK_NS
            return max(0, min(slice_steps, ahead)), None
        if now < self.due:
            return 0, None
        return (1, None) if self.unit == "instruction" else (slice_steps, 1)

    def ran(self, steps: int, traps: int, virtual_ns: int, now: float) -> None:
        """Take note of a slice; sets `due`."""
        if self.speed == "real":
            self._passed_ns += virtual_ns
            self.due = self._origin + self._passed_ns / 1e9
        elif self.speed != "max" and (traps if self.unit == "trap" else steps):
            self.due = max(self.due + self._interval, now)


class Job(greenlet):
    """A long piece of work on one lab. `switch()` runs it to its next report of progress."""

    def __init__(self, work: Callable[[Job], None]) -> None:
        super().__init__(lambda: work(self))
        self.cancelled = False
        self.fraction = 0.0
        self.cancellable = False

    def progress(self, fraction: float) -> bool:
        """The engine's callback: give control back to the loop; False once the job was cancelled."""
        self.fraction = min(max(fraction, 0.0), 1.0)
        if getcurrent() is self:
            assert self.parent is not None
            self.parent.switch()
        return not self.cancelled


@dataclass(eq=False, slots=True)
class Seat:
    """One lab in this worker, and where its work stands."""

    name: str
    slot: int
    tick: int
    revision: int = 0
    lab: Lab | None = None  # None while it is being loaded
    document: bytes = b""
    running: bool = False
    idle: bool = False  # nothing can happen without input
    pace: Pace = field(default_factory=lambda: Pace("max", "trap", 0.0))
    rate: float = RATE_AT_FIRST
    job: Job | None = None
    told: float = -1.0  # the fraction last reported
    tell_at: float = 0.0  # when the next may be
    waiting: deque[wire.Do | wire.Ask | wire.Show | wire.Close] = field(default_factory=deque)
    dirty: bool = False  # something happened since the last tick
    next_tick: float = 0.0
    saved: tuple[int, int] = (0, -1)  # revision and position of the last checkpoint
    next_save: float = 0.0

    @property
    def ready(self) -> Lab:
        assert self.lab is not None
        return self.lab


class Worker:
    """The loop and the labs. `send` takes one encoded message; `clock` is monotonic seconds; `mark` is told
    the slot worked for.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
        mark: Callable[[int], None] = lambda _: None,
        library: Library | None = None,
    ) -> None:
        self._send_bytes = send
        self._clock = clock
        self._mark = mark
        self._library = library or Library()
        self._seats: dict[str, Seat] = {}
        self.stopped = False

    # -- messages ------------------------------------------------------------------------------------
    def send(self, message: wire.FromWorker) -> None:
        self._send_bytes(_encode(message))

    def receive(self, message: wire.ToWorker) -> None:
        """Take one message. What a lab under work cannot take now waits."""
        match message:
            case wire.Open():
                self._open(message)
            case wire.Refresh():
                self._refresh_library()
            case wire.Stop():
                self._stop()
            case wire.Do() | wire.Ask() | wire.Show() | wire.Close():
                seat = self._seats.get(message.lab)
                if seat is None:
                    if not isinstance(message, wire.Close):
                        self._refuse(
                            message,
                            Problem("lab-not-open", "This lab is not open any more; reload the page."),
                        )
                    return
                if (
                    seat.job is not None
                    and seat.job.cancellable
                    and isinstance(message, wire.Do)
                    and _is_pause(message.command)
                ):
                    seat.job.cancelled = True
                seat.waiting.append(message)
                if seat.job is None:
                    self._guarded(seat, lambda: self._serve(seat))

    def _refresh_library(self) -> None:
        if not self._library.refresh():
            return
        for seat in self._seats.values():
            if seat.lab is not None:
                self._refresh(seat)
                self.send(wire.Changed(seat.name, seat.revision, Raw(seat.document)))

    def _serve(self, seat: Seat) -> None:
        while seat.waiting and seat.job is None and self._seats.get(seat.name) is seat:
            message = seat.waiting.popleft()
            match message:
                case wire.Do():
                    self._do(seat, message)
                case wire.Ask():
                    self._ask(seat, message)
                case wire.Show():
                    self._tick(seat)
                    keyframe = Raw(_encode(seat.ready.keyframe()))
                    self.send(wire.Picture(seat.name, message.request, seat.tick, seat.revision, keyframe))
                case wire.Close():
                    self._save(seat)
                    del self._seats[seat.name]
                    self.send(wire.Closed(seat.name))

    def _refuse(self, message: wire.Do | wire.Ask | wire.Show, problem: Problem) -> None:
        self.send(wire.Refused(message.lab, message.request, problem))

    def _ask(self, seat: Seat, message: wire.Ask) -> None:
        query = _decode_query(message.query)
        if isinstance(query, TraceDetailQuery | TraceQuery | StretchQuery):  # may replay a part of the history
            self._start(seat, lambda job: self._answer(seat, message, query, job.progress))
        else:
            self._answer(seat, message, query, _never_cancelled)

    def _answer(
        self, seat: Seat, message: wire.Ask, query: AnyQuery, progress: Callable[[float], bool]
    ) -> None:
        try:
            result = _encode(seat.ready.query(query, progress))
        except LabError as error:
            self._refuse(message, error.problem)
        except Exception:  # noqa: BLE001 - a defect in a query must not cost the lab, which it cannot have changed
            self._refuse(message, internal(report(f"a query to lab {seat.name}")))
        else:
            self.send(wire.Answer(seat.name, message.request, Raw(result)))

    def _do(self, seat: Seat, message: wire.Do) -> None:
        command = _decode_command(message.command)

        def work(progress: Callable[[float], bool]) -> None:
            before = seat.ready.position
            try:
                result = seat.ready.apply(command, progress)
            except LabError as error:
                self._refuse(message, error.problem)
                return
            entry = message.command
            if seat.job is not None and seat.job.cancelled:
                # what was cancelled is kept as what it came to, or its replay would go all the way
                reached = seat.ready.position
                cut: AnyCommand = LabPause() if isinstance(command, LabStep) else LabSeek(reached)
                before = reached if isinstance(command, LabStep) else before
                entry = Raw(_encode(cut))
            self._accepted(seat, command, entry, before, result, message.request)

        if isinstance(command, _MAY_TAKE_LONG):
            self._start(seat, lambda job: work(job.progress), cancellable=True)
        else:
            work(_never_cancelled)

    def _accepted(
        self,
        seat: Seat,
        command: AnyCommand,
        entry: Raw,
        before: int,
        result: dict[str, Any],
        request: int | None,
    ) -> None:
        seat.revision += 1
        self._refresh(seat)
        kept = wire.Entry(seat.revision, before, entry)
        jumped = isinstance(command, _JUMPS)
        self.send(wire.Done(seat.name, request, kept, Raw(_encode(result)), Raw(seat.document), jumped))
        seat.dirty, seat.idle = True, False
        if isinstance(command, _SAVE_AT_ONCE) or seat.ready.structural(command):
            seat.next_save = 0.0

    def _refresh(self, seat: Seat) -> None:
        document = seat.ready.document()
        seat.document = _encode(document)
        if document["running"] != seat.running or (document["speed"], document["unit"]) != (
            seat.pace.speed,
            seat.pace.unit,
        ):
            seat.pace = Pace(document["speed"], document["unit"], self._clock())
        seat.running = document["running"]

    # -- opening and saving --------------------------------------------------------------------------
    def _open(self, message: wire.Open) -> None:
        self._library.refresh()
        seat = Seat(message.lab, message.slot, message.tick)
        self._seats[seat.name] = seat
        self._start(seat, lambda job: self._load(seat, message, job))

    def _load(self, seat: Seat, message: wire.Open, job: Job) -> None:
        sizes: dict[str, Any] = message.limits
        limits = Limits(**sizes)
        try:
            if message.checkpoint is not None:
                lab = Lab.load(message.checkpoint, limits, self._library)
            elif message.origin == "demo":
                lab = Lab.demo(limits, self._library)
            else:
                lab = Lab.new(message.name, limits, self._library)
        except LabError as error:
            self._fail_to_open(seat, error.problem)
            return
        job.progress(0.0)
        seat.revision = message.revision
        if message.checkpoint is not None:
            seat.saved = (message.revision, lab.position)
        for number, entry in enumerate(message.log):
            if not message.quarantined:
                self._run_to(seat, lab, entry.position, job, number / len(message.log))
            command = _decode_command(entry.command)
            try:
                lab.apply(command, job.progress)
            except LabError as error:
                if error.problem.key in _LIBRARY_LACKS:
                    self._fail_to_open(seat, error.problem)
                    return
                # accepted once, refused now: a quarantined lab, which skipped the time between, may do that
                sys.stderr.write(f"lab {seat.name}: entry {entry.revision} could not be replayed: {error}\n")
            seat.revision = entry.revision
        seat.lab = lab
        lab.drain()
        self._refresh(seat)
        self.send(wire.Opened(seat.name, seat.revision, Raw(seat.document)))
        if message.quarantined and seat.running:
            pause = LabPause()
            self._accepted(
                seat, pause, Raw(_encode(pause)), lab.position, lab.apply(pause, _never_cancelled), None
            )
        seat.next_save = 0.0 if message.checkpoint is None else self._clock() + CHECKPOINT_SECONDS

    def _fail_to_open(self, seat: Seat, problem: Problem) -> None:
        del self._seats[seat.name]
        self.send(wire.OpenFailed(seat.name, problem))

    def _run_to(self, seat: Seat, lab: Lab, position: int, job: Job, fraction: float) -> None:
        while (left := position - lab.position) > 0:
            began = self._clock()
            ran = lab.run(min(left, self._slice_steps(seat)))
            self._measure(seat, ran.steps, began)
            lab.drain()
            if not ran.steps:
                break
            job.progress(fraction)

    def _save(self, seat: Seat) -> None:
        """Send a checkpoint if anything has happened since the last one."""
        if seat.lab is None:
            return
        state = (seat.revision, seat.lab.position)
        began = self._clock()
        if state != seat.saved:
            self.send(wire.Checkpoint(seat.name, seat.revision, seat.lab.position, seat.lab.save()))
            seat.saved = state
        took = self._clock() - began
        seat.next_save = self._clock() + max(CHECKPOINT_SECONDS, took / CHECKPOINT_SHARE)

    def _stop(self) -> None:
        for seat in list(self._seats.values()):
            if seat.lab is None:
                continue  # what it is being loaded from is still there
            if seat.job is not None:
                seat.job.cancelled = True
                while seat.job is not None:
                    self._guarded(seat, lambda seat=seat: self._advance(seat))  # type: ignore[misc]
            self._guarded(seat, lambda seat=seat: self._save(seat))  # type: ignore[misc]
        self.send(wire.Bye())
        self.stopped = True

    # -- work ----------------------------------------------------------------------------------------
    def _start(self, seat: Seat, work: Callable[[Job], None], *, cancellable: bool = False) -> None:
        seat.job = Job(work)
        seat.job.cancellable = cancellable
        seat.told, seat.tell_at = -1.0, self._clock() + LONG_SECONDS

    def _advance(self, seat: Seat) -> None:
        """Run a seat's job to its next report."""
        job = seat.job
        assert job is not None
        job.switch()
        now = self._clock()
        if job.dead:
            seat.job = None
            if seat.told >= 0:
                self.send(wire.Progress(seat.name, 1.0))
            if self._seats.get(seat.name) is seat:
                self._serve(seat)
        elif now >= seat.tell_at:
            seat.tell_at = now + TICK_SECONDS
            if job.fraction != seat.told:
                seat.told = job.fraction
                self.send(wire.Progress(seat.name, job.fraction))

    def _slice_steps(self, seat: Seat) -> int:
        return max(200, int(seat.rate * SLICE_SECONDS))

    def _measure(self, seat: Seat, steps: int, began: float) -> None:
        took = self._clock() - began
        if steps >= 200 and took > 0:
            seat.rate += (steps / took - seat.rate) * 0.3

    def _slice(self, seat: Seat, now: float) -> None:
        steps, traps = seat.pace.budget(self._slice_steps(seat), now)
        if not steps:
            return
        ran = seat.ready.run(steps, traps)
        self._measure(seat, ran.steps, now)
        seat.pace.ran(ran.steps, ran.traps, ran.virtual_ns, self._clock())
        seat.dirty = seat.dirty or ran.steps > 0
        seat.idle = ran.idle and not ran.steps

    def _tick(self, seat: Seat) -> None:
        if not seat.dirty:
            return
        seat.dirty = False
        seat.tick += 1
        self.send(wire.Tick(seat.name, seat.tick, Raw(_encode({"n": seat.tick, **seat.ready.drain()}))))

    def _guarded(self, seat: Seat, work: Callable[[], None]) -> None:
        """Work on one seat; a defect there costs that lab a reload from its checkpoint and nobody else
        anything.
        """
        self._mark(seat.slot)
        try:
            work()
        except GreenletExit:
            raise
        except Exception:  # noqa: BLE001 - the boundary between one lab and all the others
            reference = report(f"lab {seat.name}")
            self._seats.pop(seat.name, None)
            self.send(wire.Broken(seat.name, reference))
        finally:
            self._mark(0)

    def turn(self) -> float:
        """Give every lab that is due one piece of work. Returns the seconds for which nothing is due (0: go
        on at once).
        """
        now = self._clock()
        sleep = LONGEST_SLEEP_SECONDS
        for seat in list(self._seats.values()):
            self._guarded(seat, lambda seat=seat: self._work(seat))  # type: ignore[misc]
            if seat.job is not None:
                sleep = 0.0
            elif seat.lab is not None:
                if seat.running and not seat.idle:
                    sleep = min(sleep, max(0.0, seat.pace.due - now) if seat.pace.speed != "max" else 0.0)
                if seat.dirty:
                    sleep = min(sleep, max(0.0, seat.next_tick - now))
        return sleep

    def _work(self, seat: Seat) -> None:
        if seat.job is not None:
            self._advance(seat)
            return
        now = self._clock()
        if seat.running and not seat.idle:
            self._slice(seat, now)
        now = self._clock()
        if seat.dirty and now >= seat.next_tick:
            seat.next_tick = now + TICK_SECONDS
            self._tick(seat)
        if now >= seat.next_save:
            self._save(seat)


def _is_pause(command: Raw) -> bool:
    return isinstance(_decode_command(command), LabPause)


def _never_cancelled(fraction: float) -> bool:  # noqa: ARG001 - the callback's shape
    return True


def report(where: str) -> str:
    """Write the exception at hand to the log under a new reference, and return the reference."""
    reference = secrets.token_hex(4)
    sys.stderr.write(f"[{reference}] {where}\n{traceback.format_exc()}")
    sys.stderr.flush()
    return reference


def internal(reference: str) -> Problem:
    """What a user is told of a defect of ours."""
    return Problem(
        "internal", f"Something went wrong on our side (reference {reference}).", {"reference": reference}
    )


def main(endpoint: str, identity: str, marker: str, library: str) -> None:
    """Hold labs for the web process at `endpoint` until it says `Stop` or is gone. `library`: a folder."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the terminal's Ctrl+C is for the web process, which then says Stop
    os.nice(NICENESS)
    objects.keep_in(objects.folder_in(os.environ))
    lifeline = sys.stdin.fileno()
    with open(marker, "r+b") as file:
        marks = mmap.mmap(file.fileno(), MARKER.size)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity.encode())
    socket.setsockopt(zmq.LINGER, 5000)
    socket.set_hwm(0)  # the web process bounds what is under way; a full queue must not stop this loop
    socket.connect(endpoint)
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(lifeline, zmq.POLLIN)
    worker = Worker(
        socket.send, mark=lambda slot: MARKER.pack_into(marks, 0, slot), library=Library(Path(library))
    )
    worker.send(wire.Hello(os.getpid()))
    sleep, beat = 0.0, time.monotonic()
    while not worker.stopped:
        ready = dict(poller.poll(int(sleep * 1000 + 0.999)))
        if lifeline in ready:
            os._exit(
                0
            )  # the web process is gone: there is nobody to tell, and nothing here that is not also there
        if socket in ready:
            while not worker.stopped:
                try:
                    content = socket.recv(zmq.NOBLOCK)
                except zmq.Again:
                    break
                worker.receive(wire.decode_to_worker(content))
        if worker.stopped:
            break
        sleep = worker.turn()
        now = time.monotonic()
        if now >= beat:
            beat = now + wire.BEAT_SECONDS
            worker.send(wire.Beat())
        sleep = min(sleep, beat - now)
    socket.close()
    context.term()


if __name__ == "__main__":
    main(*sys.argv[1:])
