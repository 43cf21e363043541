"""Popek and Goldberg's classification of every instruction of this machine, derived by executing it.

    privileged           traps in user mode, and in a mode above it does not
    control-sensitive    somewhere it runs, it changes what is not the program's own: the mode, a CSR, foreign memory
    behaviour-sensitive  somewhere it runs, what it gives the program depends on such state, on where the program's
                         memory really lies, or on the mode
    innocuous            none of these. What traps in every mode is innocuous too: whoever is below always hears of it

Theorem 1: a machine can be virtualized by trap-and-emulate if every sensitive instruction is privileged. G. J. Popek,
R. P. Goldberg: Formal Requirements for Virtualizable Third Generation Architectures, Communications of the ACM 17(7),
1974.

Nothing here says what an instruction is: each row of the table, and each CSR by a read and by every way to write it,
executes on a hart of the reference tier in each of its modes, from two worlds. They are equal in what the program
owns (registers, fcsr, its memory at its virtual addresses) and differ in all the rest: where the memory lies, the
words of other modes, the time, memory that is not the program's. For a CSR the second world differs in that CSR alone.

What is not looked at: mstatus.FS and SD, which only note that the program used its own registers; the cost in time; A
and D bits of page tables, which are set from the start. The translation caches of this machine never tell (see
engine.machine.memory), so fences are privileged but nothing sensitive is seen of them. Counters are closed to user
mode, as a hypervisor leaves them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from engine.bits import MASK64
from engine.isa.csrs import (
    CSRS,
    GUEST_INTERRUPTS,
    STORAGE,
    SUPERVISOR_INTERRUPTS,
    Csr,
    EnvironmentBits,
    GuestStatus,
    Status,
    csr_fields,
)
from engine.isa.disassembler import disassemble
from engine.isa.formats import Row
from engine.isa.silent import imitated
from engine.isa.table import BY_MNEMONIC, FLOAT_REGISTERS, REGISTERS, ROWS
from engine.machine import mmu
from engine.machine.bus import Bus, Devices
from engine.machine.hart import Hart
from engine.machine.memory import PAGE, Memory
from engine.machine.privileged import MACHINE, SUPERVISOR, USER
from engine.machine.reference import operation
from engine.machine.state import NO_RESERVATION
from engine.machine.traps import IllegalInstruction, Trap, VirtualInstruction
from engine.trace.record import Cause, cause_name

#: (privilege, V) of each mode, by the name that the page shows.
MODES = {"U": (USER, 0), "S": (SUPERVISOR, 0), "M": (MACHINE, 0), "VU": (USER, 1), "VS": (SUPERVISOR, 1)}
_SUPERVISORS = ("S", "M")
_BASE, _MEGAPAGE = 0x8000_0000, 1 << 21
#: Where the memory of a program is in each world: without a hypervisor, and of a guest.
_OWN, _OF_GUEST = (0, _MEGAPAGE), (2 * _MEGAPAGE, 3 * _MEGAPAGE)
_TABLES = 4 * _MEGAPAGE
_ADDRESS = _BASE + 0x800
_WINDOW = range(_ADDRESS - _BASE, _ADDRESS - _BASE + 32, 8)
_OPERANDS = {"rd": 10, "rs1": 11, "rs2": 12, "rs3": 13, "shamt": 3, "uimm": 2, "pred": 15, "succ": 15}
_STACK_POINTER = 2
#: What rs1 holds for a CSR that is written: nothing, everything, and an address space.
_WRITTEN = (0, MASK64, mmu.SV39 << 60 | 0x1235)
CSR_WRITES = ("csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci")
_NOTES = Status.FS | Status.SD
_LEAF = mmu.V | mmu.R | mmu.W | mmu.X | mmu.U | mmu.A | mmu.D


class Change(NamedTuple):
    """What an instruction changed that is not the program's: `what` is a CSR's field, a CSR, "mode", "wait" or
    "memory"."""

    what: str
    before: int
    after: int


class Difference(NamedTuple):
    """What an instruction gave the program in two worlds: `what` is a register, "pc", "fcsr" or "memory"."""

    what: str
    one: int
    other: int


@dataclass(frozen=True)
class Behaviour:
    """What an instruction does in one mode. trap: the cause, None: it runs. changes, shows: of all its runs, each kind
    once."""

    trap: int | None
    changes: tuple[Change, ...] = ()
    shows: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One instruction, or one way to access a CSR, by the `encoding` that executed. modes: by the keys of MODES. differs:
    it runs in user mode, and there it does something else than above. x86: what it imitates where the machine is
    silent."""

    name: str
    encoding: int
    extension: str
    modes: dict[str, Behaviour]
    differs: bool
    x86: str = ""

    @property
    def text(self) -> str:
        return disassemble(self.encoding, 0)

    @property
    def runs_above(self) -> bool:
        return any(self.modes[mode].trap is None for mode in _SUPERVISORS)

    @property
    def privileged(self) -> bool:
        return self.modes["U"].trap is not None and self.runs_above

    @property
    def control(self) -> bool:
        return any(self.modes[mode].changes for mode in ("U", *_SUPERVISORS))

    @property
    def behaviour(self) -> bool:
        return self.differs or any(self.modes[mode].shows for mode in ("U", *_SUPERVISORS))

    @property
    def sensitive(self) -> bool:
        return self.control or self.behaviour

    @property
    def violates(self) -> bool:
        """Is it what theorem 1 forbids?"""
        return self.sensitive and not self.privileged

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name, "text": self.text, "extension": self.extension, "privileged": self.privileged,
            "control": self.control, "behaviour": self.behaviour, "violates": self.violates, "differs": self.differs,
            "calls": self.modes["U"].trap is not None and not self.runs_above, "x86": self.x86,
            "modes": {
                mode: {
                    "trap": None if found.trap is None else cause_name(found.trap),
                    "changes": [[what, f"{a:#x}", f"{b:#x}"] for what, a, b in found.changes],
                    "shows": [[what, f"{a:#x}", f"{b:#x}"] for what, a, b in found.shows],
                }
                for mode, found in self.modes.items()
            },
        }  # fmt: skip


class _Run(NamedTuple):
    """One execution: its trap, what it changed, and what the program has then."""

    trap: int | None
    changes: dict[str, Change]
    own: dict[str, int]


@cache
def classify(silent: bool = False) -> tuple[Verdict, ...]:
    """Every instruction, and every CSR. silent: of the machine that has the rows of engine.isa.silent."""
    bench = _Bench(silent)
    rows = [bench.instruction(row) for row in ROWS if "csr" not in row.fields]
    return (*rows, *(bench.csr(row, write) for row in registers() for write in (False, True)))


def registers() -> list[Csr]:
    """Each CSR; of those that are alike but for their number, and always 0, the first."""
    found: dict[str, Csr] = {}
    for row in CSRS.values():
        numbered = not row.storage and row.name[-1].isdigit()
        found.setdefault(re.sub(r"\d+$", "", row.name) if numbered else row.name, row)
    return list(found.values())


class _Tables(NamedTuple):
    satp: int
    vsatp: int
    hgatp: int


class _Bench:
    """The hart, and the two worlds that it is put into."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.memory = Memory(_BASE, _TABLES + 16 * PAGE)
        self.hart = Hart(0, Bus(self.memory, Devices([])), lambda: self._ticks, True, silent)
        self._ticks = 0
        self._tables = [self._make_tables(_TABLES + 8 * PAGE * world, world) for world in (0, 1)]

    def _make_tables(self, at: int, world: int) -> _Tables:
        """Lead the program's addresses to its memory in this world. A guest's first stage changes nothing, its second
        does, and leaves the tables where they are."""
        root, middle, first, second = (at + PAGE * index for index in (5, 6, 7, 4))
        self._entry(root, _BASE >> 30, middle, mmu.V)
        self._entry(middle, 0, _OWN[world], _LEAF)
        self._entry(first, _BASE >> 30, 0, _LEAF)
        self._entry(at, _BASE >> 30, second, mmu.V)
        self._entry(second, 0, _OF_GUEST[world], _LEAF)
        self._entry(second, _TABLES // _MEGAPAGE, _TABLES, _LEAF)
        satp, vsatp, hgatp = (mmu.SV39 << 60 | (_BASE + table) >> 12 for table in (root, first, at))
        return _Tables(satp, vsatp, hgatp)

    def _entry(self, table: int, index: int, to: int, flags: int) -> None:
        self.memory.write(table + 8 * index, 8, (_BASE + to) >> 12 << 10 | flags)

    # -- verdicts ------------------------------------------------------------------------------------
    def instruction(self, row: Row) -> Verdict:
        operands = dict(_OPERANDS)
        if "imm" in row.fields:
            step = row.limits("imm").step
            operands["imm"] = step * max(1, 8 // step)
        word = row.encode(**{name: operands[name] for name in row.fields if name in operands})
        return self._verdict(row.mnemonic, row.extension, word, [(word, None, _ADDRESS)])

    def csr(self, row: Csr, write: bool) -> Verdict:
        access = {"rd": 0 if write else _OPERANDS["rd"], "csr": row.number, "rs1": _OPERANDS["rs1"] if write else 0}
        word = BY_MNEMONIC["csrrw" if write else "csrrs"].encode(**access)
        forms: list[tuple[int, Csr | None, int]] = [(word, row, 0)]
        if write:
            forms = [
                (BY_MNEMONIC[name].encode(**{"rd": 0, "csr": row.number, operand: number}), row, value)
                for name in CSR_WRITES
                for operand, number, values in (("uimm", 2, (0,)), ("uimm", 31, (0,)), ("rs1", 11, _WRITTEN))
                if operand in BY_MNEMONIC[name].fields
                for value in values
            ]
        x86 = imitated(word) if self.silent else ""
        return self._verdict(f"{'csrw' if write else 'csrr'} {row.name}", "Zicsr", word, forms, x86)

    def _verdict(
        self, name: str, extension: str, word: int, forms: list[tuple[int, Csr | None, int]], x86: str = ""
    ) -> Verdict:
        """forms: (encoding, the CSR that the worlds differ in, value of rs1)."""
        runs = {mode: [[self._run(mode, *form, world) for world in (0, 1)] for form in forms] for mode in MODES}
        above = [mode for mode in _SUPERVISORS if all(run.trap is None for pair in runs[mode] for run in pair)]
        differs = any(
            one.trap is None and (one.own, one.changes.keys()) != (other.own, other.changes.keys())
            for mode in above
            for pair, pair_above in zip(runs["U"], runs[mode], strict=True)
            for one, other in zip(pair, pair_above, strict=True)
        )
        modes = {mode: _behaviour(pairs) for mode, pairs in runs.items()}
        return Verdict(name, word, extension, modes, differs, x86)

    # -- runs ----------------------------------------------------------------------------------------
    def _run(self, mode: str, word: int, row: Csr | None, value: int, world: int) -> _Run:
        hart = self.hart
        where = self._prepare(mode, row, value, world)
        before, memory = self._words(), self._memory()
        trap = None
        try:
            hart.pc = operation(word)(hart, hart.pc) & MASK64
        except Trap as raised:
            trap = raised.cause
        except IllegalInstruction:
            trap = int(Cause.ILLEGAL_INSTRUCTION)
        except VirtualInstruction:
            trap = int(Cause.VIRTUAL_INSTRUCTION)
        changes = {
            change.what: change
            for name, after in self._words().items()
            if before[name] != after
            for change in _explain(name, before[name], after, mode, row)
        }
        own = dict(zip(REGISTERS, hart.x, strict=True)) | dict(zip(FLOAT_REGISTERS, hart.f, strict=True))
        own |= {"pc": hart.pc, "fcsr": hart.fcsr}
        for (place, offset), after in self._memory().items():
            if place == where:
                own[f"memory+{offset - _WINDOW.start}"] = after
            elif memory[place, offset] != after:
                changes["memory"] = Change("memory", memory[place, offset], after)
        return _Run(trap, changes, own)

    def _prepare(self, mode: str, row: Csr | None, value: int, world: int) -> int:
        """Put the hart into a mode and a world; returns where the program's memory is."""
        hart = self.hart
        hart.number, self._ticks, hart.steps, hart.extra, hart.unretired = 0, 1000, 5000, 0, 1000
        hart.cycle_offset = hart.instret_offset = 0
        hart.privilege, hart.virtual = MODES[mode]
        hart.waiting, hart.reservation, hart.pc = False, NO_RESERVATION, _BASE
        for number, name in enumerate(STORAGE, 1):
            setattr(hart, name, _word(name, number, world if row is None else 0))
        hart.satp, hart.vsatp, hart.hgatp = self._tables[world if row is None else 0]
        if row is None or not row.storage:
            self._ticks += 1000 * world
            hart.steps += 1000 * world
            hart.number = 0 if row is None else world
        elif world and row.storage != "fcsr":
            for changed in (row, CSRS[row.twin]) if row.twin else (row,):
                setattr(hart, changed.storage, getattr(hart, changed.storage) ^ changed.view)
        for index in range(32):
            hart.x[index] = 0x1111 * index
            hart.f[index] = MASK64 << 32 & MASK64 | 0x3F80_0000 + index
        hart.x[_OPERANDS["rs1"]] = value
        hart.x[_STACK_POINTER] = _ADDRESS
        where = (_OF_GUEST if hart.virtual else _OWN)[world if row is None and mode != "M" else 0]
        for place in (*_OWN, *_OF_GUEST):
            for offset in _WINDOW:
                self.memory.write(place + offset, 8, offset + (0 if place == where else 0x0101 * (1 + world)))
        hart.refresh()
        return where

    def _words(self) -> dict[str, int]:
        """All that is not the program's, but for memory."""
        hart = self.hart
        words: dict[str, int] = {name: getattr(hart, name) for name in STORAGE if name != "fcsr"}
        words["mstatus"] &= ~_NOTES
        words["vsstatus"] &= ~_NOTES
        return words | {
            "mcycle": hart.cycle_offset, "minstret": hart.instret_offset, "wait": int(hart.waiting),
            "mode": hart.privilege | hart.virtual << 2,
        }  # fmt: skip

    def _memory(self) -> dict[tuple[int, int], int]:
        return {(place, offset): self.memory.read(place + offset, 8) for place in (*_OWN, *_OF_GUEST) for offset in _WINDOW}


def _word(name: str, number: int, world: int) -> int:
    """What a word of the CSR file holds in a world. What decides whether something may execute is the same in both."""
    if name == "mstatus":
        interrupts = Status.SIE | Status.SPIE | Status.MIE | Status.MPIE
        return Status.XLEN_64 | _NOTES | Status.SUM | 1 << Status.MPP_SHIFT | (interrupts if world else 0)
    if name == "vsstatus":
        return _NOTES | Status.SUM | Status.SPP | (Status.SIE | Status.SPIE if world else 0)
    fixed = {
        "hstatus": GuestStatus.XLEN_64 | GuestStatus.SPVP, "mideleg": SUPERVISOR_INTERRUPTS | GUEST_INTERRUPTS,
        "hideleg": GUEST_INTERRUPTS, "mcounteren": 7, "hcounteren": 7, "scounteren": 0, "fcsr": 0, "senvcfg": 0,
        "menvcfg": EnvironmentBits.STCE, "henvcfg": EnvironmentBits.STCE,
    }  # fmt: skip
    return fixed.get(name, number << 12 | 0x220 * world)


def _behaviour(pairs: list[list[_Run]]) -> Behaviour:
    """Of the runs of an instruction's forms in one mode, each in both worlds."""
    trap = next((run.trap for pair in pairs for run in pair if run.trap is not None), None)
    changes: dict[str, Change] = {}
    shows: dict[str, Difference] = {}
    if trap is None:
        for one, other in pairs:
            changes = other.changes | one.changes | changes
            for what, value in one.own.items():
                if value != other.own[what]:
                    shows.setdefault(what, Difference(what, value, other.own[what]))
    return Behaviour(trap, tuple(changes.values()), tuple(shows.values()))


def _explain(name: str, before: int, after: int, mode: str, accessed: Csr | None) -> list[Change]:
    """The change of a word, in the fields of the CSR that shows it best to this mode."""
    changed = before ^ after
    rows = [row for row in CSRS.values() if row.storage == name and not changed & ~row.view]
    if not rows:
        return [Change(name, before, after)]
    wanted = {"M": MACHINE, "VS": 2, "VU": 2}.get(mode, SUPERVISOR)
    rows.sort(key=lambda row: (row is not accessed, abs(row.privilege - wanted)))
    row = rows[0]
    one, other = ((word & row.view) >> row.shift for word in (before, after))
    fields = [
        Change(f"{row.name}.{field}", a, b)
        for (field, a), (_, b) in zip(csr_fields(row.name, one), csr_fields(row.name, other), strict=True)
        if a != b
    ]
    return fields or [Change(row.name, one, other)]
