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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.bits import MASK64
from engine.commands import Problem
from engine.hypervisor.frames import OutOfFramesError
from engine.hypervisor.guest import kind_of
from engine.hypervisor.interpret import execute
from engine.hypervisor.second_stage import SecondStage
from engine.hypervisor.technique import Outcome, claim, refuse_paravirtual
from engine.hypervisor.vm import VCpu
from engine.isa.csrs import GUEST_EXCEPTIONS, GUEST_INTERRUPTS, SUPERVISOR_INTERRUPTS, GuestStatus, Status
from engine.isa.decoder import decode
from engine.machine import mmu
from engine.machine.hart import TICK_NS, Hart
from engine.machine.mmu import GUEST_PAGE_FAULTS, Access, RecordedWalk
from engine.machine.privileged import MACHINE, SUPERVISOR, USER, VIRTUAL_SUPERVISOR
from engine.machine.state import NO_STREAK
from engine.machine.traps import Trap
from engine.trace.record import INTERRUPT_BIT, Action, Cause, Disposition, Interrupt, Kind, Level

if TYPE_CHECKING:
    from engine.hypervisor.vm_guest import VmGuest

_SOFTWARE = 1 << Interrupt.SUPERVISOR_SOFTWARE
_STATUS = Status.SUPERVISOR_VIEW & ~Status.XLEN_64


@dataclass
class HardwareAssist:
    """Runs the vCPUs of one VM on host harts. It is the `monitor` of a hart while one of them is loaded."""

    guest: VmGuest
    stage: SecondStage

    kernel_level = Level.KERNEL
    hypervisor_extension = True

    @classmethod
    def of(cls, guest: VmGuest) -> HardwareAssist:
        made = cls(guest, SecondStage(guest.host.frames, guest.id))
        guest.vm.ram.protected = made.stage.protect
        return made

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
        guest, virtual = self.guest, vcpu.virtual
        hgatp = self.stage.hgatp()
        vcpu.load(hart)
        hart.virtual = 1
        hart.hgatp = hgatp
        hart.mstatus |= Status.FS | Status.SD
        hart.hstatus = GuestStatus.XLEN_64 | GuestStatus.VTW
        hart.hedeleg = virtual.medeleg & GUEST_EXCEPTIONS
        hart.medeleg = hart.hedeleg
        hart.hideleg = GUEST_INTERRUPTS
        hart.mcounteren = hart.hcounteren = virtual.mcounteren
        hart.menvcfg = hart.henvcfg = virtual.menvcfg
        hart.monitor, hart.observe, hart.monitored = self, self.observe, 1
        virtual.carrier = hart
        hart.reported = hart.retired - (vcpu.instructions - vcpu.reported)
        length, at, cause, pc = vcpu.streak
        hart.streak_length, hart.streak_cause, hart.streak_pc = length, cause, pc
        hart.streak_at = hart.retired if at == vcpu.instructions else NO_STREAK
        # The host's own time counts from this guest's phase, so that their difference is a whole number of ticks.
        phase = guest.started % TICK_NS
        hart.ticks = lambda: (hart.clock - phase) // TICK_NS
        hart.time_offset = 0
        guest.host.record_natively(hart, guest.id, vcpu.number, phase)
        hart.guest_ram_at = ctypes.addressof(guest.vm.ram)
        self._hand_over(vcpu)
        hart.update_timers()
        hart.refresh()

    def leave(self, vcpu: VCpu) -> None:
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        vcpu.virtual.carrier = None
        vcpu.unload()
        hart.monitor = hart.observe = None
        hart.monitored = 0
        hart.virtual = hart.hgatp = hart.vsatp = hart.guest_ram_at = 0
        hart.mie = hart.mip = hart.lines = 0
        self.guest.host.record_in_python(hart)
        hart.refresh()

    def _hand_over(self, vcpu: VCpu) -> None:
        """The virtual hart's state into the registers of the hart that it is loaded on."""
        hart, virtual = vcpu.hart, vcpu.virtual
        assert hart is not None
        hart.pc, hart.fcsr = virtual.pc, virtual.fcsr
        hart.vstvec, hart.vsscratch, hart.vsepc = virtual.stvec, virtual.sscratch, virtual.sepc
        hart.vscause, hart.vstval = virtual.scause, virtual.stval
        hart.scounteren, hart.senvcfg = virtual.scounteren, virtual.senvcfg
        situation = (virtual.privilege, virtual.satp, virtual.mstatus & Status.SUPERVISOR_VIEW)
        if situation != (hart.privilege, hart.vsatp, hart.vsstatus):
            hart.privilege, hart.vsatp, hart.vsstatus = situation
            hart.refresh()
        hart.mie = (virtual.mie & SUPERVISOR_INTERRUPTS) << 1
        hart.mip = ((virtual.mip | virtual.lines) & _INJECTED) << 1
        hart.cycle_offset = (virtual.cycle_offset - self.guest.started) & MASK64
        hart.instret_offset = (virtual.instret_offset + vcpu.instructions - hart.retired) & MASK64
        self._set_time(hart, virtual.stimecmp)
        hart.look_at_interrupts()

    def _set_time(self, hart: Hart, compare: int) -> None:
        """The guest's time and what it waits for."""
        delta = (self.guest.board.clint.offset - self.guest.started // TICK_NS) & MASK64
        if (delta, compare) != (hart.htimedelta, hart.vstimecmp):
            hart.htimedelta, hart.vstimecmp = delta, compare
            hart.update_timers()
            self.guest.host.retime(hart)

    def catch_up(self, vcpu: VCpu) -> None:
        """Bring the virtual hart up to date with the hart that it is loaded on."""
        hart, virtual = vcpu.hart, vcpu.virtual
        if hart is None:
            return
        virtual.pc, virtual.fcsr = hart.pc, hart.fcsr
        virtual.stvec, virtual.sscratch, virtual.sepc = hart.vstvec, hart.vsscratch, hart.vsepc
        virtual.scause, virtual.stval = hart.vscause, hart.vstval
        virtual.scounteren, virtual.senvcfg = hart.scounteren, hart.senvcfg
        virtual.privilege, virtual.satp, virtual.stimecmp = hart.privilege, hart.vsatp, hart.vstimecmp
        virtual.mstatus = virtual.mstatus & ~_STATUS | hart.vsstatus & _STATUS
        virtual.mie = virtual.mie & ~SUPERVISOR_INTERRUPTS | hart.mie >> 1 & SUPERVISOR_INTERRUPTS
        virtual.mip = virtual.mip & ~_SOFTWARE | hart.mip >> 1 & _SOFTWARE
        timer = 1 << Interrupt.SUPERVISOR_TIMER
        virtual.lines = virtual.lines & ~timer | hart.lines >> 1 & timer
        vcpu.reported = vcpu.instructions - ((hart.retired - hart.reported) & MASK64)
        if hart.streak_at == hart.retired:
            vcpu.streak = (hart.streak_length, vcpu.instructions, hart.streak_cause, hart.streak_pc)
        else:
            vcpu.streak = (0, NO_STREAK, 0, 0)

    def _resume(self, vcpu: VCpu, hart: Hart) -> None:
        if self.guest.ended or not vcpu.runnable:
            hart.leave = True

    # -- what stays inside ---------------------------------------------------------------------------
    def observe(self, hart: Hart, cause: int, value: int, interrupt: bool, origin: int, handler: int) -> None:
        """The hart delivered a trap to the guest's kernel by itself."""
        guest = self.guest
        vcpu = guest.loaded(hart)
        level = Level.USER if origin == USER else Level.KERNEL
        guest.delivered(vcpu, hart, cause, value, interrupt, level, handler)
        if not interrupt:
            streak = (hart.streak_length, hart.streak_at, hart.streak_cause, hart.streak_pc)
            hart.streak_length, hart.streak_at, hart.streak_cause, hart.streak_pc = guest.follow_trap(
                streak, cause, hart.pc, hart.retired
            )

    # -- exits ---------------------------------------------------------------------------------------
    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:  # noqa: ARG002
        """A VM exit at hart.pc."""
        vcpu = self.guest.loaded(hart)
        self.catch_up(vcpu)
        origin, pc, retired = vcpu.level, hart.pc, vcpu.instructions
        instruction = 0
        if cause in GUEST_PAGE_FAULTS:
            access = Access(GUEST_PAGE_FAULTS.index(Cause(cause)))
            outcome, instruction = self._guest_page_fault(vcpu, hart, access, value)
        elif cause == Cause.VIRTUAL_INSTRUCTION:
            outcome, instruction = self._virtual_instruction(vcpu, hart, value), value
        else:
            outcome = self._trap_below(vcpu, hart, Cause.ECALL_S if cause == Cause.ECALL_VS else cause, value)
        if vcpu.instructions != retired:
            hart.streak_at = NO_STREAK
        self.guest.exit(vcpu, outcome, cause, pc, value, instruction, origin)
        hart.reported = hart.retired
        self._resume(vcpu, hart)

    def timer(self, vcpu: VCpu, preempted_by: int | None) -> None:
        """The guest's comparator is reached, and the hart raises its interrupt; or (`preempted_by`: next guest) its
        time slice is over, which is an exit."""
        hart = vcpu.hart
        assert hart is not None
        if preempted_by is None:
            self.guest.board.update_timer(vcpu.number)
            hart.update_timers()
            self.guest.host.retime(hart)
            return
        self.catch_up(vcpu)
        hart.steps += 1
        hart.unretired += 1
        outcome = Outcome(Kind.INTERRUPT, Disposition.EMULATED, Action.PREEMPT, preempted_by)
        cause = INTERRUPT_BIT | Interrupt.SUPERVISOR_TIMER
        self.guest.exit(vcpu, outcome, cause, hart.pc, 0, 0, vcpu.level)
        hart.reported = hart.retired
        self._resume(vcpu, hart)

    def wake(self, vcpu: VCpu) -> None:
        """The board's clock may have been set, by this vCPU or another."""
        if vcpu.hart is not None:
            self._set_time(vcpu.hart, vcpu.hart.vstimecmp)
            self.guest.host.retime(vcpu.hart)

    def inject_pending(self, vcpu: VCpu) -> bool:  # noqa: ARG002 (hvip has it, and the hart takes it)
        return False

    # -- handlers ------------------------------------------------------------------------------------
    def _guest_page_fault(self, vcpu: VCpu, hart: Hart, access: Access, address: int) -> tuple[Outcome, int]:
        """The outcome, and the encoding of the instruction where it was emulated."""
        target = hart.fault_gpa << 2 | address & 3
        ram = self.guest.vm.ram
        if ram.holds(target, 1):
            page, stores = target >> 12, access == Access.STORE or hart.fault_instruction == mmu.TABLE_WRITE
            try:
                frame, action = claim(ram, page, stores)
                self.stage.map(page, frame, ram.writable(page))
            except OutOfFramesError:
                self.guest.fail(
                    "out-of-memory", "The host has no memory left for the guest.", pc=f"{hart.pc:#x}"
                )
                return Outcome(Kind.PAGE_FAULT, Disposition.KILLED, Action.KILL), 0
            host = self.guest.host_address(frame) | target & 0xFFF
            action = Action.SECOND_STAGE_FILL if action is None else action
            return Outcome(Kind.PAGE_FAULT, Disposition.EMULATED, action, target, host), 0
        if hart.fault_instruction or access == Access.FETCH:
            # A page table, or code, where the guest has no memory.
            return self._inject(vcpu, hart, Trap(mmu.access_fault(access), address)), 0
        return self._device_access(vcpu, hart)

    def _device_access(self, vcpu: VCpu, hart: Hart) -> tuple[Outcome, int]:
        virtual = vcpu.virtual
        virtual.bus.touched = None
        try:
            word = virtual.fetch(virtual.pc)
        except Trap as trap:
            return self._inject(vcpu, hart, trap), 0
        trap_taken = execute(vcpu, word)
        if trap_taken is not None:
            return self._inject(vcpu, hart, trap_taken), word
        self._hand_over(vcpu)
        if virtual.bus.touched is None:
            # The guest's tables changed under the instruction: it went to memory after all.
            return Outcome(Kind.VM_EXIT, Disposition.EMULATED, Action.EMULATE), word
        write, address, value = virtual.bus.touched
        action = Action.MMIO_WRITE if write else Action.MMIO_READ
        return Outcome(Kind.MMIO, Disposition.FORWARDED, action, address, value, device=True), word

    def _trap_below(self, vcpu: VCpu, hart: Hart, cause: int, value: int) -> Outcome:
        """A call to the firmware, or what else the guest's M level keeps from its kernel."""
        virtual, firmware = vcpu.virtual, self.guest.vm.board.firmware
        assert firmware is not None
        if virtual.trap_target(cause, False) != MACHINE:
            return self._inject(vcpu, hart, Trap(cause, value))
        virtual.trap(cause, value)
        self._hand_over(vcpu)
        action, a, b = firmware.last
        injected = action == Action.INJECT_EXCEPTION
        disposition = Disposition.INJECTED if injected else Disposition.EMULATED
        return Outcome(kind_of(cause, False), disposition, action, a, b)

    def _virtual_instruction(self, vcpu: VCpu, hart: Hart, word: int) -> Outcome:
        trap = execute(vcpu, word)
        if trap is not None:
            return self._inject(vcpu, hart, trap)
        self._hand_over(vcpu)
        row = decode(word)
        if row is not None and row.mnemonic == "wfi":
            return Outcome(Kind.VM_EXIT, Disposition.EMULATED, Action.WFI, self.guest.wakes_at(vcpu))
        return Outcome(Kind.VM_EXIT, Disposition.EMULATED, Action.EMULATE)

    def _inject(self, vcpu: VCpu, hart: Hart, trap: Trap) -> Outcome:
        """The trap is the guest's own: the hart enters its handler as for any that it delivers."""
        pc = hart.pc
        hart.enter_trap(VIRTUAL_SUPERVISOR, trap.cause, trap.value, False)
        streak = (hart.streak_length, hart.streak_at, hart.streak_cause, hart.streak_pc)
        hart.streak_length, hart.streak_at, hart.streak_cause, hart.streak_pc = self.guest.follow_trap(
            streak, trap.cause, pc, hart.retired
        )
        self.catch_up(vcpu)
        kind = Kind.PAGE_FAULT if trap.cause in mmu.PAGE_FAULTS else Kind.EXCEPTION
        return Outcome(kind, Disposition.INJECTED, Action.INJECT_EXCEPTION, trap.cause, hart.pc)

    # -- inspection ----------------------------------------------------------------------------------
    def host_walk(self, vcpu: VCpu, tables: mmu.Tables, address: int) -> tuple[RecordedWalk, int | None]:
        """Both stages, as the hart walks them: up to fifteen references."""
        walk = RecordedWalk(tables)
        if self.stage.root is None:
            return walk, None
        options = Status.SUM | Status.MXR | mmu.LOOK | Status.MXR << mmu.OPTIONS_SHIFT
        try:
            satp, hgatp = vcpu.virtual.satp, self.stage.hgatp()
            return walk, mmu.walk(walk, satp, hgatp, address, Access.LOAD, SUPERVISOR, options)
        except Trap:
            return walk, None

    # -- the rest of Technique -----------------------------------------------------------------------
    def stored(self, address: int, length: int) -> None:
        """The hart walks the guest's own tables: nothing here rests on what they say."""

    def remapped(self, page: int) -> None:
        ram = self.guest.vm.ram
        self.stage.remap(page, ram.frame(page), ram.writable(page))

    def close(self) -> None:
        self.stage.close()

    def save(self) -> dict[str, Any]:
        return self.stage.save()

    def load(self, state: dict[str, Any]) -> None:
        self.stage.load(state)


#: Interrupts that the VMM injects; the timer's comes from vstimecmp.
_INJECTED = SUPERVISOR_INTERRUPTS & ~(1 << Interrupt.SUPERVISOR_TIMER)
