"""The same workload under several ways to virtualize, measured: what a comparison is and how its figures come about.

    Plan = workloads x configurations ── one Task each ──> a fresh machine ── one Measure each

A task boots ringos with `run=work NAME COUNT; poweroff` on a host of its own (its paravirtual build where no other
is taken) and reads the trace, and nothing but the trace: every figure of a `Part` is a sum over records. For a workload
that needs somebody to talk to, a second ringos waits on a bare machine beside it, the same under every configuration;
nothing of it is in any figure but wall time. The guest says itself where its workload begins and ends, by marks
(ringos/user/calls.S: a system call that does nothing, at an address where no other is made):

    power on ── mark ── nothing to do ── mark ── nothing to do ── mark ── COUNT units of work ── mark ── poweroff
        start        the shorter of these two is subtracted                measured

So boot, process creation and what a workload does once are in no figure for a unit of work. The marks themselves
cancel out. A tick of the timer may fall anywhere; of the two stretches with nothing to do, the one with fewer traps is
taken for the one without.

A machine is deterministic, so it runs again to be timed: compiled code warm, nobody listening, from mark to mark.
Short work is timed up to TIMED_RUNS times and the shortest counts: whatever else this computer does can only make it
longer. `clock` brings wall time in from outside. The first of these runs also counts what misses the TLB and the memory
references of the walks that this takes. Wall time differs from run to run; what the TLB holds is no part of the machine's
state, so its misses are not promised to be the same either. All other figures are.

Modelled cycles come from the table that the task names; they and executed instructions are kept apart, and nothing
here adds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise, zip_longest
from typing import Any, get_args

import msgspec
import numpy as np
from msgspec import Struct

from engine import guests
from engine.commands import MAX_CYCLES, CrossingId, LabError, Problem, ProfileId
from engine.document import GuestRow, HostRow
from engine.hypervisor.costs import DEFAULT_COSTS, Costs, Routes
from engine.hypervisor.stacks import BARE_METAL, STACKS, Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.machine.loader import LoadedImage, inspect, with_disk
from engine.machine.tiers import Tier
from engine.trace.record import PATHS, RECORD, Disposition, Kind, Level
from engine.trace.rings import Records
from engine.world import World

#: Builds of the same kernel: a host gets the first that it takes.
GUESTS = ("ringos", "ringos-pv")
PROGRAM, MARK = "work", "mark"
#: A mark's record has the pc of the second instruction at the symbol.
MARK_OFFSET = 4
#: Marks around the work, in their order: before nothing, before nothing again, before the work, after it.
MARKS = 4
HOST = GUEST = 1
#: Of the machine that answers.
PEER = 2
HOST_MEMORY_MIB = 64
SLICE_STEPS = 200_000
SLICE_TRAPS = 2_048
#: A guest that is not done after so many steps never will be, nor after so many traps and as many for each unit: where
#: a switch costs more than a time slice, nothing else happens.
MAX_STEPS = 4_000_000_000
MAX_TRAPS, MAX_TRAPS_PER_UNIT = 50_000, 250
MAX_COUNT = 100_000
#: Of the disk that every machine has: what the workload of that name uses (DISK_BLOCKS in user/workload.c).
DISK_BYTES = 16 << 12
TIMED_RUNS = 3
#: Beyond which a run is not timed again.
TIMED_SECONDS = 0.2
MAX_TASKS = 256
#: Traps of a stretch that a difference shows.
SHOWN_TRAPS = 200

#: Told how far a task is (0 to 1, as far as can be known); False: give up.
Progress = Callable[[float], bool]
#: Seconds of a monotonic clock.
Clock = Callable[[], float]

_GUESTS_OWN = frozenset((Level.USER, Level.KERNEL, Level.KERNEL_DEPRIVILEGED, Level.HARDWARE, Level.FIRMWARE))
_TO_KERNEL = (Disposition.HARDWARE, Disposition.INJECTED)
_TRAP = ("kind", "cause", "pc")
_NOTHING = np.empty(0, RECORD)
_OF_PROGRAMS = (Kind.SYSCALL, Kind.PAGE_FAULT, Kind.EXCEPTION)


# -- what can be compared ------------------------------------------------------------------------------
class Workload(Struct, frozen=True):
    """A row of ringos's own table (user/workload.c). `count`: units of work unless somebody says otherwise; `talks`: to
    another machine; `disk`: needs one, which guests of the palette do not have."""

    name: str
    count: int
    talks: bool = False
    disk: bool = False


WORKLOADS: dict[str, Workload] = {
    row.name: row
    for row in (
        Workload("compute", 100_000),
        Workload("syscall", 1_000),
        Workload("pagefault", 1_000),
        Workload("switch", 300),
        Workload("io", 1_000),
        Workload("timer", 200),
        Workload("disk", 100, disk=True),
        Workload("packet", 100, talks=True),
    )
}


def configurations() -> list[Configuration]:
    """Every stack with every technique that it can use, without switches."""
    return [Configuration(stack, name) for stack, row in STACKS.items() for name in row.techniques or (None,)]


def workload(text: str) -> tuple[str, int]:
    """A workload's name and count from `name` or `name:count`. Raises LabError "compare-workload" or
    "compare-count"."""
    name, colon, digits = text.partition(":")
    row = WORKLOADS.get(name)
    if row is None:
        there = ", ".join(WORKLOADS)
        raise LabError(
            "compare-workload", f"There is no workload {name}. There are: {there}.", workload=name, there=there
        )
    if not colon:
        return name, row.count
    count = int(digits) if digits.isdecimal() and len(digits) <= len(str(MAX_COUNT)) else 0
    if not 1 <= count <= MAX_COUNT:
        raise LabError(
            "compare-count",
            f"{text} does not say how often: name:count, with a count from 1 to {MAX_COUNT}.",
            workload=text,
            limit=MAX_COUNT,
        )
    return name, count


class Task(Struct, frozen=True, tag="measure"):
    """One cell of a comparison; `measure` carries it out. Its virtual time depends on what switches cost."""

    configuration: Configuration
    workload: str
    count: int
    costs: Costs = DEFAULT_COSTS


class Together(Struct, frozen=True, tag="lock-step"):
    """Two configurations side by side; `difference` carries it out. `skip`: so many stretches that differ first."""

    left: Configuration
    right: Configuration
    workload: str
    count: int
    skip: int = 0
    costs: Costs = DEFAULT_COSTS


def costs(text: str) -> Costs:
    """A table of costs: a profile's name, and `+crossing:cycles` for each figure in place of its own; nothing: the
    default. Raises LabError "compare-costs" with the names there are."""
    if not text:
        return DEFAULT_COSTS
    profile, *changes = text.split("+")
    pairs = [change.partition(":") for change in changes]
    try:
        return msgspec.convert(
            {"profile": profile, "overrides": {crossing: int(cycles) for crossing, _, cycles in pairs}}, Costs
        )
    except (ValueError, msgspec.ValidationError):
        there, crossings = ", ".join(get_args(ProfileId)), ", ".join(get_args(CrossingId))
        raise LabError(
            "compare-costs",
            f"There is no table of costs {text}. There are: {there}; with +CROSSING:CYCLES, up to {MAX_CYCLES}, of "
            f"{crossings}.",
            costs=text,
            there=there,
            crossings=crossings,
            limit=MAX_CYCLES,
        ) from None


def costs_text(table: Costs) -> str:
    """What `costs` reads."""
    changes = [f"{crossing}:{cycles}" for crossing, cycles in sorted(table.overrides.items())]
    return "+".join((table.profile, *changes))


def plan(workloads: list[str], configurations: list[str], table: str = "") -> list[Task]:
    """Every workload under every configuration (engine.hypervisor.stacks), workload by workload, each once, with one
    table of costs. Raises LabError, also "compare-size" when they are too many."""
    chosen = dict.fromkeys(map(workload, workloads))
    ways = dict.fromkeys(map(Configuration.parse, configurations))
    count = len(chosen) * len(ways)
    if not 1 <= count <= MAX_TASKS:
        raise LabError(
            "compare-size",
            f"A comparison has 1 to {MAX_TASKS} runs (workloads times configurations); this one has {count}.",
            limit=MAX_TASKS,
            count=count,
        )
    charged = costs(table)
    return [Task(way, name, count, charged) for name, count in chosen for way in ways]


# -- what comes of it ----------------------------------------------------------------------------------
class Row(Struct, frozen=True):
    """Traps of one sort in a part of a run, by the names of engine.trace.record; `path` is the stations, `cause` the
    record's byte. `crossed`: how many of them were charged the path's crossings, `cycles` modelled ones in all."""

    kind: str
    cause: int
    path: tuple[str, ...]
    disposition: str
    count: int
    crossed: int
    cycles: int

    @property
    def exit(self) -> bool:
        """Did somebody have to step in who is neither the guest, its firmware nor the hart?"""
        return any(Level[station.upper()] not in _GUESTS_OWN for station in self.path)


class Crossing(Struct, frozen=True):
    """How often execution went from one level to another, and the modelled cycles of that."""

    source: str
    target: str
    count: int
    cycles: int


class Part(Struct, frozen=True):
    """A stretch of a run: guest instructions retired, virtual time, and its traps, most frequent first."""

    instructions: int
    virtual_ns: int
    rows: list[Row]

    @property
    def traps(self) -> int:
        return sum(row.count for row in self.rows)

    @property
    def exits(self) -> int:
        return sum(row.count for row in self.rows if row.exit)

    @property
    def cycles(self) -> int:
        """Modelled cycles of all crossings."""
        return sum(row.cycles for row in self.rows)

    def crossings(self, routes: Routes) -> list[Crossing]:
        """Level by level, over the paths of all exits that left the guest; an exit that came when somebody else had
        the hart anyway crossed nothing. `routes`: of the host."""
        found: dict[tuple[Level, Level], list[int]] = {}
        for row in self.rows:
            if not row.exit:
                continue
            path = tuple(Level[station.upper()] for station in row.path)
            cycles = {(leg.begin, leg.end): leg.cycles for leg in routes.legs(path)}
            crossed = row.crossed if any(cycles.values()) else row.count
            for leg in pairwise(path):
                sums = found.setdefault(leg, [0, 0])
                sums[0] += crossed
                sums[1] += crossed * cycles.get(leg, 0)
        return [
            Crossing(source.name.lower(), target.name.lower(), *sums) for (source, target), sums in found.items()
        ]


class Measure(Struct, frozen=True, tag="measure"):
    """A task carried out. `start`: from power-on to the first mark; `work`: `task.count` units of work and nothing
    else, `crossings` of it. Pages are of 4 KiB: the guest's own, and what the hypervisor keeps for it beside them.
    `output`: SHA-256 of all that the guest printed, `said`: the workload's own line. problem: why there are no
    figures. `tlb_misses`, `walk_references`: of the work with its last mark."""

    task: Task
    start: Part = Part(0, 0, [])
    work: Part = Part(0, 0, [])
    crossings: list[Crossing] = []
    guest_pages: int = 0
    overhead_pages: int = 0
    output: str = ""
    said: str = ""
    wall_s: float = 0.0
    tlb_misses: int = 0
    walk_references: int = 0
    problem: Problem | None = None

    @property
    def switches(self) -> int:
        return sum(crossing.count for crossing in self.crossings)


# -- the machine ---------------------------------------------------------------------------------------
@cache
def _image(name: str) -> LoadedImage:
    return with_disk(inspect(guests.load_image(name), name), bytes(DISK_BYTES), "disk")


@cache
def mark_address() -> int:
    """The pc of every mark, a user virtual address. Every build has the same programs."""
    symbols = guests.program_symbols(GUESTS[0])[PROGRAM]
    return next(address for address, _, name in symbols if name == MARK) + MARK_OFFSET


class _Machine:
    """One task's host with its guest about to start, and what the guest has printed. `world`: the host, and the peer's
    where there is one."""

    def __init__(self, task: Task, tier: Tier) -> None:
        self.printed = bytearray()
        self.world = World(_image, self._print, tier, task.costs)
        self.trace = self.world.trace
        if task.workload in WORKLOADS and WORKLOADS[task.workload].talks:
            self._add(PEER, Configuration.of(BARE_METAL), "")
        self._add(GUEST, task.configuration, f"run=work {task.workload} {task.count}; poweroff")
        self.host, self.guest = self.world.hosts[HOST], self.world.guest(GUEST)
        self._seen = 0
        self._most_traps = MAX_TRAPS + MAX_TRAPS_PER_UNIT * task.count

    def _add(self, number: int, way: Configuration, arguments: str) -> None:
        """A host with a guest."""
        self.world.add_host(HostRow(number, "", 0, 0, 1, HOST_MEMORY_MIB, way.stack, way.technique, way.switches))
        build = next((name for name in GUESTS if self._takes(number, _image(name))), GUESTS[0])
        self.world.add_guest(GuestRow(number, "", number, build, 1, guests.guest(build).memory_mib, arguments))

    def _takes(self, host: int, image: LoadedImage) -> bool:
        machine_mode = image.start_mode == "M"
        return self.world.hosts[host].fits(1, HOST_MEMORY_MIB // 2, machine_mode, image.paravirtual) is None

    def _print(self, guest: int, data: bytes) -> None:
        if guest == GUEST:
            self.printed += data

    def advance(self) -> Records:
        """Run on a little; the records of that."""
        self.world.run(SLICE_STEPS, SLICE_TRAPS)
        total = self.trace.total(GUEST)
        fresh, self._seen = total - self._seen, total
        return self.trace.records(GUEST, None, fresh)

    @property
    def done(self) -> bool:
        if self.guest.ended or self.world.idle or self.world.position >= MAX_STEPS:
            return True
        return self.trace.total(GUEST) >= self._most_traps

    @property
    def said(self) -> str:
        """The line that the workload printed."""
        lines = self.printed.decode("utf-8", "replace").splitlines()
        return next((line for line in lines if line.startswith(f"{PROGRAM} ")), "")

    def memory(self) -> tuple[int, int]:
        """Pages of the guest's own, and what the hypervisor keeps for it."""
        if not isinstance(self.guest, VmGuest):
            return len(self.host.memory.save()), 0
        own = len(self.guest.vm.ram.map)
        return own, self.host.frames.used - own

    def problem(self, marks: int) -> Problem | None:
        """Why this run has no figures."""
        guest = self.guest
        if guest.failure is not None:
            return guest.failure
        if not guest.ended or guest.exit_status or marks != MARKS or not self.said:
            last = next((line for line in reversed(self.printed.decode("utf-8", "replace").splitlines()) if line), "")
            return Problem(
                "compare-unfinished",
                f"The guest did not finish its workload. The last it printed: {last or 'nothing'}",
                {"last": last[:200]},
            )
        return None


_FIELDS = ("kind", "cause", "path", "disposition")


class _Tally:
    """Sums over records."""

    def __init__(self) -> None:
        self.instructions = 0
        self._counts: dict[int, list[int]] = {}

    def add(self, records: Records) -> None:
        if not len(records):
            return
        self.instructions += int(records["executed"].sum(dtype=np.uint64))
        keys = np.zeros(len(records), np.uint64)
        for name in _FIELDS:
            keys = keys << np.uint64(8) | records[name]
        found, inverse = np.unique(keys, return_inverse=True)
        costs = records["cost"].astype(np.float64)
        sums = (np.bincount(inverse), np.bincount(inverse, costs > 0), np.bincount(inverse, costs))
        for key, *row in zip(found.tolist(), *(part.tolist() for part in sums), strict=True):
            total = self._counts.setdefault(key, [0, 0, 0])
            for place, value in enumerate(row):
                total[place] += int(value)

    @property
    def traps(self) -> int:
        return sum(count for count, *_ in self._counts.values())

    def less(self, other: _Tally) -> _Tally:
        """What is here beyond what is there."""
        rest = _Tally()
        rest.instructions = self.instructions - other.instructions
        for key, sums in self._counts.items():
            left = [mine - theirs for mine, theirs in zip(sums, other._counts.get(key, (0, 0, 0)), strict=True)]
            if left[0] > 0:
                rest._counts[key] = left
        return rest

    def part(self, virtual_ns: int) -> Part:
        rows = []
        for key, (count, crossed, cycles) in self._counts.items():
            kind, cause, path, disposition = key.to_bytes(4, "big")
            stations = tuple(level.name.lower() for level in PATHS[path])
            kind_name, ended = Kind(kind).name.lower(), Disposition(disposition).name.lower()
            rows.append(Row(kind_name, cause, stations, ended, count, crossed, cycles))
        rows.sort(key=lambda row: (-row.count, row.kind, row.cause, row.path, row.disposition))
        return Part(self.instructions, virtual_ns, rows)


def _cancelled() -> LabError:
    return LabError("cancelled", "Cancelled.")


def _is_mark(records: Records) -> Any:
    return (records["kind"] == Kind.SYSCALL) & (records["pc"] == np.uint64(mark_address()))


def measure(task: Task, progress: Progress, clock: Clock, tier: Tier = Tier.JIT) -> Measure:
    """Carry out a task. A guest that cannot start, fails or never ends is a Measure with a problem. Raises LabError
    "cancelled"."""
    try:
        machine = _Machine(task, tier)
    except LabError as error:
        return Measure(task, problem=error.problem)
    tallies = [_Tally()]
    times, steps = [0], [0]
    while not machine.done:
        records = machine.advance()
        begin = 0
        for index in np.flatnonzero(_is_mark(records)).tolist():
            tallies[-1].add(records[begin : index + 1])
            tallies.append(_Tally())
            times.append(int(records["time"][index]))
            steps.append(int(records["position"][index]) + 1)
            begin = index + 1
        tallies[-1].add(records[begin:])
        if not progress(0.0):
            raise _cancelled()
    problem = machine.problem(len(tallies) - 1)
    if problem is not None:
        return Measure(task, said=machine.said, problem=problem)
    start, nothing, again, work, _ = tallies
    _, started, between, begun, ended = times
    idle, idled = min((nothing, between - started), (again, begun - between), key=lambda stretch: stretch[0].traps)
    own, overhead = machine.memory()
    part = work.less(idle).part(ended - begun - idled)
    return Measure(
        task,
        start.part(started),
        part,
        part.crossings(machine.host.routes),
        own,
        overhead,
        hashlib.sha256(machine.printed).hexdigest(),
        machine.said,
        *_timed(task, steps[MARKS - 1], steps[MARKS], progress, clock, tier),
    )


def _timed(
    task: Task, begin: int, end: int, progress: Progress, clock: Clock, tier: Tier
) -> tuple[float, int, int]:
    """What the machine takes from one position to another: wall seconds, the least of up to TIMED_RUNS; misses of the
    TLB, and references of the walks."""
    machine = _Machine(task, tier)
    world = machine.world
    _run_to(world, begin, progress, clock)
    state, before = world.save(), machine.guest.walked(0)
    times = [_run_to(world, end, progress, clock)]
    misses, references = (after - so_far for after, so_far in zip(machine.guest.walked(0), before, strict=True))
    while len(times) < TIMED_RUNS and sum(times) < TIMED_SECONDS:
        world.load(state)
        times.append(_run_to(world, end, progress, clock))
    return min(times), misses, references


def _run_to(world: World, position: int, progress: Progress, clock: Clock) -> float:
    """Seconds that it takes."""
    took = 0.0
    while (left := position - world.position) > 0:
        began = clock()
        world.run(min(left, SLICE_STEPS), SLICE_TRAPS)
        took += clock() - began
        if not progress(0.5):
            raise _cancelled()
    return took


# -- two machines in lock-step -------------------------------------------------------------------------
class Difference(Struct, frozen=True, tag="lock-step"):
    """Two configurations side by side through the work, a stretch at a time: a stretch begins with what both guests
    must see alike, a trap of a program that its own kernel handles, and goes on to the next such trap.

    `stretch`: number of the stretch that is shown, from 0, None when none differs (after `skip` that did); `same`:
    traps of it that are alike before the first that differs. `left`, `right`: its records (RECORD layout), at most
    SHOWN_TRAPS. `seen`: how many traps of programs both kernels handled alike, over the whole run; `apart`: the first
    pair that they did not, None when there is none; `console`: did both print the same?
    """

    stretch: int | None
    same: int
    left: bytes
    right: bytes
    seen: int
    apart: tuple[bytes, bytes] | None
    console: bool


def difference(asked: Together, progress: Progress, tier: Tier = Tier.JIT) -> Difference:
    """Step two configurations together through a workload. Raises LabError: one cannot start, or "cancelled"."""
    left, right = (
        _Machine(Task(side, asked.workload, asked.count, asked.costs), tier) for side in (asked.left, asked.right)
    )
    skip = asked.skip
    streams = [_stretches(machine, progress) for machine in (left, right)]
    shown: tuple[int, int, bytes, bytes] | None = None
    apart: tuple[bytes, bytes] | None = None
    seen = 0
    for number, (mine, theirs) in enumerate(zip_longest(*streams, fillvalue=_NOTHING)):
        if shown is None and (same := _alike(mine, theirs)) is not None:
            if skip:
                skip -= 1
            else:
                shown = number, same, mine[:SHOWN_TRAPS].tobytes(), theirs[:SHOWN_TRAPS].tobytes()
        if apart is None:
            if _handled(mine) == _handled(theirs):
                seen += 1
            else:
                apart = mine[:1].tobytes(), theirs[:1].tobytes()
    stretch, same, *records = shown or (None, 0, b"", b"")
    return Difference(stretch, same, records[0], records[1], seen, apart, left.printed == right.printed)


def _stretches(machine: _Machine, progress: Progress) -> Iterator[Records]:
    """The records of the work, cut before each that a program's own kernel handles."""
    marks = 0
    kept: list[Records] = []
    while not machine.done:
        records = machine.advance()
        if not progress(0.0):
            raise _cancelled()
        if marks < MARKS - 1:
            found = np.flatnonzero(_is_mark(records))[: MARKS - 1 - marks]
            marks += len(found)
            if marks < MARKS - 1:
                continue
            records = records[found[-1] + 1 :]
        begin = 0
        for index in np.flatnonzero(_reaches_kernel(records)).tolist():
            if kept:
                yield np.concatenate([*kept, records[begin:index]])
            kept, begin = [records[index : index + 1]], index + 1
        if kept:
            kept.append(records[begin:])
    if kept:
        yield np.concatenate(kept)


def _reaches_kernel(records: Records) -> Any:
    return (
        (records["from_level"] == Level.USER)
        & np.isin(records["kind"], _OF_PROGRAMS)
        & np.isin(records["disposition"], _TO_KERNEL)
    )


def _handled(stretch: Records) -> tuple[int, ...] | None:
    """What the program's trap is with which a stretch begins; None: the run ended before."""
    return tuple(int(stretch[name][0]) for name in _TRAP) if len(stretch) else None


def _alike(mine: Records, theirs: Records) -> int | None:
    """How many traps are alike before the first that differs; None: all are."""
    least = min(len(mine), len(theirs))
    unlike = np.zeros(least, bool)
    for name in (*_TRAP, "disposition"):
        unlike |= mine[name][:least] != theirs[name][:least]
    if unlike.any():
        return int(np.argmax(unlike))
    return None if len(mine) == len(theirs) else least
