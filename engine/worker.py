"""The process that holds labs: the one part of the engine that knows a clock and talks to the outside.

    python -m engine.worker ENDPOINT IDENTITY MARKER LIBRARY   (started by webapp.workers; stdin: a lifeline)

One thread, one loop: take the messages that are there, give every lab that is due one slice of about
`SLICE_SECONDS`, send what happened. A command that takes long (a step to a trap that is far away, a seek,
loading) runs as a job in a greenlet that hands control back whenever the engine reports progress, so other
labs go on and `lab.pause` can end it. The runs of comparisons (engine.compare) are jobs of the same kind that belong
to no lab.

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
    ConsoleInput,
    GdbQuery,
    GuestPower,
    GuestRename,
    GuestSet,
    HostUpdate,
    ImageAdd,
    ImageAssemble,
    LabError,
    LabPause,
    LabQuery,
    LabRedo,
    LabRename,
    LabReset,
    LabRun,
    LabSeek,
    LabSpeed,
    LabStep,
    LabStepBack,
    LabUndo,
    Problem,
    SnapshotTake,
    StretchQuery,
    TraceDetailQuery,
    TraceQuery,
)
from engine.compare import Task, difference, measure
from engine.debugger import Debugger
from engine.door import Door
from engine.gdb import Stub
from engine.history import History
from engine.hypervisor.stacks import FORMER_MARK, migrated
from engine.lab import Lab, Limits
from engine.library import Library
from engine.machine.native import objects
from engine.world import World

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

#: What a lab takes while gdb holds one of its guests: nothing that would take the time out of gdb's hands.
_BESIDE_GDB = (
    ConsoleInput, GuestRename, HostUpdate, ImageAdd, ImageAssemble, LabPause, LabRename, LabSpeed, SnapshotTake,
)  # fmt: skip
#: Steps of gdb follow one another quickly; how far they came is kept and told so often.
MARK_SECONDS = 0.3
GDB_WAITING, GDB_HELD, GDB_RUNNING = range(3)

_encode = wire.encode
_decode_command = msgspec.msgpack.Decoder(AnyCommand).decode
_decode_query = msgspec.msgpack.Decoder(AnyQuery).decode


def _logged(command: Raw) -> AnyCommand:
    """An entry of a lab's log, which may be older than today's names."""
    logged: AnyCommand = (
        msgspec.convert(migrated(msgspec.msgpack.decode(command)), AnyCommand)
        if FORMER_MARK in bytes(command)
        else _decode_command(command)
    )
    return logged


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
class Debugged:
    """A guest of a lab for which gdb has a port. While `holding`, gdb alone moves the lab in time; `reached`: the
    farthest position since the last one that was kept (`kept`); `resume`: the lab ran when gdb came."""

    guest: int
    stub: Stub
    door: Door
    holding: bool = False
    kept: int = 0
    reached: int = 0
    resume: bool = False
    mark_at: float = 0.0

    @property
    def held(self) -> bool:
        """Does gdb have the lab's time in its hands?"""
        return self.door.attached and not self.stub.detached

    @property
    def state(self) -> int:
        return GDB_WAITING if not self.held else GDB_RUNNING if self.stub.running else GDB_HELD


class LabOfGdb:
    """What gdb works on (engine.debugger.Subject): the lab of a seat, whose changes are entries of its log."""

    def __init__(self, seat: Seat, change: Callable[[GuestSet], bool]) -> None:
        self._seat = seat
        self.change = change

    @property
    def world(self) -> World:
        return self._seat.ready.world

    @property
    def history(self) -> History:
        return self._seat.ready.history


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
    gdb_address: str | None = None  # where gdb's ports are; None: there are none
    gdb: Debugged | None = None

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
        self._runs: dict[int, Job] = {}  # of comparisons
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
            case wire.Compare():
                self._runs[message.number] = Job(lambda job: self._compare(message, job))
            case wire.CompareNoMore():
                if message.number in self._runs:
                    self._runs[message.number].cancelled = True
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
                    keyframe = Raw(_encode({**seat.ready.keyframe(), "gdb": _gdb_row(seat)}))
                    self.send(wire.Picture(seat.name, message.request, seat.tick, seat.revision, keyframe))
                case wire.Close():
                    self._close_gdb(seat)
                    self._save(seat)
                    del self._seats[seat.name]
                    self.send(wire.Closed(seat.name))

    def _refuse(self, message: wire.Do | wire.Ask | wire.Show, problem: Problem) -> None:
        self.send(wire.Refused(message.lab, message.request, problem))

    def _ask(self, seat: Seat, message: wire.Ask) -> None:
        query = _decode_query(message.query)
        if isinstance(query, GdbQuery):
            self._ask_gdb(seat, message, query)
            return
        if isinstance(query, TraceDetailQuery | TraceQuery | StretchQuery):  # may replay a part of the history
            self._start(seat, lambda job: self._answer(seat, message, query, job.progress))
        else:
            self._answer(seat, message, query, _never_cancelled)

    def _answer(
        self, seat: Seat, message: wire.Ask, query: LabQuery, progress: Callable[[float], bool]
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
        gdb = seat.gdb
        if gdb is not None and gdb.held:
            if not isinstance(command, _BESIDE_GDB):
                self._refuse(message, _held_by_gdb(seat, gdb.guest))
                return
            if isinstance(command, LabPause):
                gdb.door.say(gdb.stub.interrupt())
            self._keep_place(seat)

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
        if seat.gdb is not None and seat.gdb.guest not in seat.ready.world.homes:
            self._close_gdb(seat)

    def _refresh(self, seat: Seat) -> None:
        document = seat.ready.document()
        seat.document = _encode(document)
        if document["running"] != seat.running or (document["speed"], document["unit"]) != (
            seat.pace.speed,
            seat.pace.unit,
        ):
            seat.pace = Pace(document["speed"], document["unit"], self._clock())
        seat.running = document["running"]

    # -- gdb ---------------------------------------------------------------------------------------
    def _ask_gdb(self, seat: Seat, message: wire.Ask, query: GdbQuery) -> None:
        """Open or close a guest's port. A lab has one time, so one guest at a time."""
        try:
            result = self._port(seat, query)
        except LabError as error:
            self._refuse(message, error.problem)
        else:
            self.send(wire.Answer(seat.name, message.request, Raw(_encode(result))))

    def _port(self, seat: Seat, query: GdbQuery) -> dict[str, Any]:
        if seat.gdb_address is None:
            raise LabError("gdb-off", "This server has no ports for gdb: RINGSIDE_GDB is off.")
        if query.guest not in seat.ready.world.homes:
            raise LabError("no-such-guest", f"This lab has no guest {query.guest}.", guest=query.guest)
        if not query.open:
            if seat.gdb is not None and seat.gdb.guest == query.guest:
                self._close_gdb(seat)
            return {"address": seat.gdb_address, "port": None}
        if seat.gdb is None:
            subject = LabOfGdb(seat, lambda change: self._set_by_gdb(seat, change))
            stub = Stub(Debugger(subject, query.guest), runs_on=False)
            try:
                door = Door(stub, seat.gdb_address)
            except OSError as error:
                reason = error.strerror or str(error)
                raise LabError(
                    "gdb-port", f"No port for gdb can be opened on {seat.gdb_address}: {reason}.", reason=reason
                ) from error
            seat.gdb = Debugged(query.guest, stub, door)
            seat.dirty = True
        elif seat.gdb.guest != query.guest:
            raise LabError(
                "gdb-other-guest",
                f"The guest {seat.gdb.guest} of this lab has the port for gdb; close it first.",
                guest=seat.gdb.guest,
            )
        return {"address": seat.gdb.door.address, "port": seat.gdb.door.port}

    def _close_gdb(self, seat: Seat) -> None:
        gdb = seat.gdb
        if gdb is not None:
            self._keep_place(seat)
            gdb.door.close()
            seat.gdb, seat.dirty = None, True

    def _debug(self, seat: Seat, gdb: Debugged, now: float) -> None:
        """Hear what gdb says and run on for it."""
        gdb.door.exchange()
        if gdb.held and not gdb.holding:
            gdb.holding, gdb.kept, gdb.reached = True, seat.ready.position, seat.ready.position
            gdb.resume, seat.dirty = seat.running, True
            if seat.running:
                self._command(seat, LabPause())
        if not gdb.holding:
            return
        if gdb.stub.running and not gdb.stub.waits:
            gdb.door.say(gdb.stub.advance())
            seat.dirty = True
        gdb.reached = max(gdb.reached, seat.ready.position)
        if gdb.stub.killed:
            gdb.door.hang_up()
        if not gdb.held or (not gdb.stub.running and now >= gdb.mark_at):
            self._keep_place(seat)
        if not gdb.held:
            gdb.holding, seat.dirty = False, True
            if gdb.stub.killed:
                self._command(seat, GuestPower(gdb.guest, "off"))
            elif gdb.stub.detached and gdb.resume:
                self._command(seat, LabRun())

    def _keep_place(self, seat: Seat) -> None:
        """Make where gdb has taken the lab an entry of its log, and tell pages that it is there."""
        gdb = seat.gdb
        if gdb is None or not gdb.holding or seat.ready.position == gdb.kept:
            return
        position = seat.ready.position
        before, gdb.kept, gdb.reached = max(gdb.reached, position), position, position
        gdb.mark_at = self._clock() + MARK_SECONDS
        seek = LabSeek(position)
        seat.ready.jumped()
        self._accepted(seat, seek, Raw(_encode(seek)), before, {}, None)

    def _set_by_gdb(self, seat: Seat, change: GuestSet) -> bool:
        self._keep_place(seat)
        return bool(self._command(seat, change)["changed"])

    def _command(self, seat: Seat, command: AnyCommand) -> dict[str, Any]:
        """A command that the worker gives itself, kept like any other."""
        before = seat.ready.position
        result = seat.ready.apply(command, _never_cancelled)
        self._accepted(seat, command, Raw(_encode(command)), before, result, None)
        return result

    def doors(self) -> list[tuple[int, bool]]:
        """What to wait for besides messages: file descriptors of gdb's ports, and whether each is to be written."""
        doors = [seat.gdb.door for seat in self._seats.values() if seat.gdb is not None]
        return [
            *((reader.fileno(), False) for door in doors for reader in door.readers()),
            *((writer.fileno(), True) for door in doors for writer in door.writers()),
        ]

    # -- opening and saving --------------------------------------------------------------------------
    def _open(self, message: wire.Open) -> None:
        self._library.refresh()
        seat = Seat(message.lab, message.slot, message.tick, gdb_address=message.gdb)
        self._seats[seat.name] = seat
        self._start(seat, lambda job: self._load(seat, message, job))

    def _load(self, seat: Seat, message: wire.Open, job: Job) -> None:
        sizes: dict[str, Any] = message.limits
        limits = Limits(**sizes)
        try:
            if message.checkpoint is not None:
                lab = Lab.load(message.checkpoint, limits, self._library, message.afresh)
            elif message.origin == "demo":
                lab = Lab.demo(limits, self._library)
            else:
                lab = Lab.new(message.name, limits, self._library)
        except LabError as error:
            self._fail_to_open(seat, error.problem)
            return
        job.progress(0.0)
        stands = message.quarantined or message.afresh
        seat.revision = message.revision
        if message.checkpoint is not None and not message.afresh:
            seat.saved = (message.revision, lab.position)
        for number, entry in enumerate(message.log):
            if not stands:
                self._run_to(seat, lab, entry.position, job, number / len(message.log))
            command = _logged(entry.command)
            try:
                lab.apply(command, job.progress)
            except LabError as error:
                if error.problem.key in _LIBRARY_LACKS:
                    self._fail_to_open(seat, error.problem)
                    return
                # accepted once, refused now: a lab that skipped the time between may do that
                sys.stderr.write(f"lab {seat.name}: entry {entry.revision} could not be replayed: {error}\n")
            seat.revision = entry.revision
        seat.lab = lab
        lab.drain()
        if message.afresh:
            self._save(seat)
        self._refresh(seat)
        self.send(wire.Opened(seat.name, seat.revision, Raw(seat.document)))
        if stands and seat.running:
            self._command(seat, LabPause())
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
            self._guarded(seat, lambda seat=seat: self._close_gdb(seat))  # type: ignore[misc]
            self._guarded(seat, lambda seat=seat: self._save(seat))  # type: ignore[misc]
        self.send(wire.Bye())
        self.stopped = True

    # -- comparisons ---------------------------------------------------------------------------------
    def _compare(self, message: wire.Compare, job: Job) -> None:
        """One run; a defect of ours costs this run and nothing else."""
        try:
            work = message.work
            if isinstance(work, Task):
                answer = wire.Compared(message.number, measure(work, job.progress, self._clock))
            else:
                answer = wire.Compared(message.number, difference(work, job.progress))
        except LabError as error:
            answer = wire.Compared(message.number, None, error.problem)
        except GreenletExit:
            raise
        except Exception:  # noqa: BLE001 - the boundary between one run and all else
            answer = wire.Compared(message.number, None, internal(report("a comparison")))
        self.send(answer)

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
        if seat.ready.take_moved():
            self._refresh(seat)
            self.send(wire.Changed(seat.name, seat.revision, Raw(seat.document)))

    def _tick(self, seat: Seat) -> None:
        if not seat.dirty:
            return
        seat.dirty = False
        seat.tick += 1
        content = {"n": seat.tick, **seat.ready.drain(), "gdb": _gdb_row(seat)}
        self.send(wire.Tick(seat.name, seat.tick, Raw(_encode(content))))

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
            if seat.gdb is not None:
                seat.gdb.door.close()
            self.send(wire.Broken(seat.name, reference))
        finally:
            self._mark(0)

    def turn(self) -> float:
        """Give every run, and every lab that is due, one piece of work. Returns the seconds for which nothing is
        due (0: go on at once).
        """
        now = self._clock()
        sleep = LONGEST_SLEEP_SECONDS
        for number, run in list(self._runs.items()):
            sleep = 0.0
            run.switch()
            if run.dead:
                del self._runs[number]
        for seat in list(self._seats.values()):
            self._guarded(seat, lambda seat=seat: self._work(seat))  # type: ignore[misc]
            if seat.job is not None:
                sleep = 0.0
            elif seat.lab is not None:
                if seat.running and not seat.idle:
                    sleep = min(sleep, max(0.0, seat.pace.due - now) if seat.pace.speed != "max" else 0.0)
                if seat.dirty:
                    sleep = min(sleep, max(0.0, seat.next_tick - now))
                if seat.gdb is not None:
                    sleep = min(sleep, self._gdb_sleep(seat, seat.gdb, now))
        return sleep

    def _gdb_sleep(self, seat: Seat, gdb: Debugged, now: float) -> float:
        """Seconds for which a seat's debugger has nothing to do unless somebody says something."""
        if gdb.stub.running and not gdb.stub.waits:
            return 0.0
        unkept = gdb.holding and seat.ready.position != gdb.kept
        return max(0.0, gdb.mark_at - now) if unkept else LONGEST_SLEEP_SECONDS

    def _work(self, seat: Seat) -> None:
        if seat.job is not None:
            self._advance(seat)
            return
        now = self._clock()
        if seat.gdb is not None:
            self._debug(seat, seat.gdb, now)
        if seat.running and not seat.idle:
            self._slice(seat, now)
        now = self._clock()
        if seat.dirty and now >= seat.next_tick:
            seat.next_tick = now + TICK_SECONDS
            self._tick(seat)
        if now >= seat.next_save:
            self._save(seat)


def _gdb_row(seat: Seat) -> list[Any] | None:
    """What pages show of gdb: [guest, address, port, state], or None."""
    gdb = seat.gdb
    return None if gdb is None else [gdb.guest, gdb.door.address, gdb.door.port, gdb.state]


def _held_by_gdb(seat: Seat, guest: int) -> Problem:
    rows = {row["id"]: row["name"] for row in seat.ready.document()["guests"]}
    name = str(rows[guest])
    return Problem("held-by-gdb", f"gdb holds {name}: detach it, or close its port, first.", {"guest": name})


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
    doors: list[tuple[int, bool]] = []
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
        if doors or worker.doors():
            for descriptor, _ in doors:
                poller.unregister(descriptor)
            doors = worker.doors()
            for descriptor, writes in sorted(doors):
                poller.register(descriptor, zmq.POLLIN | zmq.POLLOUT if writes else zmq.POLLIN)
        now = time.monotonic()
        if now >= beat:
            beat = now + wire.BEAT_SECONDS
            worker.send(wire.Beat())
        sleep = min(sleep, beat - now)
    socket.close()
    context.term()


if __name__ == "__main__":
    main(*sys.argv[1:])
