"""Comparisons being carried out: their runs are spread over the engine's workers, beside the labs, and what came of
them is kept with the lab.

    start ── runs, oldest comparison's turn first, one on each worker ──> worker
      told of every run that is over ──────────────────────────────────── Compared
      kept when all are

Invariants
- A worker has at most one run at a time, so labs are never behind more than one of its slices.
- Comparisons take turns, run by run, so that a long one does not keep a short one waiting.
- A run whose worker dies is given to another once; if that dies too, the run has a problem and no figures.
- A comparison that was cancelled, or was under way when the server ended, leaves nothing.
"""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
from gevent.event import AsyncResult
from msgspec import Raw, Struct

from engine import wire
from engine.commands import LabError, Problem
from engine.compare import Difference, Measure, Task, Together
from webapp.comparisons import Comparison
from webapp.store import ComparisonRow
from webapp.workers import WorkerProcess

ATTEMPTS = 2
MAX_UNDER_WAY = 4  # of one lab
MAX_KEPT = 50  # of one lab

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Comparison).decode


class _Asked(Struct):
    """A kept comparison whose runs nobody looks at."""

    workloads: list[str]
    configurations: list[str]
    costs: str
    measures: list[Raw]


_decode_asked = msgspec.msgpack.Decoder(_Asked).decode


class Progress(Struct, frozen=True):
    """What pages are told of a comparison: how many runs are over. `state` "gone": cancelled or deleted."""

    id: str
    done: int
    total: int
    state: str  # running, kept, gone


class Outline(Struct, frozen=True):
    """A comparison of a lab, with what was asked and how many of its runs are over. `created`: when the last was
    (seconds since 1970, UTC); None: it is not."""

    id: str
    created: int | None
    asked: Comparison
    done: int
    total: int


class Workers(Protocol):
    """Of webapp.workers.Pool, what is needed here."""

    @property
    def ready(self) -> list[WorkerProcess]: ...
    def send(self, worker: WorkerProcess, message: wire.ToWorker) -> None: ...


@dataclass(eq=False, slots=True)
class UnderWay:
    """A comparison, or (`answer`) a lock-step, with the runs that nobody has yet."""

    id: str
    lab: str
    asked: Comparison
    waiting: deque[Run]
    measures: list[Measure | None]
    answer: AsyncResult | None = None

    @property
    def done(self) -> int:
        return sum(measure is not None for measure in self.measures)

    @property
    def comparison(self) -> Comparison:
        """As far as it is."""
        return msgspec.structs.replace(self.asked, measures=list(self.measures))

    @property
    def outline(self) -> Outline:
        return Outline(self.id, None, self.asked, self.done, len(self.measures))


@dataclass(frozen=True, slots=True)
class Run:
    """One run: of which comparison, its place there, what is to be done, and for which time."""

    of: UnderWay = field(repr=False)
    place: int
    work: Task | Together
    attempt: int = 1


class Comparing:
    """`told` hears how far each lab's comparisons are; `keep(lab, id, content, progress)` puts a finished one on the
    disk, calls `kept` and then tells so. Neither may wait."""

    def __init__(
        self,
        workers: Workers,
        told: Callable[[str, Progress], None],
        keep: Callable[[str, str, bytes, Progress], None],
    ) -> None:
        self._workers = workers
        self._told = told
        self._keep = keep
        self._numbers = itertools.count(1)
        self._turns: deque[UnderWay] = deque()
        self._running: dict[int, tuple[WorkerProcess, Run]] = {}
        self._all: dict[str, UnderWay] = {}

    # -- what pages ask ----------------------------------------------------------------------------------
    def start(self, lab: str, asked: Comparison, kept: int) -> str:
        """Begin one, of a lab that keeps `kept`; its id. Raises LabError."""
        tasks = asked.tasks()
        if len(self.under_way(lab)) >= MAX_UNDER_WAY:
            raise LabError(
                "compare-busy",
                f"{MAX_UNDER_WAY} comparisons of this lab are under way; wait for one, or cancel it.",
                limit=MAX_UNDER_WAY,
            )
        if kept >= MAX_KEPT:
            raise LabError(
                "compare-full", f"A lab keeps {MAX_KEPT} comparisons; delete one first.", limit=MAX_KEPT
            )
        one = UnderWay(secrets.token_hex(6), lab, asked, deque(), [None] * len(tasks))
        one.waiting.extend(Run(one, place, task) for place, task in enumerate(tasks))
        self._begin(one)
        return one.id

    def together(self, lab: str, asked: Together) -> Difference:
        """Step two configurations together, and wait for it. Raises LabError."""
        if sum(one.answer is not None for one in self._all.values() if one.lab == lab) >= MAX_UNDER_WAY:
            raise LabError(
                "compare-busy",
                f"{MAX_UNDER_WAY} comparisons of this lab are under way; wait for one, or cancel it.",
                limit=MAX_UNDER_WAY,
            )
        answer: AsyncResult = AsyncResult()
        one = UnderWay(secrets.token_hex(6), lab, Comparison([], []), deque(), [], answer)
        one.waiting.append(Run(one, 0, asked))
        self._begin(one)
        came: Difference | Problem = answer.get()
        if isinstance(came, Problem):
            raise LabError(came.key, came.message, **came.params)
        return came

    def under_way(self, lab: str) -> list[UnderWay]:
        """Those of a lab, oldest first."""
        return [one for one in self._all.values() if one.lab == lab and one.answer is None]

    def kept(self, comparison: str) -> None:
        """It is on the disk, or never will be."""
        self._all.pop(comparison, None)

    def cancel(self, lab: str, comparison: str) -> bool:
        """End one; False when none is under way under that id."""
        one = self._all.get(comparison)
        if one is None or one.lab != lab:
            return False
        self._forget(one)
        self._told(lab, Progress(one.id, one.done, len(one.measures), "gone"))
        return True

    # -- what workers say --------------------------------------------------------------------------------
    def heard(self, message: wire.Compared) -> None:
        """A run is over."""
        found = self._running.pop(message.number, None)
        if found is not None and found[1].of.id in self._all:
            self._over(found[1], message.result, message.problem)
        self.hand_out()

    def died(self, worker: WorkerProcess) -> None:
        """What the worker had goes to another one, once."""
        lost = [number for number, (holder, _) in self._running.items() if holder is worker]
        for number in lost:
            _, run = self._running.pop(number)
            if run.of.id not in self._all:
                continue
            if run.attempt < ATTEMPTS:
                run.of.waiting.appendleft(replace(run, attempt=run.attempt + 1))
                self._turns.append(run.of)
            else:
                ended = Problem("compare-worker-ended", "The engine's process ended over this run, twice.")
                self._over(run, None, ended)
        self.hand_out()

    def hand_out(self) -> None:
        """Give each worker that has no run the next one."""
        busy = {id(worker) for worker, _ in self._running.values()}
        for worker in self._workers.ready:
            if id(worker) in busy:
                continue
            run = self._next()
            if run is None:
                return
            number = next(self._numbers)
            self._running[number] = worker, run
            self._workers.send(worker, wire.Compare(number, run.work))

    # -- inside ------------------------------------------------------------------------------------------
    def _begin(self, one: UnderWay) -> None:
        self._all[one.id] = one
        self._turns.append(one)
        if one.answer is None:
            self._told(one.lab, Progress(one.id, 0, len(one.measures), "running"))
        self.hand_out()

    def _next(self) -> Run | None:
        while self._turns:
            one = self._turns.popleft()
            if one.waiting and one.id in self._all:
                run = one.waiting.popleft()
                if one.waiting:
                    self._turns.append(one)
                return run
        return None

    def _over(self, run: Run, result: Measure | Difference | None, problem: Problem | None) -> None:
        one = run.of
        if one.answer is not None:
            self._forget(one)
            one.answer.set(result if result is not None else problem)
            return
        if isinstance(run.work, Task):
            one.measures[run.place] = result if isinstance(result, Measure) else Measure(run.work, problem=problem)
        total = len(one.measures)
        if one.done < total:
            self._told(one.lab, Progress(one.id, one.done, total, "running"))
            return
        self._keep(one.lab, one.id, _encode(one.comparison), Progress(one.id, total, total, "kept"))

    def _forget(self, one: UnderWay) -> None:
        del self._all[one.id]
        for number, (worker, run) in self._running.items():
            if run.of is one:
                self._workers.send(worker, wire.CompareNoMore(number))


def decode(content: bytes) -> Comparison:
    """One that was kept. Raises LabError "compare-unreadable"."""
    try:
        return _decode(content)
    except msgspec.MsgspecError as error:
        raise LabError(
            "compare-unreadable", "This comparison was kept by another version of Ringside. Run it again."
        ) from error


def outline(row: ComparisonRow) -> Outline:
    """One that was kept, without its figures."""
    asked = _decode_asked(row.content)
    count = len(asked.measures)
    return Outline(row.id, row.created, Comparison(asked.workloads, asked.configurations, asked.costs), count, count)
