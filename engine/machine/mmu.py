"""Sv39: from a virtual address to a physical one (privileged specification 1.12, sections 4.3.2 and 4.4).

A and D are set by the walker, as QEMU's `virt` board does by default. Reserved bits 63:54 must be zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from engine.devices import AccessFault
from engine.isa.csrs import Status
from engine.trace.record import Cause

V, R, W, X, U, G, A, D = (1 << i for i in range(8))
FLAG_LETTERS = "vrwxugad"
BARE, SV39 = 0, 8
LEVELS = 3


class Access(IntEnum):
    FETCH = 0
    LOAD = 1
    STORE = 2


PAGE_FAULTS = (Cause.INSTRUCTION_PAGE_FAULT, Cause.LOAD_PAGE_FAULT, Cause.STORE_PAGE_FAULT)
ACCESS_FAULTS = (Cause.INSTRUCTION_ACCESS_FAULT, Cause.LOAD_ACCESS_FAULT, Cause.STORE_ACCESS_FAULT)


class Trap(Exception):  # noqa: N818 (the architecture's name)
    """A synchronous trap: the architecture's cause and tval."""

    def __init__(self, cause: int, value: int) -> None:
        super().__init__(f"trap {cause} ({value:#x})")
        self.cause = cause
        self.value = value


class Tables(Protocol):
    """Where page tables are read from."""

    def read_entry(self, address: int) -> int: ...

    def write_entry(self, address: int, entry: int) -> None: ...


@dataclass(slots=True)
class Step:
    """One memory reference of a walk: `entry` was read at `address` = table + 8 * index."""

    level: int
    table: int
    index: int
    address: int
    entry: int


@dataclass(slots=True)
class Leaf:
    """A finished walk: where the page is and what may be done with it."""

    physical: int  # of the address that was asked for
    entry: int
    level: int


def flag_text(entry: int) -> str:
    """An entry's low bits as letters, `-` where clear: `vrwxugad`."""
    return "".join(letter if entry >> bit & 1 else "-" for bit, letter in enumerate(FLAG_LETTERS))


def permitted(entry: int, access: Access, privilege: int, status: int) -> bool:
    """Do the leaf's R, W, X and U bits allow the access from U (0) or S (1) mode with this mstatus?"""
    if entry & U:
        if privilege == 1 and (access == Access.FETCH or not status & Status.SUM):
            return False
    elif privilege == 0:
        return False
    if access == Access.FETCH:
        return bool(entry & X)
    if access == Access.STORE:
        return bool(entry & W)
    return bool(entry & R or (status & Status.MXR and entry & X))


def walk(
    tables: Tables,
    satp: int,
    address: int,
    access: Access,
    privilege: int,
    status: int,
    trail: list[Step] | None = None,
    update: bool = True,
) -> Leaf:
    """Translate under Sv39. Raises Trap with the page fault or access fault of `access`.

    trail: gets every reference. update: set A and D as the access requires (False: only look).
    """
    high = address >> 38
    if high not in (0, (1 << 26) - 1):
        raise Trap(PAGE_FAULTS[access], address)
    table = (satp & ((1 << 44) - 1)) << 12
    for level in range(LEVELS - 1, -1, -1):
        index = address >> (12 + 9 * level) & 0x1FF
        at = table + 8 * index
        try:
            entry = tables.read_entry(at)
        except AccessFault:
            raise Trap(ACCESS_FAULTS[access], address) from None
        if trail is not None:
            trail.append(Step(level, table, index, at, entry))
        if not entry & V or (entry & (R | W)) == W or entry >> 54:
            break
        number = entry >> 10 & ((1 << 44) - 1)
        if not entry & (R | X):
            if entry & (A | D | U):
                break
            table = number << 12
            continue
        if number & ((1 << (9 * level)) - 1) or not permitted(entry, access, privilege, status):
            break
        wanted = entry | A | (D if access == Access.STORE else 0)
        if wanted != entry and update:
            tables.write_entry(at, wanted)
        span = (1 << (12 + 9 * level)) - 1
        return Leaf((number << 12) & ~span | address & span, wanted, level)
    raise Trap(PAGE_FAULTS[access], address)
