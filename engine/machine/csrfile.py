"""A hart's CSRs: the rows of engine.isa.csrs kept in its state: storage, views and WARL rules.

What a row's `rule` means:
    delegated   sie and sip show and change only what mideleg delegates (section 4.1.3)
    lowered     vsie and vsip show what hideleg delegates, one bit lower (section 8.2.11)
    injected    hvip leaves out interrupt lines (section 8.2.4)
    mstatus     MPP keeps its value when 2, a mode that does not exist, is written
    mip         STIP is stimecmp's while menvcfg.STCE (Sstc)
    tvec        a write with a reserved mode changes nothing
    satp        a write with an unsupported MODE changes nothing (sections 4.1.11, 8.2.10)
    henvcfg     bits that menvcfg does not let through are read-only 0 (section 8.2.5)
    timer, counter, hpmcounter, hartid, misa   the hart computes them, or acts on a write
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.bits import MASK64
from engine.isa.csrs import CSR_NUMBERS, CSRS, GUEST_INTERRUPTS, STORAGE, Csr, EnvironmentBits, Status
from engine.machine.state import HartState
from engine.trace.record import Interrupt

#: bit of mcounteren and scounteren by CSR number, for 0xC00..0xC1F
COUNTERS = range(0xC00, 0xC20)
_SATP_MODES = (0, 8)


def pending(state: HartState) -> int:
    """mip as software reads it: bits set by software or by a line."""
    return state.mip | state.lines


def _shown(state: HartState, row: Csr) -> int:
    """The bits of its word that a register shows now, where they stand in the word."""
    if row.rule == "delegated":
        return row.view & state.mideleg
    if row.rule == "lowered":
        return row.view & state.hideleg
    if row.rule == "henvcfg":
        return row.view & (state.menvcfg | 1)
    return row.view


def read(state: HartState, row: Csr, stored_only: bool = False) -> int:
    """A stored CSR through its view. stored_only: leave out interrupt lines, as read-modify-write does
    (3.1.9)."""
    if not row.storage:
        return row.constant
    value: int = getattr(state, row.storage)
    if row.storage == "mip" and not stored_only and row.rule != "injected":
        value |= state.lines
    return (value & _shown(state, row)) >> (row.rule == "lowered")


def write(state: HartState, row: Csr, value: int) -> None:
    """Write what the row lets be written."""
    if not row.storage:
        return
    old: int = getattr(state, row.storage)
    mask = row.writable & _shown(state, row)
    if not state.hypervisor:
        mask &= ~row.guest_bits
    if row.rule == "lowered":
        value <<= 1
    elif row.rule == "mstatus" and (value & Status.MPP) >> Status.MPP_SHIFT == 2:
        mask &= ~Status.MPP
    elif row.rule == "mip" and state.menvcfg & EnvironmentBits.STCE:
        mask &= ~(1 << Interrupt.SUPERVISOR_TIMER)
    elif (row.rule == "tvec" and value & 3 > 1) or (row.rule == "satp" and value >> 60 not in _SATP_MODES):
        return
    setattr(state, row.storage, (old & ~mask | value & mask) & MASK64)


def reset(state: HartState) -> None:
    """The words as they are at power on. What VS mode gets is always delegated (section 8.2.2)."""
    set_words(state, STORAGE)
    if state.hypervisor:
        state.mideleg = GUEST_INTERRUPTS


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
        if (CSRS[number].storage or CSRS[number].constant)
        and (state.hypervisor or not CSRS[number].of_hypervisor)
    }
