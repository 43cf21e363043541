"""Hardware assist: the guest runs in modes of its own that the hart knows (the H extension).

    guest user    VU mode ─┐  system calls, page faults, interrupts, sret, satp: the hart does them by itself,
    guest kernel  VS mode ─┘  on the guest's own registers (vs*) and the guest's own tables (vsatp)
          │
          │ only what the guest cannot have for itself is a VM exit
          ▼
    VMM   guest-page fault         nothing is there yet -> a page of host memory; a device -> emulate
          call to the firmware     served on the vCPU's virtual hart
          virtual instruction      wfi: give the hart to somebody else; what VS mode may not do: the guest's
                                   own illegal-instruction trap
          time slice               the next vCPU

The guest's timer is a comparator of the hart (vstimecmp, Sstc), its other interrupts are bits of hvip: both are
taken in VS mode without an exit. Traps that stay inside are recorded as on bare metal: from user through the
hardware to the kernel.

That is the latest of the GENERATIONS (engine.hypervisor.stacks). A host's switches take away what the earlier ones had
not yet, each for itself:

    shadow-paging          there is no second stage: vsatp leads through shadow tables of the VMM (engine.hypervisor.shadow),
                           and page faults, stores to the guest's tables, satp and sfence.vma are exits
    no-vmid                nothing in the TLB says whose translation it is: every entry and every exit empties it
    no-direct-interrupts   the guest's comparator is not the hart's, and what arrives for it arrives at the VMM: stimecmp,
                           a timer that is due and a device's interrupt are exits, after which hvip has the interrupt

While a vCPU is loaded, the hart's registers are the vCPU's state; its virtual hart is brought up to date (`catch_up`)
before anybody looks, and what was changed there goes back (`hand_over`). So the same VM can move to a host with another
technique and back. What the guest's M level allows its kernel becomes what the H extension allows VS mode: hedeleg
is its medeleg, hcounteren its mcounteren, henvcfg its menvcfg. VS mode's interrupts are always delegated, so that
none is ever taken in a mode of the host.

VS is the highest mode a guest can have here: one that starts in M mode is refused.

The VMM takes an exit before trap entry writes anything, as the other techniques do: what mtval2 and mtinst would
say is in `fault_gpa` and `fault_instruction`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.bits import MASK64
from engine.commands import Problem
from engine.hypervisor.frames import OutOfFramesError
from engine.hypervisor.guest import kind_of
from engine.hypervisor.interpret import access_for, carry_reservation, execute, meaning
from engine.hypervisor.second_stage import SecondStage
from engine.hypervisor.shadow import ShadowTables, SpaceKey
from engine.hypervisor.stacks import NO_DIRECT_INTERRUPTS, NO_VMID, SHADOW_PAGING
from engine.hypervisor.technique import Outcome, claim, refuse_paravirtual
from engine.hypervisor.vm import VCpu, VirtualHart
from engine.isa.csrs import (
    GUEST_EXCEPTIONS,
    GUEST_INTERRUPTS,
    SUPERVISOR_INTERRUPTS,
    EnvironmentBits,
    GuestStatus,
    Status,
)
from engine.machine import mmu
from engine.machine.hart import TICK_NS, Hart
from engine.machine.loader import RAM_BASE
from engine.machine.mmu import GUEST_PAGE_FAULTS, PAGE_FAULTS, Access, RecordedWalk
from engine.machine.native import carried
from engine.machine.privileged import MACHINE, SUPERVISOR, USER, VIRTUAL_SUPERVISOR
from engine.machine.state import NO_STREAK
from engine.machine.traps import Trap
from engine.trace.record import INTERRUPT_BIT, Action, Cause, Disposition, Interrupt, Kind, Level

if TYPE_CHECKING:
    from engine.hypervisor.vm_guest import VmGuest

#: Members of enumerations that exits need, by names of their own (why: engine.machine.mmu).
_VM_EXIT, _PAGE_FAULT = Kind.VM_EXIT, Kind.PAGE_FAULT
_EMULATED, _INJECTED = Disposition.EMULATED, Disposition.INJECTED
_CSR_READ, _CSR_WRITE, _ADDRESS_SPACE, _WFI = Action.CSR_READ, Action.CSR_WRITE, Action.ADDRESS_SPACE, Action.WFI
_SFENCE, _EMULATE, _SECOND_STAGE_FILL = Action.SFENCE, Action.EMULATE, Action.SECOND_STAGE_FILL
_SHADOW_FILL, _DIRTY, _PAGE_TABLE_WRITE = Action.SHADOW_FILL, Action.DIRTY, Action.PAGE_TABLE_WRITE
_INJECT_EXCEPTION = Action.INJECT_EXCEPTION
_ECALL_S, _ECALL_VS, _VIRTUAL_INSTRUCTION = Cause.ECALL_S, Cause.ECALL_VS, Cause.VIRTUAL_INSTRUCTION
_STORE, _FETCH = Access.STORE, Access.FETCH
_USER_LEVEL, _KERNEL = Level.USER, Level.KERNEL
_FAULTS = PAGE_FAULTS | GUEST_PAGE_FAULTS
_PAGE_FAULT_BITS = sum(1 << cause for cause in PAGE_FAULTS)
#: What records of virtual instructions say of a CSR that is emulated; see engine.trace.record.
_OF_CSR = (Action.CSR_READ, Action.CSR_WRITE, Action.ADDRESS_SPACE)


@dataclass
class HardwareAssist:
    """Runs the vCPUs of one VM on host harts. It is the `monitor` of a hart while one of them is loaded. direct, tagged:
    there is no no-direct-interrupts, no no-vmid. injected, own_tables: see engine.machine.native.carried."""

    guest: VmGuest
    memory: TwoStages | Shadowed
    direct: bool
    tagged: bool

    kernel_level = _KERNEL
    hypervisor_extension = True
    names_frames = False

    @classmethod
    def of(cls, guest: VmGuest) -> HardwareAssist:
        switches = guest.host.configuration.switches
        memory = Shadowed(guest) if SHADOW_PAGING in switches else TwoStages(guest)
        guest.vm.ram.protected = memory.protect
        return cls(guest, memory, NO_DIRECT_INTERRUPTS not in switches, NO_VMID not in switches)

    def __post_init__(self) -> None:
        self.injected = SUPERVISOR_INTERRUPTS & ~(carried.TIMER if self.direct else 0)
        self.own_tables = isinstance(self.memory, TwoStages)

    @staticmethod
    def refuses(machine_mode: bool, paravirtual: bool) -> Problem | None:
        if paravirtual:
            return refuse_paravirtual()
        if not machine_mode:
            return None
        return Problem(
            "needs-machine-mode",
            "The guest starts in machine mode, and VS mode is the highest that hardware assist has for a guest.",
            {},
        )

    # -- entering and leaving a hart -----------------------------------------------------------------
    def enter(self, vcpu: VCpu, hart: Hart) -> None:
        guest, virtual, memory = self.guest, vcpu.virtual, self.memory
        hgatp = memory.hgatp()
        vcpu.load(hart)
        hart.virtual = 1
        hart.hgatp = hgatp
        hart.mstatus |= Status.FS | Status.SD
        hart.hstatus = GuestStatus.XLEN_64 | GuestStatus.VTW | memory.intercepts
        hart.hedeleg = virtual.medeleg & GUEST_EXCEPTIONS & ~memory.faults
        hart.medeleg = hart.hedeleg
        hart.hideleg = GUEST_INTERRUPTS
        hart.mcounteren = hart.hcounteren = virtual.mcounteren
        hart.menvcfg = hart.henvcfg = virtual.menvcfg
        if not self.direct:
            hart.henvcfg &= ~EnvironmentBits.STCE
        hart.monitor, hart.observe, hart.monitored = self, self.observe, 1
        virtual.carrier, virtual.direct = hart, self.direct
        hart.reported = hart.retired - (vcpu.instructions - vcpu.reported)
        length, at, cause, pc = vcpu.streak
        hart.streak_length, hart.streak_cause, hart.streak_pc = length, cause, pc
        hart.streak_at = hart.retired if at == vcpu.instructions else NO_STREAK
        # The host's own time counts from this guest's phase, so that their difference is a whole number of ticks.
        phase = guest.started % TICK_NS
        hart.ticks = lambda: (hart.clock - phase) // TICK_NS
        hart.time_offset = 0
        guest.host.record_natively(hart, guest.id, vcpu.number, phase)
        if self.tagged and isinstance(memory, TwoStages):
            hart.guest_ram_at, hart.stage_at = ctypes.addressof(guest.vm.ram), memory.at
        self._hand_over(vcpu)
        hart.update_timers()
        hart.refresh()
        self._forget(hart)

    def _forget(self, hart: Hart) -> None:
        """The guest is entered or left."""
        if not self.tagged:
            hart.flush()

    def leave(self, vcpu: VCpu) -> None:
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        virtual = vcpu.virtual
        virtual.carrier = None
        virtual.mip |= virtual.arrived
        virtual.arrived = 0
        vcpu.unload()
        hart.monitor = hart.observe = None
        hart.monitored = 0
        hart.virtual = hart.hgatp = hart.vsatp = hart.guest_ram_at = hart.stage_at = 0
        hart.mie = hart.mip = hart.lines = 0
        self.guest.host.record_in_python(hart)
        hart.refresh()

    def _hand_over(self, vcpu: VCpu) -> None:
        """The virtual hart's state into the registers of the hart that it is loaded on."""
        hart, virtual, guest = vcpu.hart, vcpu.virtual, self.guest
        assert hart is not None
        vsatp = self.memory.vsatp(virtual)
        changed = virtual.moves.hand_over(
            virtual.subject, hart.address, self.direct, self.injected, virtual.arrived, self._delta(), vsatp, guest.started
        )
        self._handed_over(virtual, hart, changed)

    def _hand_over_after_access(self, vcpu: VCpu, hart: Hart) -> None:
        """As _hand_over, of what a load or a store can have changed."""
        virtual = vcpu.virtual
        vsatp = self.memory.vsatp(virtual)
        changed = virtual.moves.hand_over_after_access(
            virtual.subject, hart.address, self.direct, self.injected, virtual.arrived, self._delta(), vsatp
        )
        self._handed_over(virtual, hart, changed)

    def _handed_over(self, virtual: VirtualHart, hart: Hart, changed: int) -> None:
        """What handing over leaves to be done."""
        virtual.arrived = 0
        if changed & carried.SITUATION:
            hart.refresh()
        if changed & carried.TIME:
            hart.update_timers()
            self.guest.host.retime(hart)

    def _hvip(self, vcpu: VCpu) -> int:
        return carried.hvip(vcpu.virtual, self.injected, vcpu.virtual.arrived)

    def _delta(self) -> int:
        """The guest's time less the host's, in ticks."""
        return (self.guest.board.clint.offset - self.guest.started // TICK_NS) & MASK64

    def catch_up(self, vcpu: VCpu) -> None:
        """Bring the virtual hart up to date with the hart that it is loaded on."""
        hart, virtual = vcpu.hart, vcpu.virtual
        if hart is not None:
            virtual.moves.catch_up(virtual.subject, hart.address, self.direct, self.own_tables)

    def _resume(self, vcpu: VCpu, hart: Hart) -> None:
        self._forget(hart)
        if self.guest.ended or not vcpu.runnable:
            hart.leave = True

    # -- what stays inside ---------------------------------------------------------------------------
    def observe(self, hart: Hart, cause: int, value: int, interrupt: bool, origin: int, handler: int) -> None:
        """The hart delivered a trap to the guest's kernel by itself."""
        guest = self.guest
        vcpu = guest.loaded(hart)
        level = _USER_LEVEL if origin == USER else _KERNEL
        guest.delivered(vcpu, hart, cause, value, interrupt, level, handler)
        if not interrupt:
            guest.follow_trap(hart, cause, hart.pc, hart.retired)

    # -- exits ---------------------------------------------------------------------------------------
    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:  # noqa: ARG002
        """A VM exit at hart.pc."""
        vcpu = self.guest.loaded(hart)
        virtual = vcpu.virtual
        origin, pc, base = vcpu.level, hart.pc, virtual.instructions_base
        instruction = 0
        access = _FAULTS.get(cause)
        if access is not None:
            virtual.moves.catch_up_for_access(virtual.subject, hart.address, self.direct, self.own_tables)
            outcome, instruction = self._page_fault(vcpu, hart, access, value)
        else:
            self.catch_up(vcpu)
            if cause == _VIRTUAL_INSTRUCTION:
                outcome, instruction = self._virtual_instruction(vcpu, hart, value), value
            else:
                outcome = self._trap_below(vcpu, hart, _ECALL_S if cause == _ECALL_VS else cause, value)
        if virtual.instructions_base != base:
            hart.streak_at = NO_STREAK
        self.guest.exit(vcpu, outcome, cause, pc, value, instruction, origin)
        hart.reported = hart.retired
        self._resume(vcpu, hart)

    def timer(self, vcpu: VCpu, preempted_by: int | None) -> None:
        """The guest's timer is due: the hart raises its interrupt, or, where it is not the hart's, the VMM does after an
        exit. Or (`preempted_by`: next guest) its time slice is over, which is an exit."""
        hart = vcpu.hart
        assert hart is not None
        if preempted_by is None and self.direct:
            self.guest.board.update_timer(vcpu.number)
            hart.update_timers()
            self.guest.host.retime(hart)
            return
        self.catch_up(vcpu)
        if preempted_by is not None:
            outcome = Outcome(Kind.INTERRUPT, _EMULATED, Action.PREEMPT, preempted_by)
        else:
            self.guest.board.update_timer(vcpu.number)
            outcome = self._hand_over_interrupt(vcpu, Interrupt.SUPERVISOR_TIMER)
        self._interrupted(vcpu, hart, Interrupt.SUPERVISOR_TIMER, outcome)
        self.guest.host.retime(hart)

    def _hand_over_interrupt(self, vcpu: VCpu, code: Interrupt) -> Outcome:
        """hvip gets it; the guest takes it by itself, unless it masks it."""
        hart = vcpu.hart
        assert hart is not None
        hart.mip = self._hvip(vcpu)
        vcpu.virtual.arrived = 0
        hart.look_at_interrupts()
        if code == Interrupt.SUPERVISOR_TIMER and not vcpu.virtual.mie & carried.TIMER:
            return Outcome(Kind.INTERRUPT, _EMULATED, Action.TIMER, 1)
        handler = (hart.vstvec & ~3) + (4 * code if hart.vstvec & 1 else 0)
        return Outcome(Kind.INTERRUPT, _INJECTED, Action.INJECT_INTERRUPT, code, handler)

    def _interrupted(self, vcpu: VCpu, hart: Hart, code: Interrupt, outcome: Outcome) -> None:
        """An exit between two instructions."""
        hart.steps += 1
        hart.unretired += 1
        self.guest.exit(vcpu, outcome, INTERRUPT_BIT | code, hart.pc, 0, 0, vcpu.level)
        hart.reported = hart.retired
        self._resume(vcpu, hart)

    def wake(self, vcpu: VCpu) -> None:
        """The board's clock may have been set, by this vCPU or another."""
        hart = vcpu.hart
        if hart is not None and carried.set_time(vcpu.virtual, hart.address, self._delta(), hart.vstimecmp):
            hart.update_timers()

    def inject_pending(self, vcpu: VCpu) -> bool:
        """hvip has what is pending, and the hart takes it; but where that needs the VMM, what arrived since the guest was
        entered is an exit. Shadow tables may have been emptied meanwhile for another vCPU."""
        hart = vcpu.hart
        assert hart is not None
        if not self.memory.is_current(vcpu.virtual, hart):
            self.catch_up(vcpu)
            hart.vsatp = self.memory.vsatp(vcpu.virtual)
            hart.refresh()
        if self.direct:
            return False
        arrived = self._hvip(vcpu) & ~hart.mip
        if not arrived:
            return False
        code = Interrupt((arrived >> 1).bit_length() - 1)
        self.catch_up(vcpu)
        self._interrupted(vcpu, hart, code, self._hand_over_interrupt(vcpu, code))
        return True

    # -- handlers ------------------------------------------------------------------------------------
    def _page_fault(self, vcpu: VCpu, hart: Hart, access: Access, address: int) -> tuple[Outcome, int]:
        """The outcome, and the encoding of the instruction where it was emulated."""
        try:
            found = self.memory.fault(vcpu, hart, access, address)
        except OutOfFramesError:
            self.guest.fail("out-of-memory", "The host has no memory left for the guest.", pc=f"{hart.pc:#x}")
            return Outcome(_PAGE_FAULT, Disposition.KILLED, Action.KILL), 0
        if isinstance(found, Outcome):
            if self.memory.faults:  # the guest may need another space
                self._hand_over_after_access(vcpu, hart)
            return found, 0
        if isinstance(found, Trap):
            return self._own(vcpu, hart, found), 0
        return self._emulated_access(vcpu, hart, address, access, found)

    def _own(self, vcpu: VCpu, hart: Hart, trap: Trap) -> Outcome:
        """The trap is the guest's own: its kernel's, or its firmware's."""
        if vcpu.virtual.trap_target(trap.cause, False) == MACHINE:
            self.catch_up(vcpu)
            return self._trap_below(vcpu, hart, trap.cause, trap.value)
        return self._inject(vcpu, hart, trap)

    def _emulated_access(
        self, vcpu: VCpu, hart: Hart, address: int, access: Access, target: int
    ) -> tuple[Outcome, int]:
        """The instruction touches what is the VMM's: a device, or (`target`: guest physical) a table that it shadows."""
        vcpu.virtual.bus.touched = None
        try:
            word = hart.executing()
            if word is None:
                word = vcpu.virtual.fetch(vcpu.virtual.pc)
        except Trap as trap:
            return self._own(vcpu, hart, trap), 0
        table = self.guest.vm.ram.holds(target, 1)
        if table:
            carry_reservation(self.guest, vcpu, target)
        done = access_for(vcpu, word, (address, access, target))
        if isinstance(done, Trap):
            return self._own(vcpu, hart, done), word
        self._hand_over_after_access(vcpu, hart)
        if isinstance(done, Outcome):
            return done, word
        if table:
            return Outcome(_PAGE_FAULT, _EMULATED, _PAGE_TABLE_WRITE, target, done), word
        # The guest's tables changed under the instruction: it went to memory after all.
        return Outcome(_VM_EXIT, _EMULATED, _EMULATE), word

    def _trap_below(self, vcpu: VCpu, hart: Hart, cause: int, value: int) -> Outcome:
        """A call to the firmware, or what else the guest's M level keeps from its kernel."""
        virtual, firmware = vcpu.virtual, self.guest.vm.board.firmware
        assert firmware is not None
        if virtual.trap_target(cause, False) != MACHINE:
            return self._inject(vcpu, hart, Trap(cause, value))
        virtual.trap(cause, value)
        self._hand_over(vcpu)
        action, a, b = firmware.last
        injected = action == _INJECT_EXCEPTION
        disposition = _INJECTED if injected else _EMULATED
        return Outcome(kind_of(cause, False), disposition, action, a, b)

    def _virtual_instruction(self, vcpu: VCpu, hart: Hart, word: int) -> Outcome:
        virtual = vcpu.virtual
        action, number, rd, rs1, immediate = meaning(word)
        source = immediate if rs1 is None else virtual.x[rs1]
        trap = execute(vcpu, word)
        if trap is not None:
            return self._own(vcpu, hart, trap)
        a, b = 0, 0
        if action == _WFI:
            a = self.guest.wakes_at(vcpu)
        elif action == _SFENCE:
            a = source
        elif action == _ADDRESS_SPACE:
            a, b = virtual.satp, int(self.memory.has_space(virtual))
        elif action in _OF_CSR:
            a, b = number, virtual.x[rd] if action == _CSR_READ else source
        else:
            action = _EMULATE
        self._hand_over(vcpu)
        return Outcome(_VM_EXIT, _EMULATED, action, a, b)

    def _inject(self, vcpu: VCpu, hart: Hart, trap: Trap) -> Outcome:
        """The trap is the guest's own: the hart enters its handler as for any that it delivers."""
        pc = hart.pc
        hart.enter_trap(VIRTUAL_SUPERVISOR, trap.cause, trap.value, False)
        self.guest.follow_trap(hart, trap.cause, pc, hart.retired)
        self.catch_up(vcpu)
        kind = _PAGE_FAULT if trap.cause in mmu.PAGE_FAULTS else Kind.EXCEPTION
        return Outcome(kind, _INJECTED, _INJECT_EXCEPTION, trap.cause, hart.pc)

    # -- the rest of Technique -----------------------------------------------------------------------
    def host_walk(self, vcpu: VCpu, tables: mmu.Tables, address: int) -> tuple[RecordedWalk, int | None]:
        return self.memory.host_walk(vcpu, tables, address)

    def stored(self, address: int, length: int) -> None:
        self.memory.stored(address, length)

    def remapped(self, page: int) -> None:
        self.memory.remapped(page)

    def unmap(self, page: int) -> bool:
        return self.memory.unmap(page)

    def close(self) -> None:
        self.memory.close()

    def save(self) -> dict[str, Any]:
        return self.memory.save()

    def load(self, state: dict[str, Any]) -> None:
        self.memory.load(state)


class TwoStages:
    """The guest's memory by two-stage paging: vsatp is the guest's own, and the hart walks both stages. `faults`: page
    faults that the VMM takes before the guest's kernel; `intercepts`: bits of hstatus besides."""

    faults = intercepts = 0

    def __init__(self, guest: VmGuest) -> None:
        self.guest = guest
        self.stage = SecondStage(guest.host.frames, guest.id, guest.vm.ram.pages)
        self.at = ctypes.addressof(self.stage)

    def hgatp(self) -> int:
        """Raises OutOfFramesError."""
        return self.stage.hgatp()

    def vsatp(self, virtual: Hart) -> int:
        return virtual.satp

    def has_space(self, _virtual: Hart) -> bool:
        return True

    def is_current(self, _virtual: Hart, _hart: Hart) -> bool:
        """Does the hart still have tables of the guest?"""
        return True

    def fault(self, _vcpu: VCpu, hart: Hart, access: Access, address: int) -> Outcome | Trap | int:
        """The outcome if the VMM mends it, the trap if it is the guest's own, or the guest physical address that is to be
        emulated. Raises OutOfFramesError."""
        target = hart.fault_gpa << 2 | address & 3
        ram = self.guest.vm.ram
        if ram.holds(target, 1):
            page, stores = target >> 12, access == _STORE or hart.fault_instruction == mmu.TABLE_WRITE
            frame, action = claim(ram, page, stores)
            self.stage.map(page, frame, stores or ram.writable(page))
            host = self.guest.host_address(frame) | target & 0xFFF
            action = _SECOND_STAGE_FILL if action is None else action
            return Outcome(_PAGE_FAULT, _EMULATED, action, target, host)
        if hart.fault_instruction or access == _FETCH:
            # A page table, or code, where the guest has no memory.
            return Trap(mmu.access_fault(access), address)
        return target

    def host_walk(self, vcpu: VCpu, tables: mmu.Tables, address: int) -> tuple[RecordedWalk, int | None]:
        """Both stages, as the hart walks them: up to fifteen references."""
        if self.stage.root is None:
            return RecordedWalk(tables), None
        options = Status.SUM | Status.MXR | Status.MXR << mmu.OPTIONS_SHIFT
        return mmu.look(tables, vcpu.virtual.satp, self.stage.hgatp(), address, SUPERVISOR, options)

    def stored(self, address: int, length: int) -> None:
        """The hart walks the guest's own tables: nothing here rests on what they say."""

    def remapped(self, page: int) -> None:
        ram = self.guest.vm.ram
        self.stage.remap(page, ram.frame(page), ram.writable(page))

    def unmap(self, page: int) -> bool:
        return self.stage.unmap(page)

    def protect(self, pages: Sequence[int]) -> None:
        self.stage.protect(pages)

    def close(self) -> None:
        self.stage.close()

    def save(self) -> dict[str, Any]:
        return self.stage.save()

    def load(self, state: dict[str, Any]) -> None:
        self.stage.load(state)


class _BothModes(ShadowTables):
    """Shadow tables that the hart walks as VS and as VU mode, by the guest's own U, SUM and MXR: one space for each satp.
    Without paging there is nothing that could say which mode a page is for, so each mode has its space then, and the
    first fault after a change of mode chooses it."""

    @staticmethod
    def key(virtual: Hart) -> SpaceKey:
        return (virtual.satp, SUPERVISOR, 0) if virtual.satp >> 60 else (0, virtual.privilege, 0)


class Shadowed:
    """The guest's memory by shadow tables, for a hart that has no second stage; as TwoStages."""

    faults, intercepts = _PAGE_FAULT_BITS, GuestStatus.VTVM

    def __init__(self, guest: VmGuest) -> None:
        self.guest = guest
        self.shadow = _BothModes(guest.host.frames, guest.vm.ram)
        self.shadow.serve(guest.vm.vcpus)

    def hgatp(self) -> int:
        return 0

    def vsatp(self, virtual: Hart) -> int:
        return self.shadow.satp(self.shadow.key(virtual))

    def has_space(self, virtual: Hart) -> bool:
        return self.shadow.key(virtual) in self.shadow.roots

    def is_current(self, virtual: Hart, hart: Hart) -> bool:
        keys = [(virtual.satp, SUPERVISOR, 0)] if virtual.satp >> 60 else [(0, SUPERVISOR, 0), (0, USER, 0)]
        return any(key in self.shadow.roots and self.shadow.satp(key) == hart.vsatp for key in keys)

    def fault(self, vcpu: VCpu, _hart: Hart, access: Access, address: int) -> Outcome | Trap | int:
        virtual, ram = vcpu.virtual, self.guest.vm.ram
        key = self.shadow.key(virtual)
        allowed, user = mmu.R | mmu.W | mmu.X, virtual.privilege == USER
        try:
            target = virtual.walk(address, access)
        except Trap as trap:
            return trap
        if virtual.satp >> 60:
            leaf = virtual.leaf
            allowed = leaf & (mmu.R | mmu.X | (mmu.W if leaf & mmu.D else 0))
            user = leaf & mmu.U != 0
        page = target >> 12
        if not ram.holds(target, 1):
            return Trap(Cause.INSTRUCTION_ACCESS_FAULT, address) if access == _FETCH else target
        if access == _STORE and page in self.shadow.table_pages:
            return target
        frame, action = claim(ram, page, access == _STORE)
        was_mapped = self.shadow.fill(key, address, page, frame, allowed, virtual, user)
        if action is None:
            action = _DIRTY if was_mapped and access == _STORE else _SHADOW_FILL
        host = self.guest.host_address(frame) | target & 0xFFF
        return Outcome(_PAGE_FAULT, _EMULATED, action, target, host)

    def host_walk(self, vcpu: VCpu, tables: mmu.Tables, address: int) -> tuple[RecordedWalk, int | None]:
        root = self.shadow.roots.get(self.shadow.key(vcpu.virtual))
        if root is None:
            return RecordedWalk(tables), None
        satp = mmu.SV39 << 60 | (RAM_BASE >> 12) + root
        return mmu.look(tables, satp, 0, address, SUPERVISOR, Status.SUM | Status.MXR)

    def stored(self, address: int, length: int) -> None:
        self.shadow.stored(address, length, self.guest.host.active.interpreter)

    def remapped(self, page: int) -> None:
        self.shadow.remapped(page)

    def unmap(self, page: int) -> bool:
        return self.shadow.unmap(page)

    def protect(self, pages: Sequence[int]) -> None:
        self.shadow.protect(pages)

    def close(self) -> None:
        self.shadow.close()

    def save(self) -> dict[str, Any]:
        return self.shadow.save()

    def load(self, state: dict[str, Any]) -> None:
        self.shadow.load(state)
