"""The privileged architecture as procedures over a hart's state: which mode a trap goes to and what its entry
writes, returns from traps, interrupts, address translation, and what may be executed where.

Written once for every tier, in the part of Python that native tiers compile: unsigned words, fields of the
hart, constants, calls of one another; whatever traps does so before it has changed anything.

A mode is `privilege` (0 U, 1 S, 3 M) and `virtual` (V): V=1 with 1 is VS mode, with 0 VU mode. A hart whose
`hypervisor` is 0 has no H extension: V stays 0, and hstatus, hedeleg, hideleg, hgatp stay 0.

Where the specification leaves a choice: htinst and mtinst are 0 for a guest-page fault of an access that an
instruction asked for, and the pseudoinstruction for one of a page-table walk; GEILEN is 0, so there are no
guest external interrupts; wfi in U mode is illegal.

Privileged specification 1.12; section numbers are its.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.isa.csrs import EnvironmentBits, GuestStatus, Status
from engine.machine import mmu
from engine.machine.mmu import Access
from engine.machine.traps import IllegalInstruction, Trap, VirtualInstruction
from engine.trace.record import Cause, Interrupt

if TYPE_CHECKING:
    from engine.machine.hart import Hart

USER, SUPERVISOR, MACHINE = 0, 1, 3
#: A trap's target besides SUPERVISOR (HS mode where there is an H extension) and MACHINE.
VIRTUAL_SUPERVISOR = 2
NO_INTERRUPT = 0


# -- interrupts --------------------------------------------------------------------------------------
def pending_interrupt(h: Hart) -> int:
    """The code of the interrupt to take now, or NO_INTERRUPT: first those destined for M mode, then HS, then
    VS; among them by priority (sections 3.1.9 and 8.4.2)."""
    pending = (h.mip | h.lines) & h.mie
    enabled = 0
    if pending:
        if h.privilege < MACHINE or h.mstatus & Status.MIE:
            enabled = pending & ~h.mideleg
        if not enabled and (
            h.virtual or h.privilege == USER or (h.privilege == SUPERVISOR and h.mstatus & Status.SIE)
        ):
            enabled = pending & h.mideleg & ~h.hideleg
        if not enabled and h.virtual and (h.privilege == USER or h.vsstatus & Status.SIE):
            enabled = pending & h.mideleg & h.hideleg
    if not enabled:
        return NO_INTERRUPT
    if enabled >> Interrupt.MACHINE_EXTERNAL & 1:
        return Interrupt.MACHINE_EXTERNAL
    if enabled >> Interrupt.MACHINE_SOFTWARE & 1:
        return Interrupt.MACHINE_SOFTWARE
    if enabled >> Interrupt.MACHINE_TIMER & 1:
        return Interrupt.MACHINE_TIMER
    if enabled >> Interrupt.SUPERVISOR_EXTERNAL & 1:
        return Interrupt.SUPERVISOR_EXTERNAL
    if enabled >> Interrupt.SUPERVISOR_SOFTWARE & 1:
        return Interrupt.SUPERVISOR_SOFTWARE
    if enabled >> Interrupt.SUPERVISOR_TIMER & 1:
        return Interrupt.SUPERVISOR_TIMER
    if enabled >> Interrupt.VIRTUAL_SUPERVISOR_EXTERNAL & 1:
        return Interrupt.VIRTUAL_SUPERVISOR_EXTERNAL
    if enabled >> Interrupt.VIRTUAL_SUPERVISOR_SOFTWARE & 1:
        return Interrupt.VIRTUAL_SUPERVISOR_SOFTWARE
    return Interrupt.VIRTUAL_SUPERVISOR_TIMER


# -- traps -------------------------------------------------------------------------------------------
def trap_target(h: Hart, cause: int, interrupt: bool) -> int:
    """Where a trap taken now goes: MACHINE, SUPERVISOR or VIRTUAL_SUPERVISOR (sections 3.1.8 and 8.2.2)."""
    delegated = h.mideleg if interrupt else h.medeleg
    if h.privilege == MACHINE or not delegated >> cause & 1:
        return MACHINE
    further = h.hideleg if interrupt else h.hedeleg
    return VIRTUAL_SUPERVISOR if h.virtual and further >> cause & 1 else SUPERVISOR


def _guest_address(h: Hart, cause: int) -> int:
    """Is the tval of this exception a guest virtual address (hstatus.GVA)?"""
    if cause == Cause.LOAD_MISALIGNED or cause == Cause.STORE_MISALIGNED:
        return data_virtual(h)
    if (
        cause == Cause.LOAD_ACCESS_FAULT
        or cause == Cause.STORE_ACCESS_FAULT
        or cause == Cause.LOAD_PAGE_FAULT
        or cause == Cause.STORE_PAGE_FAULT
        or cause == Cause.LOAD_GUEST_PAGE_FAULT
        or cause == Cause.STORE_GUEST_PAGE_FAULT
    ):
        return h.access_virtual
    if (
        cause == Cause.INSTRUCTION_MISALIGNED
        or cause == Cause.INSTRUCTION_ACCESS_FAULT
        or cause == Cause.BREAKPOINT
        or cause == Cause.INSTRUCTION_PAGE_FAULT
        or cause == Cause.INSTRUCTION_GUEST_PAGE_FAULT
    ):
        return h.virtual
    return 0


def enter_trap(h: Hart, to: int, cause: int, value: int, interrupt: bool) -> None:
    """Trap entry at h.pc into `to` (sections 3.1.6.1, 3.1.7, 8.2.1, 8.6.2)."""
    code = cause | (1 << 63 if interrupt else 0)
    if to == VIRTUAL_SUPERVISOR:
        # A VS-level interrupt looks like the supervisor's to the guest: one code less (section 8.2.2).
        if interrupt:
            cause = cause - 1
            code = code - 1
        status = h.vsstatus
        h.vsepc = h.pc & ~1
        h.vscause = code
        h.vstval = value
        h.vsstatus = (
            status & ~(Status.SPIE | Status.SPP | Status.SIE)
            | (Status.SPIE if status & Status.SIE else 0)
            | (Status.SPP if h.privilege else 0)
        )
        h.privilege = SUPERVISOR
        vector = h.vstvec
    else:
        address = 0 if interrupt else _guest_address(h, cause)
        physical = 0
        instruction = 0
        if not interrupt and (
            cause == Cause.INSTRUCTION_GUEST_PAGE_FAULT
            or cause == Cause.LOAD_GUEST_PAGE_FAULT
            or cause == Cause.STORE_GUEST_PAGE_FAULT
        ):
            physical = h.fault_gpa
            instruction = h.fault_instruction
        status = h.mstatus
        if to == SUPERVISOR:
            h.sepc = h.pc & ~1
            h.scause = code
            h.stval = value
            h.mstatus = (
                status & ~(Status.SPIE | Status.SPP | Status.SIE)
                | (Status.SPIE if status & Status.SIE else 0)
                | (Status.SPP if h.privilege else 0)
            )
            if h.hypervisor:
                guest = h.hstatus & ~(GuestStatus.SPV | GuestStatus.GVA)
                if h.virtual:
                    guest = guest & ~GuestStatus.SPVP | GuestStatus.SPV | (GuestStatus.SPVP if h.privilege else 0)
                h.hstatus = guest | (GuestStatus.GVA if address else 0)
                h.htval = physical
                h.htinst = instruction
            vector = h.stvec
        else:
            h.mepc = h.pc & ~1
            h.mcause = code
            h.mtval = value
            status = (
                status & ~(Status.MPIE | Status.MPP | Status.MIE)
                | (Status.MPIE if status & Status.MIE else 0)
                | h.privilege << Status.MPP_SHIFT
            )
            if h.hypervisor:
                status = (
                    status & ~(Status.MPV | Status.GVA)
                    | (Status.MPV if h.virtual else 0)
                    | (Status.GVA if address else 0)
                )
                h.mtval2 = physical
                h.mtinst = instruction
            h.mstatus = status
            vector = h.mtvec
        h.privilege = to
        h.virtual = 0
    h.pc = (vector & ~3) + (4 * cause if interrupt and vector & 1 else 0)


def mret(h: Hart) -> int:
    """Returns the next pc."""
    if h.privilege < MACHINE:
        raise IllegalInstruction
    status = h.mstatus
    privilege = (status & Status.MPP) >> Status.MPP_SHIFT
    h.privilege = privilege
    h.virtual = 1 if status & Status.MPV and privilege < MACHINE else 0
    status = (
        status & ~(Status.MIE | Status.MPP | Status.MPV) | (Status.MIE if status & Status.MPIE else 0) | Status.MPIE
    )
    h.mstatus = status if privilege == MACHINE else status & ~Status.MPRV
    return h.mepc


def sret(h: Hart) -> int:
    """Returns the next pc (sections 3.3.2 and 8.6.4)."""
    if h.virtual:
        if h.privilege == USER or h.hstatus & GuestStatus.VTSR:
            raise VirtualInstruction
        status = h.vsstatus
        h.privilege = SUPERVISOR if status & Status.SPP else USER
        h.vsstatus = (
            status & ~(Status.SIE | Status.SPP) | (Status.SIE if status & Status.SPIE else 0) | Status.SPIE
        )
        return h.vsepc
    status = h.mstatus
    if h.privilege < SUPERVISOR or (h.privilege == SUPERVISOR and status & Status.TSR):
        raise IllegalInstruction
    h.privilege = SUPERVISOR if status & Status.SPP else USER
    h.mstatus = (
        status & ~(Status.SIE | Status.SPP | Status.MPRV) | (Status.SIE if status & Status.SPIE else 0) | Status.SPIE
    )
    if h.hstatus & GuestStatus.SPV:
        h.virtual = 1
        h.hstatus = h.hstatus & ~GuestStatus.SPV
    return h.sepc


def ecall(h: Hart) -> None:
    raise Trap(Cause.ECALL_VS if h.virtual and h.privilege else Cause.ECALL_U + h.privilege, 0)


# -- what may be executed where ----------------------------------------------------------------------
def check_wfi(h: Hart) -> None:
    """Raises unless this mode may wait for an interrupt (sections 3.3.3 and 8.6.1)."""
    if h.privilege < MACHINE and h.mstatus & Status.TW:
        raise IllegalInstruction
    if h.virtual:
        if h.privilege == USER or h.hstatus & GuestStatus.VTW:
            raise VirtualInstruction
    elif h.privilege == USER:
        raise IllegalInstruction


def check_fence(h: Hart) -> None:
    """Raises unless this mode may execute sfence.vma or sinval.vma (sections 4.2.1 and 8.6.1)."""
    if h.virtual:
        if h.privilege == USER or h.hstatus & GuestStatus.VTVM:
            raise VirtualInstruction
    elif h.privilege == USER or (h.privilege == SUPERVISOR and h.mstatus & Status.TVM):
        raise IllegalInstruction


def check_fence_order(h: Hart) -> None:
    """Raises unless this mode may execute sfence.w.inval or sfence.inval.ir (Svinval, chapter 6)."""
    if h.privilege == USER:
        if h.virtual:
            raise VirtualInstruction
        raise IllegalInstruction


def check_guest_fence(h: Hart, of_second_stage: bool) -> None:
    """Raises unless this mode may execute hfence.vvma or, of_second_stage, hfence.gvma, and their hinval
    (section 8.3.2)."""
    if not h.hypervisor:
        raise IllegalInstruction
    if h.virtual:
        raise VirtualInstruction
    if h.privilege == USER or (of_second_stage and h.privilege == SUPERVISOR and h.mstatus & Status.TVM):
        raise IllegalInstruction


def check_guest_access(h: Hart) -> None:
    """Raises unless this mode may execute hlv, hlvx and hsv (section 8.3.1)."""
    if not h.hypervisor:
        raise IllegalInstruction
    if h.virtual:
        raise VirtualInstruction
    if h.privilege == USER and not h.hstatus & GuestStatus.HU:
        raise IllegalInstruction


# -- which caches hold -------------------------------------------------------------------------------
def choose_context(h: Hart) -> None:
    """Privilege, an address space or an option of translation changed: the hart's caches are those of the situation
    that holds now, and interrupts are looked at before the next step."""
    data = data_privilege(h)
    of_guest = data_virtual(h)
    guest = h.virtual or of_guest
    h.use_context(
        h.privilege | h.virtual << 2 | data << 3 | of_guest << 5,
        0 if h.virtual and of_guest else h.satp,
        h.mstatus & (Status.SUM | Status.MXR)
        | h.menvcfg & EnvironmentBits.PBMTE
        | (h.henvcfg & EnvironmentBits.PBMTE) >> 1,
        h.vsatp if guest else 0,
        h.hgatp if guest else 0,
        h.vsstatus & (Status.SUM | Status.MXR) if guest else 0,
    )
    h.look_at_interrupts()


# -- floating point ----------------------------------------------------------------------------------
def check_floats(h: Hart) -> None:
    """Raises while the floating-point unit is off: for a guest, in its own eyes or its host's (sections 3.1.6.6 and
    8.2.6)."""
    if not h.mstatus & Status.FS or (h.virtual and not h.vsstatus & Status.FS):
        raise IllegalInstruction


def dirty_floats(h: Hart) -> None:
    """A floating-point register or fcsr was written: FS becomes Dirty."""
    h.mstatus = h.mstatus | Status.FS | Status.SD
    if h.virtual:
        h.vsstatus = h.vsstatus | Status.FS | Status.SD


def rounding_mode(h: Hart, rm: int) -> int:
    """0 to 4: that of an instruction or, for 7, of frm (section 11.2)."""
    mode = h.fcsr >> 5 if rm == 7 else rm
    if mode > 4:
        raise IllegalInstruction
    return mode


# -- translation -------------------------------------------------------------------------------------
def data_privilege(h: Hart) -> int:
    """The privilege that loads and stores are checked with (MPRV, section 3.1.6.3)."""
    return (h.mstatus & Status.MPP) >> Status.MPP_SHIFT if h.mstatus & Status.MPRV else h.privilege


def data_virtual(h: Hart) -> int:
    """Are loads and stores translated as a guest's (MPRV with MPV, section 8.4.1)?"""
    if h.mstatus & Status.MPRV:
        return 1 if h.mstatus & Status.MPV and h.mstatus & Status.MPP != Status.MPP else 0
    return h.virtual


def walk_options(h: Hart, virtual: int) -> int:
    """How tables are to be read, as mmu.walk wants it. HS mode's MXR holds for both stages (section 8.5.1)."""
    pbmt = mmu.PBMT if h.menvcfg & EnvironmentBits.PBMTE else 0
    if not virtual:
        return h.mstatus & (Status.SUM | Status.MXR) | pbmt
    readable = h.mstatus & Status.MXR
    first = h.vsstatus & (Status.SUM | Status.MXR) | readable
    if h.henvcfg & EnvironmentBits.PBMTE:
        first = first | pbmt
    return first | (readable | pbmt) << mmu.OPTIONS_SHIFT


def translate_as(h: Hart, address: int, access: int, privilege: int, virtual: int) -> int:
    """Physical address for a mode, or Trap."""
    h.access_virtual = virtual
    if privilege == MACHINE:
        return address
    if virtual:
        h.walks = h.walks + (1 if (h.vsatp | h.hgatp) >> 60 else 0)
        return mmu.walk(h, h.vsatp, h.hgatp, address, access, privilege, walk_options(h, 1))
    if not h.satp >> 60:
        return address
    h.walks = h.walks + 1
    return mmu.walk(h, h.satp, 0, address, access, privilege, walk_options(h, 0))


def translate(h: Hart, address: int, access: int) -> int:
    """Physical address for the hart's present mode, or Trap."""
    if access == Access.FETCH:
        return translate_as(h, address, access, h.privilege, h.virtual)
    return translate_as(h, address, access, data_privilege(h), data_virtual(h))


def translate_guest(h: Hart, address: int, access: int) -> int:
    """Physical address for hlv, hlvx and hsv: as the mode in hstatus.SPVP of the guest (section 8.3.1)."""
    return translate_as(h, address, access, 1 if h.hstatus & GuestStatus.SPVP else 0, 1)
