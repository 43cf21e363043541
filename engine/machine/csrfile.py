"""A hart's CSRs: the rows of engine.isa.csrs kept in its state: storage, views and WARL rules.

What a row's `rule` means:
    delegated   sie and sip show and change only what mideleg delegates (section 4.1.3)
    mstatus     MPP keeps its value when 2, a mode that does not exist, is written
    tvec        a write with a reserved mode changes nothing
    satp        a write with an unsupported MODE changes nothing (section 4.1.11)
    counter, hpmcounter, hartid   values that the hart computes
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.bits import MASK64
from engine.isa.csrs import CSR_NUMBERS, CSRS, STORAGE, Csr, Status
from engine.machine.state import HartState

#: bit of mcounteren and scounteren by CSR number, for 0xC00..0xC1F
COUNTERS = range(0xC00, 0xC20)
_SATP_MODES = (0, 8)


def pending(state: HartState) -> int:
    """mip as software reads it: bits set by software or by a line."""
    return state.mip | state.lines


def read(state: HartState, row: Csr, stored_only: bool = False) -> int:
    """A stored CSR through its view. stored_only: leave out interrupt lines, as read-modify-write does
    (3.1.9)."""
    if not row.storage:
        return row.constant
    value: int = getattr(state, row.storage)
    if row.storage == "mip" and not stored_only:
        value |= state.lines
    if row.rule == "delegated":
        value &= state.mideleg
    return value & row.view


def write(state: HartState, row: Csr, value: int) -> None:
    """Write what the row lets be written."""
    if not row.storage:
        return
    old: int = getattr(state, row.storage)
    mask = row.writable & row.view
    if row.rule == "delegated":
        mask &= state.mideleg
    elif row.rule == "mstatus" and (value & Status.MPP) >> Status.MPP_SHIFT == 2:
        mask &= ~Status.MPP
    elif (row.rule == "tvec" and value & 3 > 1) or (row.rule == "satp" and value >> 60 not in _SATP_MODES):
        return
    setattr(state, row.storage, (old & ~mask | value & mask) & MASK64)


def words(state: HartState) -> dict[str, int]:
    """The stored words by name, as a snapshot keeps them."""
    return {name: getattr(state, name) for name in STORAGE}


def set_words(state: HartState, values: Mapping[str, int]) -> None:
    for name, value in values.items():
        setattr(state, name, value)


def named(state: HartState) -> dict[str, int]:
    """Every register with storage or a constant by its architectural name, through its view."""
    return {
        name: read(state, CSRS[number])
        for name, number in CSR_NUMBERS.items()
        if CSRS[number].storage or CSRS[number].constant
    }
