"""What a hart that carries a vCPU has of its state, and how that comes from there and goes back.

Here the hart of a procedure is the *virtual* hart, `host` the address of the hart that carries it. Each is written once:
where the carrying hart executes natively, Python calls the compiled form, else the function itself. What moves is what
the guest can change without an exit, and what the VMM can change for it; the rest is the same as long as the vCPU is
loaded. Integer registers are shared.

A deprivileged guest changes its pc, fcsr, and FS when it becomes Dirty. One in VS mode has its supervisor registers in the
carrier's vs* registers, and its interrupts one bit higher there (privileged specification 1.12, sections 8.2.3 and 8.2.11).

direct: the guest's comparator is the carrier's. own_tables: the carrier walks the guest's own tables. injected: the
interrupts that the VMM hands over in hvip, `arrived` those that came since it last did. delta: the guest's time less the
host's.
"""

from __future__ import annotations

from typing import Any

from engine.bits import MASK64
from engine.isa.csrs import SUPERVISOR_INTERRUPTS, Status
from engine.machine.native.layout import field
from engine.machine.state import NO_STREAK
from engine.trace.record import Interrupt

_NAMES = (
    "pc", "privilege", "steps", "unretired", "limit", "lines", "fcsr", "mie", "mip", "scounteren", "cycle_offset",
    "instret_offset", "reported", "streak_length", "streak_at", "streak_cause", "streak_pc", "htimedelta", "vsatp", "vsstatus",
    "vstvec", "vsscratch", "vsepc", "vscause", "vstval", "vstimecmp", "senvcfg", "mstatus",
    "extra", "position_base",
)  # fmt: skip
(
    PC, PRIVILEGE, STEPS, UNRETIRED, LIMIT, LINES, FCSR, MIE, MIP, SCOUNTEREN, CYCLE, INSTRET, REPORTED, STREAK_LENGTH,
    STREAK_AT, STREAK_CAUSE, STREAK_PC, DELTA, VSATP, VSSTATUS, VSTVEC, VSSCRATCH, VSEPC, VSCAUSE, VSTVAL, VSTIMECMP, SENVCFG,
    STATUS, EXTRA, POSITION_BASE,
) = map(field, _NAMES)  # fmt: skip
SOFTWARE, TIMER = 1 << Interrupt.SUPERVISOR_SOFTWARE, 1 << Interrupt.SUPERVISOR_TIMER
SEEN = Status.SUPERVISOR_VIEW
CHANGED = SEEN & ~Status.XLEN_64
#: What handing over leaves to be done for the carrier: choose its context, and look at its timer.
SITUATION, TIME = 1, 2


FLOATS = Status.FS | Status.SD


# -- an exit ------------------------------------------------------------------------------------------
def charge(h: Any, host: int, cost: int) -> None:
    """An exit in the step that the carrier executes costs so much: when and where it was, and how many instructions the
    vCPU had retired since its record before."""
    steps = h.peek(host + STEPS, 8)
    extra = h.peek(host + EXTRA, 8)
    instructions = h.instructions_base + steps - h.peek(host + UNRETIRED, 8)
    h.exit_time = steps + extra
    h.exit_position = h.peek(host + POSITION_BASE, 8) + steps - 1
    h.exit_executed = instructions - h.reported
    h.reported = instructions
    h.poke(host + EXTRA, 8, extra + cost)


# -- a deprivileged guest -----------------------------------------------------------------------------
def catch_up_deprivileged(h: Any, host: int) -> None:
    h.pc = h.peek(host + PC, 8)
    h.fcsr = h.peek(host + FCSR, 8)
    if h.peek(host + STATUS, 8) & Status.SD:
        h.mstatus = h.mstatus | FLOATS


def hand_over_deprivileged(h: Any, host: int) -> None:
    """FS is Off there when the guest has it Off."""
    h.poke(host + PC, 8, h.pc)
    h.poke(host + FCSR, 8, h.fcsr)
    h.poke(host + STATUS, 8, h.peek(host + STATUS, 8) & ~FLOATS | h.mstatus & FLOATS)


# -- VS mode: from the carrier ------------------------------------------------------------------------
def catch_up_for_access(h: Any, host: int, direct: int, own_tables: int) -> None:
    """What the VMM looks at to map memory or to execute a load or a store."""
    h.pc = h.peek(host + PC, 8)
    h.privilege = h.peek(host + PRIVILEGE, 8)
    if own_tables:
        h.satp = h.peek(host + VSATP, 8)
    h.mstatus = h.mstatus & ~CHANGED | h.peek(host + VSSTATUS, 8) & CHANGED
    h.mie = h.mie & ~SUPERVISOR_INTERRUPTS | h.peek(host + MIE, 8) >> 1 & SUPERVISOR_INTERRUPTS
    h.mip = h.mip & ~SOFTWARE | h.peek(host + MIP, 8) >> 1 & SOFTWARE
    if direct:
        h.stimecmp = h.peek(host + VSTIMECMP, 8)
        h.lines = h.lines & ~TIMER | h.peek(host + LINES, 8) >> 1 & TIMER
    h.reported = h.instructions_base + h.peek(host + REPORTED, 8)


def catch_up(h: Any, host: int, direct: int, own_tables: int) -> None:
    """Everything."""
    catch_up_for_access(h, host, direct, own_tables)
    h.fcsr = h.peek(host + FCSR, 8)
    h.stvec = h.peek(host + VSTVEC, 8)
    h.sscratch = h.peek(host + VSSCRATCH, 8)
    h.sepc = h.peek(host + VSEPC, 8)
    h.scause = h.peek(host + VSCAUSE, 8)
    h.stval = h.peek(host + VSTVAL, 8)
    h.scounteren = h.peek(host + SCOUNTEREN, 8)
    h.senvcfg = h.peek(host + SENVCFG, 8)
    retired = h.peek(host + STEPS, 8) - h.peek(host + UNRETIRED, 8)
    if h.peek(host + STREAK_AT, 8) == retired:
        h.streak_length = h.peek(host + STREAK_LENGTH, 8)
        h.streak_at = h.instructions_base + retired
        h.streak_cause = h.peek(host + STREAK_CAUSE, 8)
        h.streak_pc = h.peek(host + STREAK_PC, 8)
    elif h.streak_length:
        h.streak_length = 0
        h.streak_at = NO_STREAK
        h.streak_cause = 0
        h.streak_pc = 0


# -- VS mode: to the carrier --------------------------------------------------------------------------
def hvip(h: Any, injected: int, arrived: int) -> int:
    """The interrupts that the VMM hands over, where hvip has them."""
    handed: int = ((h.mip | h.lines | arrived) & injected) << 1
    return handed


def set_time(h: Any, host: int, delta: int, compare: int) -> int:
    """The guest's time and what it waits for. Returns TIME if either changed."""
    if h.peek(host + DELTA, 8) == delta and h.peek(host + VSTIMECMP, 8) == compare:
        return 0
    h.poke(host + DELTA, 8, delta)
    h.poke(host + VSTIMECMP, 8, compare)
    return TIME


def hand_over_after_access(h: Any, host: int, direct: int, injected: int, arrived: int, delta: int, vsatp: int) -> int:
    """What a load or a store can have changed. Returns SITUATION and TIME, as far as they are to be done."""
    changed = 0
    status = h.mstatus & SEEN
    if h.peek(host + PRIVILEGE, 8) != h.privilege or h.peek(host + VSATP, 8) != vsatp or h.peek(host + VSSTATUS, 8) != status:
        h.poke(host + PRIVILEGE, 8, h.privilege)
        h.poke(host + VSATP, 8, vsatp)
        h.poke(host + VSSTATUS, 8, status)
        changed = SITUATION
    h.poke(host + PC, 8, h.pc)
    h.poke(host + MIP, 8, hvip(h, injected, arrived))
    h.poke(host + INSTRET, 8, h.instret_offset + h.instructions_base)
    h.poke(host + LIMIT, 8, 0)
    return changed | set_time(h, host, delta, h.stimecmp if direct else MASK64)


def hand_over(
    h: Any, host: int, direct: int, injected: int, arrived: int, delta: int, vsatp: int, started: int
) -> int:
    """Everything; `started`: the host's clock at the guest's power on. Returns as `hand_over_after_access`."""
    h.poke(host + FCSR, 8, h.fcsr)
    h.poke(host + VSTVEC, 8, h.stvec)
    h.poke(host + VSSCRATCH, 8, h.sscratch)
    h.poke(host + VSEPC, 8, h.sepc)
    h.poke(host + VSCAUSE, 8, h.scause)
    h.poke(host + VSTVAL, 8, h.stval)
    h.poke(host + SCOUNTEREN, 8, h.scounteren)
    h.poke(host + SENVCFG, 8, h.senvcfg)
    h.poke(host + MIE, 8, (h.mie & SUPERVISOR_INTERRUPTS) << 1)
    h.poke(host + CYCLE, 8, h.cycle_offset - started)
    return hand_over_after_access(h, host, direct, injected, arrived, delta, vsatp)
