"""Sv39 and Sv39x4: from a virtual address to a physical one, in one stage or two (privileged specification
1.12, sections 4.3.2, 4.4 and 8.5).

    one stage     virtual ──satp──> physical
    two stages    guest virtual ──vsatp──> guest physical ──hgatp──> physical

In two stages each table of the first is itself at a guest physical address, so that a walk makes up to fifteen
references: (3 + 1) x 3 for the second stage, 3 for the first.

A and D are set by the walker in both stages, as QEMU's `virt` board does by default. Reserved bits 60:54 must
be zero, bit 63 too, and 62:61 (PBMT, Svpbmt) unless they are switched on; the type itself changes nothing,
because main memory is all that can be cached here.

The functions are written in the part of Python that native tiers compile: unsigned words, `while` and
constant ranges, no containers. What they need of the world is the `Walker` that they get.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from engine.isa.csrs import Status
from engine.machine.traps import Trap
from engine.trace.record import Cause

V, R, W, X, U, G, A, D = (1 << i for i in range(8))
FLAG_LETTERS = "vrwxugad"
BARE, SV39 = 0, 8
LEVELS = 3
ROOT_PAGES = (1 << 44) - 1
#: Bits 63:38 of a virtual address are equal: all 0 or all 1.
HIGH_HALF = (1 << 26) - 1
#: Sv39x4: a guest physical address has two bits more than Sv39's virtual ones, and the root table four pages.
GUEST_BITS = 41
#: Options of a walk: mstatus.SUM and MXR where they stand there, and PBMT where Svpbmt is on; those of the
#: second stage are OPTIONS_SHIFT higher. LOOK: leave A and D alone, somebody only looks.
PBMT = 1
OPTIONS_SHIFT = 32
LOOK = 1 << 2 | 1 << 2 + OPTIONS_SHIFT
#: What htinst says of a guest-page fault of a walk's own references (table 8.13); 0 for an access that an
#: instruction asked for: a transformed instruction is optional.
TABLE_READ, TABLE_WRITE = 0x3000, 0x3020
FAULT, POINTER, LEAF = range(3)


class Access(IntEnum):
    FETCH = 0
    LOAD = 1
    STORE = 2
    LOAD_EXECUTABLE = 3  # of hlvx: a load that needs X instead of R


#: Its members by names of their own: Python takes longer to look one up in its enumeration than to call a function.
_FETCH, _LOAD, _STORE, _LOAD_EXECUTABLE = Access


class Walker(Protocol):
    """Who walks. `fault_gpa` and `fault_instruction` are set before a guest-page fault is raised: what htval
    and htinst are to say of it."""

    fault_gpa: int
    fault_instruction: int

    def has_entry(self, address: int) -> bool:
        """Can a page-table entry be at this physical address?"""
        ...

    def read_entry(self, address: int, place: int, level: int, stage: int) -> int:
        """The entry at a physical address. `place` is the address in the stage's own terms: guest physical in
        the first of two stages."""
        ...

    def write_entry(self, address: int, entry: int) -> None:
        """A or D was set."""
        ...


@dataclass(slots=True)
class Step:
    """One memory reference of a walk: `entry` was read at `address` = table + 8 * index. `second` are the
    references that found out where that is, in the first of two stages."""

    level: int
    table: int
    index: int
    address: int
    entry: int
    second: list[Step]


def flag_text(entry: int) -> str:
    """An entry's low bits as letters, `-` where clear: `vrwxugad`."""
    return "".join(letter if entry >> bit & 1 else "-" for bit, letter in enumerate(FLAG_LETTERS))


def page_fault(access: int) -> int:
    """The cause of a page fault of the first stage, or the only one."""
    if access == _FETCH:
        return Cause.INSTRUCTION_PAGE_FAULT
    return Cause.STORE_PAGE_FAULT if access == _STORE else Cause.LOAD_PAGE_FAULT


def guest_page_fault(access: int) -> int:
    if access == _FETCH:
        return Cause.INSTRUCTION_GUEST_PAGE_FAULT
    return Cause.STORE_GUEST_PAGE_FAULT if access == _STORE else Cause.LOAD_GUEST_PAGE_FAULT


def access_fault(access: int) -> int:
    if access == _FETCH:
        return Cause.INSTRUCTION_ACCESS_FAULT
    return Cause.STORE_ACCESS_FAULT if access == _STORE else Cause.LOAD_ACCESS_FAULT


#: By cause, what was not permitted.
PAGE_FAULTS, GUEST_PAGE_FAULTS = (
    {int(Cause(cause(access))): access for access in (_FETCH, _LOAD, _STORE)}
    for cause in (page_fault, guest_page_fault)
)


def permitted(entry: int, access: int, privilege: int, status: int) -> bool:
    """Do the leaf's R, W, X and U bits allow the access from U (0) or S (1) mode with this mstatus?"""
    if entry & U:
        if privilege == 1 and (access == _FETCH or not status & Status.SUM):
            return False
    elif privilege == 0:
        return False
    if access in (_FETCH, _LOAD_EXECUTABLE):
        return entry & X != 0
    if access == _STORE:
        return entry & W != 0
    return entry & R != 0 or (status & Status.MXR != 0 and entry & X != 0)


def judge(entry: int, level: int, access: int, privilege: int, options: int) -> int:
    """What a walk does with an entry: FAULT, go on from POINTER, or end at LEAF (section 4.3.2, steps 3-7)."""
    if not entry & V or (entry & (R | W)) == W or entry >> 63 or entry >> 54 & 0x7F:
        return FAULT
    memory_type = entry >> 61
    if not entry & (R | X):
        return FAULT if memory_type or entry & (A | D | U) else POINTER
    if memory_type and (memory_type == 3 or not options & PBMT):
        return FAULT
    if entry >> 10 & ((1 << (9 * level)) - 1) or not permitted(entry, access, privilege, options):
        return FAULT
    return LEAF


def target(entry: int, level: int, address: int) -> int:
    """Where a leaf leads."""
    span = (1 << (12 + 9 * level)) - 1
    return (entry >> 10 & ROOT_PAGES) << 12 & ~span | address & span


def second_stage(
    w: Walker, hgatp: int, guest: int, address: int, cause: int, access: int, options: int, implicit: int
) -> int:
    """Physical address of a guest physical one. Raises guest-page and access faults of `cause`, the access
    that the instruction makes at the virtual `address`; `access` is what is done at `guest`."""
    table = (hgatp & ROOT_PAGES) << 12
    if not guest >> GUEST_BITS:
        for level in range(LEVELS - 1, -1, -1):
            index = guest >> (12 + 9 * level) & (0x7FF if level == LEVELS - 1 else 0x1FF)
            at = table + 8 * index
            if not w.has_entry(at):
                raise Trap(access_fault(cause), address)
            entry = w.read_entry(at, at, level, 2)
            verdict = judge(entry, level, access, 0, options)
            if verdict == FAULT:
                break
            if verdict == LEAF:
                wanted = entry | A | (D if access == _STORE else 0)
                if wanted != entry and not options & LOOK:
                    w.write_entry(at, wanted)
                return target(entry, level, guest)
            table = (entry >> 10 & ROOT_PAGES) << 12
    w.fault_gpa = guest >> 2
    w.fault_instruction = implicit
    raise Trap(guest_page_fault(cause), address)


def first_stage(
    w: Walker, satp: int, hgatp: int, address: int, access: int, privilege: int, options: int
) -> int:
    """Where satp's tables lead from `address`. They are read through the second stage where hgatp has one."""
    high = address >> 38
    table = (satp & ROOT_PAGES) << 12
    if high == 0 or high == HIGH_HALF:
        for level in range(LEVELS - 1, -1, -1):
            place = table + 8 * (address >> (12 + 9 * level) & 0x1FF)
            at = place
            if hgatp >> 60:
                at = second_stage(
                    w, hgatp, place, address, access, _LOAD, options >> OPTIONS_SHIFT, TABLE_READ
                )
            if not w.has_entry(at):
                raise Trap(access_fault(access), address)
            entry = w.read_entry(at, place, level, 1)
            verdict = judge(entry, level, access, privilege, options)
            if verdict == FAULT:
                break
            if verdict == LEAF:
                wanted = entry | A | (D if access == _STORE else 0)
                if wanted != entry and not options & LOOK:
                    if hgatp >> 60:
                        second_stage(
                            w, hgatp, place, address, access, _STORE, options >> OPTIONS_SHIFT, TABLE_WRITE
                        )
                    w.write_entry(at, wanted)
                return target(entry, level, address)
            table = (entry >> 10 & ROOT_PAGES) << 12
    raise Trap(page_fault(access), address)


def walk(w: Walker, satp: int, hgatp: int, address: int, access: int, privilege: int, options: int) -> int:
    """Physical address. Raises Trap with the page fault, guest-page fault or access fault of `access`. A
    stage whose register says Bare leaves the address as it is."""
    physical = address
    if satp >> 60:
        physical = first_stage(w, satp, hgatp, address, access, privilege, options)
    if hgatp >> 60:
        physical = second_stage(w, hgatp, physical, address, access, access, options >> OPTIONS_SHIFT, 0)
    return physical


class Tables(Protocol):
    """Where a recorded walk reads its tables from."""

    def is_ram(self, address: int) -> bool: ...

    def read_entry(self, address: int) -> int: ...

    def write_entry(self, address: int, entry: int) -> None: ...


class RecordedWalk:
    """A walk that somebody looks at. `trail` gets the references of the first stage (or the only one), each
    with those of the second that led to it; `last` those of the second stage after it, or of an only second
    one. `leaf` is the latest entry as the walk left it."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.trail: list[Step] = []
        self.last: list[Step] = []
        self.leaf = 0
        self.fault_gpa = self.fault_instruction = 0

    def has_entry(self, address: int) -> bool:
        return self.tables.is_ram(address)

    def read_entry(self, address: int, place: int, level: int, stage: int) -> int:
        entry = self.leaf = self.tables.read_entry(address)
        table = place & (~0x3FFF if stage == 2 and level == LEVELS - 1 else ~0xFFF)
        step = Step(level, table, (place - table) >> 3, place, entry, [])
        if stage == 2:
            self.last.append(step)
        else:
            step.second, self.last = self.last, []
            self.trail.append(step)
        return entry

    def write_entry(self, address: int, entry: int) -> None:
        self.leaf = entry
        self.tables.write_entry(address, entry)


def look(
    tables: Tables, satp: int, hgatp: int, address: int, privilege: int, options: int
) -> tuple[RecordedWalk, int | None]:
    """The walk of somebody who only looks (LOOK is added to `options`), and where it ends if it does."""
    walked = RecordedWalk(tables)
    try:
        return walked, walk(walked, satp, hgatp, address, _LOAD, privilege, options | LOOK)
    except Trap:
        return walked, None
