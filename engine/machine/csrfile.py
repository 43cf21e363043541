"""A hart's CSRs: the rows of engine.isa.csrs kept in its state: storage, views and WARL rules.

What a row's `rule` means:
    delegated   sie and sip show and change only what mideleg delegates (section 4.1.3)
    lowered     vsie and vsip show what hideleg delegates, one bit lower (section 8.2.11)
    injected    hvip leaves out interrupt lines (section 8.2.4)
    mstatus     MPP keeps its value when 2, a mode that does not exist, is written; SD follows FS
    sstatus     SD follows FS
    float       illegal while FS is Off; a write makes it Dirty
    mip         STIP is stimecmp's while menvcfg.STCE (Sstc)
    tvec        a write with a reserved mode changes nothing
    satp        a write with an unsupported MODE changes nothing (sections 4.1.11, 8.2.10)
    henvcfg     bits that menvcfg does not let through are read-only 0 (section 8.2.5)
    timer, counter, hpmcounter, hartid, misa   the hart computes them, or acts on a write
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.bits import MASK64
from engine.isa.csrs import (
    CSR_NUMBERS,
    CSRS,
    GUEST_INTERRUPTS,
    MISA_H,
    STORAGE,
    Csr,
    EnvironmentBits,
    GuestStatus,
    Status,
)
from engine.isa.silent import SILENT_READS, SILENT_WRITES
from engine.machine import privileged
from engine.machine.state import HartState
from engine.machine.traps import IllegalInstruction, VirtualInstruction
from engine.trace.record import Interrupt

if TYPE_CHECKING:
    from engine.machine.hart import Hart

USER, SUPERVISOR, MACHINE = 0, 1, 3
#: bit of mcounteren and scounteren by CSR number, for 0xC00..0xC1F
COUNTERS = range(0xC00, 0xC20)
_SATP_MODES = (0, 8)
_COMPUTED = ("hartid", "misa", "counter")
_SHOWN_IN_PART = ("delegated", "lowered", "henvcfg")
_CONTEXT_WORDS = frozenset(
    {"mstatus", "satp", "mie", "mip", "mideleg", "hideleg", "hgatp", "vsatp", "vsstatus", "menvcfg", "henvcfg"}
)
TIMER_WORDS = frozenset({"stimecmp", "vstimecmp", "htimedelta", "menvcfg", "henvcfg"})
_TRAPPED_BY_TVM = (0x180, 0x680)  # satp, hgatp
_TIME = 1  # the bit of time in counteren
_HS = 2  # the level of HS mode in CSR numbers


def is_quiet(row: Csr) -> bool:
    """Does a write of the register change nothing but it (or raise): not what is mapped, which interrupt is pending, a
    clock or the state of the floating-point unit?"""
    return all(
        view.storage and view.rule in ("", "tvec") and view.storage not in _CONTEXT_WORDS | TIMER_WORDS
        for view in (row, CSRS[row.twin] if row.twin else row)
    )


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
    value = getattr(state, row.storage)
    if row.storage == "mip" and not stored_only and row.rule != "injected":
        value |= state.lines
    shown: int = (value & _shown(state, row)) >> row.shift
    return shown


def write(state: HartState, row: Csr, value: int) -> None:
    """Write what the row lets be written."""
    if not row.storage:
        return
    old = getattr(state, row.storage)
    mask = row.writable & _shown(state, row)
    if not state.hypervisor:
        mask &= ~row.guest_bits
    value <<= row.shift
    if row.rule == "mstatus" and (value & Status.MPP) >> Status.MPP_SHIFT == 2:
        mask &= ~Status.MPP
    elif row.rule == "mip" and state.menvcfg & EnvironmentBits.STCE:
        mask &= ~(1 << Interrupt.SUPERVISOR_TIMER)
    elif (row.rule == "tvec" and value & 3 > 1) or (row.rule == "satp" and value >> 60 not in _SATP_MODES):
        return
    new = (old & ~mask | value & mask) & MASK64
    if row.rule in ("mstatus", "sstatus"):
        new = new | Status.SD if new & Status.FS == Status.FS else new & ~Status.SD
    setattr(state, row.storage, new)


# -- access by an instruction ------------------------------------------------------------------------
# Procedures that native tiers compile, once for each row: `row` is a constant there.
def check(h: Hart, row: Csr, write: bool) -> None:
    """Raises what an access through the number of `row` raises (sections 2.1 and 8.6.1)."""
    if (write and row.read_only) or (row.of_hypervisor and not h.hypervisor):
        raise IllegalInstruction
    # What the nearest mode with V=0 could access is at most a virtual instruction while V=1.
    reach = _HS if h.virtual or h.privilege == SUPERVISOR else h.privilege
    if row.privilege > reach:
        raise IllegalInstruction
    if h.privilege < MACHINE:
        if row.rule == "timer":
            check_gates(h, _TIME, h.menvcfg & EnvironmentBits.STCE != 0, h.henvcfg & EnvironmentBits.STCE != 0, True)
        elif row.number in COUNTERS:
            check_gates(h, row.number & 31, True, True, h.privilege != 0)
    if row.rule == "float":
        privileged.check_floats(h)
        h.settle_floats()
    if h.virtual:
        if row.privilege > h.privilege or (row.rule == "satp" and h.hstatus & GuestStatus.VTVM):
            raise VirtualInstruction
    elif row.number in _TRAPPED_BY_TVM and h.privilege == SUPERVISOR and h.mstatus & Status.TVM:
        raise IllegalInstruction


def check_gates(h: Hart, bit: int, machine: bool, guest: bool, user: bool) -> None:
    """Registers that a higher mode opens to a lower one by a bit of its counteren. The flags: may M mode open it at
    all, may HS mode open it to a guest, and does nobody ask scounteren?"""
    if not (machine and h.mcounteren >> bit & 1):
        raise IllegalInstruction
    opened = user or h.scounteren >> bit & 1
    if h.virtual and not (guest and h.hcounteren >> bit & 1 and opened):
        raise VirtualInstruction
    if not opened:
        raise IllegalInstruction


def value(h: Hart, row: Csr) -> int:
    """A CSR as machine mode reads it."""
    if row.rule == "hartid":
        return h.number
    if row.rule == "misa":
        return row.constant | (MISA_H if h.hypervisor else 0)
    if row.name == "time":
        return (h.time_ticks() + (h.htimedelta if h.virtual else 0)) & MASK64
    if row.rule == "counter" and row.name.endswith("cycle"):
        return (h.clock + h.cycle_offset) & MASK64
    if row.rule == "counter":
        return (h.retired + h.instret_offset) & MASK64
    return read(h, row)


def stored(h: Hart, row: Csr) -> int:
    """What csrrs and csrrc change the bits of: interrupt lines are left out (section 3.1.9)."""
    return value(h, row) if row.rule in _COMPUTED else read(h, row, True)


def store(h: Hart, row: Csr, value: int) -> None:
    """Write what the row lets be written, whoever asks."""
    if row.rule == "counter":
        # The write takes effect after the instruction: the next one reads `value` (section 3.1.10).
        if row.name == "mcycle":
            h.cycle_offset = value - h.clock - 1
        else:
            h.instret_offset = value - h.retired - 1
    else:
        write(h, row, value)
        if row.rule == "float":
            privileged.dirty_floats(h)
        if row.storage in _CONTEXT_WORDS:
            h.refresh()
        if row.storage in TIMER_WORDS:
            h.timer_changed()


def access_read(h: Hart, row: Csr) -> int:
    """The value that an instruction gets; while V=1, of the register that the guest has in its place."""
    if not (row.number in SILENT_READS and is_silent(h)):
        check(h, row, False)
    if row.twin and h.virtual:
        return value(h, CSRS[row.twin])
    return value(h, row)


def is_silent(h: Hart) -> bool:
    """Do the accesses of engine.isa.silent go without a trap now: a read shows the register, a write is ignored?"""
    return h.silent != 0 and h.privilege == USER


def access_write(h: Hart, row: Csr, word: int) -> None:
    if row.number in SILENT_WRITES and is_silent(h):
        return
    check(h, row, True)
    if row.twin and h.virtual:
        store(h, CSRS[row.twin], word)
    else:
        store(h, row, word)


def access_set(h: Hart, row: Csr, bits: int) -> None:
    if row.number in SILENT_WRITES and is_silent(h):
        return
    check(h, row, True)
    if row.twin and h.virtual:
        store(h, CSRS[row.twin], stored(h, CSRS[row.twin]) | bits)
    else:
        store(h, row, stored(h, row) | bits)


def access_clear(h: Hart, row: Csr, bits: int) -> None:
    if row.number in SILENT_WRITES and is_silent(h):
        return
    check(h, row, True)
    if row.twin and h.virtual:
        store(h, CSRS[row.twin], stored(h, CSRS[row.twin]) & ~bits)
    else:
        store(h, row, stored(h, row) & ~bits)


# -- whole files -------------------------------------------------------------------------------------
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
