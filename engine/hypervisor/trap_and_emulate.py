"""Classic trap-and-emulate (Popek and Goldberg, 1974) with shadow page tables.

    guest user    ─┐ both run in U mode of the host hart, directly, on shadow tables
    guest kernel  ─┘ (the kernel does not know: "deprivileged")
          │
          │ every privileged instruction, system call, page fault and host timer interrupt: a VM exit
          ▼
    VMM   privileged instruction  executes the instruction's table row on the vCPU's virtual hart
          ecall, exceptions       the architecture's trap entry on the virtual hart: the guest's own
                                  handler runs next; a call to the firmware is served
          page fault              walks the guest's tables: guest's fault -> inject; ours -> fill;
                                  device -> emulate
          timer                   brings the virtual timer up to date, injects what is due, ends slices

Every exit is one step of the host hart and writes one record.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.commands import Problem
from engine.hypervisor.interpret import access_for, carry_reservation, execute, meaning
from engine.hypervisor.shadow import ShadowTables, SpaceKey
from engine.hypervisor.technique import Outcome, claim, refuse_paravirtual
from engine.hypervisor.vm import VCpu
from engine.isa.csrs import Status
from engine.machine import mmu
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE
from engine.machine.mmu import PAGE_FAULTS, Access, RecordedWalk
from engine.machine.native.exits import granted
from engine.machine.native.procedures import DONE
from engine.machine.privileged import MACHINE, NO_INTERRUPT, USER
from engine.machine.traps import Trap
from engine.trace.record import INTERRUPT_BIT, Action, Cause, Disposition, Interrupt, Kind, Level

if TYPE_CHECKING:
    from engine.hypervisor.vm_guest import VmGuest

#: Members of enumerations that exits need, by names of their own (why: engine.machine.mmu).
_VM_EXIT, _PAGE_FAULT, _EXCEPTION, _HYPERCALL = Kind.VM_EXIT, Kind.PAGE_FAULT, Kind.EXCEPTION, Kind.HYPERCALL
_SYSCALL = Kind.SYSCALL
_EMULATED, _INJECTED = Disposition.EMULATED, Disposition.INJECTED
_CSR_READ, _CSR_WRITE, _ADDRESS_SPACE, _SRET = Action.CSR_READ, Action.CSR_WRITE, Action.ADDRESS_SPACE, Action.SRET
_MRET, _WFI, _SFENCE, _SHADOW_FILL, _DIRTY = Action.MRET, Action.WFI, Action.SFENCE, Action.SHADOW_FILL, Action.DIRTY
_EMULATE, _PAGE_TABLE_WRITE, _INJECT_EXCEPTION = Action.EMULATE, Action.PAGE_TABLE_WRITE, Action.INJECT_EXCEPTION
_ILLEGAL_INSTRUCTION, _ECALL_U = Cause.ILLEGAL_INSTRUCTION, Cause.ECALL_U
_STORE, _FETCH = Access.STORE, Access.FETCH
_ALL = mmu.R | mmu.W | mmu.X
_FLAGS = (1 << len(mmu.FLAG_LETTERS)) - 1


class _Rights(NamedTuple):
    """As much of a hart as `exits.granted` looks at."""

    privilege: int
    mstatus: int


@lru_cache(maxsize=1024)
def _granted_to(flags: int, privilege: int, status: int) -> int:
    return granted(_Rights(privilege, status), flags)


def _granted(leaf: int, privilege: int, status: int) -> int:
    """See exits.granted."""
    return _granted_to(leaf & _FLAGS, privilege, status & (Status.SUM | Status.MXR))


@dataclass
class TrapAndEmulate:
    """Runs the vCPUs of one VM on host harts. It is the `monitor` of a hart while one of them is loaded."""

    guest: VmGuest
    shadow: ShadowTables

    kernel_level = Level.KERNEL_DEPRIVILEGED
    hypervisor_extension = False  # a machine from before there was one
    names_frames = False
    #: Does the hart execute the code of the guest's kernel where it is?
    kernel_in_place = True

    def __post_init__(self) -> None:
        self.shadow.serve(self.guest.vm.vcpus)

    @classmethod
    def of(cls, guest: VmGuest) -> TrapAndEmulate:
        return cls(guest, ShadowTables(guest.host.frames, guest.vm.ram))

    @staticmethod
    def refuses(machine_mode: bool, paravirtual: bool) -> Problem | None:  # noqa: ARG004 (any mode will do)
        return refuse_paravirtual() if paravirtual else None

    # -- entering and leaving a hart -----------------------------------------------------------------
    def enter(self, vcpu: VCpu, hart: Hart) -> None:
        vcpu.load(hart)
        self._hand_over(vcpu)
        hart.monitor = self
        hart.monitored = 1
        hart.privilege = USER
        self._select_space(vcpu, hart)
        guest, virtual = self.guest, vcpu.virtual
        virtual.time_started, virtual.time_offset = 0, guest.board.clint.offset
        hart.virtual_at = ctypes.addressof(virtual)
        guest.host.record_natively(hart, guest.id, vcpu.number, guest.started)

    def leave(self, vcpu: VCpu) -> None:
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        vcpu.unload()
        hart.monitor = None
        hart.monitored = hart.virtual_at = 0
        self.guest.host.record_in_python(hart)

    def catch_up(self, vcpu: VCpu) -> None:
        """The virtual hart takes what the guest changes without a trap."""
        hart, virtual = vcpu.hart, vcpu.virtual
        if hart is not None:
            virtual.moves.catch_up_deprivileged(virtual.subject, hart.address)

    @staticmethod
    def _hand_over(vcpu: VCpu) -> None:
        """The hart goes on where the virtual hart is."""
        virtual, hart = vcpu.virtual, vcpu.hart
        assert hart is not None
        virtual.moves.hand_over_deprivileged(virtual.subject, hart.address)

    def _select_space(self, vcpu: VCpu, hart: Hart) -> None:
        """The hart translates through the shadow space that holds for what the guest believes now."""
        self._select(self._space(vcpu.virtual), hart)

    def _select(self, key: SpaceKey, hart: Hart) -> None:
        satp = self.shadow.satp(key)
        if hart.satp != satp or hart.privilege != USER:
            hart.satp = satp
            hart.privilege = USER
            hart.refresh()

    def _space(self, virtual: Hart) -> SpaceKey:
        """The shadow space that a vCPU needs in its present state."""
        return self.shadow.key(virtual)

    def _resume(self, vcpu: VCpu, hart: Hart) -> None:
        virtual = vcpu.virtual
        lent = None if self.guest.ended or virtual.waiting or virtual.stopped else virtual.lent
        if lent is not None and lent.resume(virtual.address, hart.address) == DONE:
            return
        self._hand_over(vcpu)
        self._select_space(vcpu, hart)
        if self.guest.ended or not vcpu.runnable or virtual.pending_interrupt() != NO_INTERRUPT:
            hart.leave = True

    # -- exits ---------------------------------------------------------------------------------------
    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:  # noqa: ARG002
        """A VM exit at hart.pc."""
        vcpu = self.guest.loaded(hart)
        self.catch_up(vcpu)
        origin, pc = vcpu.level, vcpu.virtual.pc
        outcome, instruction = self._handle(vcpu, cause, value)
        self.guest.exit(vcpu, outcome, cause, pc, value, instruction, origin)
        self._resume(vcpu, hart)

    def _handle(self, vcpu: VCpu, cause: int, value: int) -> tuple[Outcome, int]:
        """The outcome of a trap, and the encoding of the instruction where it mattered."""
        access = PAGE_FAULTS.get(cause)
        if access is not None:
            return self._page_fault(vcpu, access, value)
        if cause == _ILLEGAL_INSTRUCTION:
            return self._privileged(vcpu, value), value
        if cause == _ECALL_U:
            return self._ecall(vcpu), 0
        return self._inject(vcpu, cause, value, _EXCEPTION), 0

    def timer(self, vcpu: VCpu, preempted_by: int | None) -> None:
        """The host's timer interrupted the guest: its own timer is due, or (`preempted_by`: next guest) its
        slice is over."""
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        origin, pc = vcpu.level, vcpu.virtual.pc
        hart.steps += 1
        hart.unretired += 1
        self.guest.vm.board.update_timer(vcpu.number)
        outcome = self._deliver_interrupt(vcpu)
        if outcome is None:
            if preempted_by is None:
                outcome = Outcome(Kind.INTERRUPT, _EMULATED, Action.TIMER, 1)
            else:
                outcome = Outcome(Kind.INTERRUPT, _EMULATED, Action.PREEMPT, preempted_by)
        cause = INTERRUPT_BIT | Interrupt.SUPERVISOR_TIMER
        self.guest.exit(vcpu, outcome, cause, pc, 0, 0, origin)
        self._resume(vcpu, hart)
        self.guest.host.retime(hart)

    def wake(self, vcpu: VCpu) -> None:
        """`inject_pending` looks at interrupts before the hart's next instruction."""

    def inject_pending(self, vcpu: VCpu) -> bool:
        """Deliver an interrupt that became pending while the VMM had the hart. False: there was none to
        deliver."""
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        origin, pc = vcpu.level, vcpu.virtual.pc
        outcome = self._deliver_interrupt(vcpu)
        if outcome is None:
            self._select_space(vcpu, hart)  # the tables may have been emptied for another vCPU
            return False
        hart.steps += 1
        hart.unretired += 1
        self.guest.exit(vcpu, outcome, INTERRUPT_BIT | outcome.a, pc, 0, 0, origin, switched=False)
        hart.leave = False
        self._resume(vcpu, hart)
        return True

    # -- handlers ------------------------------------------------------------------------------------
    def _deliver_interrupt(self, vcpu: VCpu) -> Outcome | None:
        """Take the virtual hart's pending interrupt; built-in firmware passes machine ones on first."""
        virtual = vcpu.virtual
        while (code := virtual.pending_interrupt()) != NO_INTERRUPT:
            forwarded = virtual.monitor is not None and virtual.trap_target(code, True) == MACHINE
            virtual.waiting = False
            virtual.trap(code, 0, interrupt=True)
            if not forwarded:
                return Outcome(
                    Kind.INTERRUPT, _INJECTED, Action.INJECT_INTERRUPT, code, virtual.pc
                )
        return None

    def _inject(self, vcpu: VCpu, cause: int, value: int, kind: Kind) -> Outcome:
        """The trap is the guest's own: its handler runs next."""
        virtual = vcpu.virtual
        virtual.trap(cause, value)
        self.guest.watch_for_trap_loops(vcpu, cause, vcpu.instructions)
        return Outcome(kind, _INJECTED, _INJECT_EXCEPTION, cause, virtual.pc)

    def _ecall(self, vcpu: VCpu) -> Outcome:
        virtual = vcpu.virtual
        cause = _ECALL_U + virtual.privilege
        firmware = self.guest.vm.board.firmware
        if firmware is None or virtual.trap_target(cause, False) != MACHINE:
            kind = _SYSCALL if cause == _ECALL_U else _HYPERCALL
            return self._inject(vcpu, cause, 0, kind)
        virtual.trap(cause, 0)
        action, a, b = firmware.last
        return Outcome(_HYPERCALL, _EMULATED, action, a, b)

    def _privileged(self, vcpu: VCpu, word: int) -> Outcome:
        """An instruction that U mode may not execute: the vCPU's privilege decides whether the guest may."""
        virtual = vcpu.virtual
        x = virtual.x
        action, number, rd, rs1, immediate = meaning(word)
        source = immediate if rs1 is None else x[rs1]
        trap = execute(vcpu, word)
        if trap is not None:
            return self._inject(vcpu, trap.cause, trap.value, _EXCEPTION)
        a, b = 0, 0
        if action == _CSR_READ:
            a, b = number, x[rd]
        elif action == _CSR_WRITE:
            a, b = number, source
        elif action == _ADDRESS_SPACE:
            a, b = virtual.satp, int(self._space(virtual) in self.shadow.roots)
        elif action in (_SRET, _MRET):
            a, b = virtual.pc, virtual.privilege
        elif action == _WFI:
            a = self.guest.wakes_at(vcpu)
        elif action == _SFENCE:
            a = source
        return Outcome(_VM_EXIT, _EMULATED, action, a, b)

    def _page_fault(self, vcpu: VCpu, access: Access, address: int) -> tuple[Outcome, int]:
        """The outcome, and the encoding of the instruction where it was emulated."""
        virtual = vcpu.virtual
        key = self._space(virtual)
        if key[1] < 0:
            return self._interpret(vcpu, _EMULATE, 0)
        try:
            target = virtual.walk(address, access)
        except Trap as trap:
            return self._inject(vcpu, trap.cause, trap.value, _PAGE_FAULT), 0
        ram = self.guest.vm.ram
        if not ram.holds(target, 1):
            if access == _FETCH:
                return self._inject(vcpu, Cause.INSTRUCTION_ACCESS_FAULT, address, _EXCEPTION), 0
            return self._interpret(vcpu, _EMULATE, target, (address, access, target))
        if access == _STORE and (noticed := self._noticed(target >> 12)) is not None:
            carry_reservation(self.guest, vcpu, target)
            return self._interpret(vcpu, noticed, target, (address, access, target))
        allowed = _granted(virtual.leaf, virtual.privilege, virtual.mstatus) if key[0] else _ALL
        if key[1] != USER and not self.kernel_in_place:
            allowed &= ~mmu.X
        frame, action = claim(ram, target >> 12, access == _STORE)
        was_mapped = self.shadow.fill(key, address, target >> 12, frame, allowed, virtual)
        if action is None:
            action = _DIRTY if was_mapped and access == _STORE else _SHADOW_FILL
        host = self.guest.host_address(frame) | target & 0xFFF
        return Outcome(_PAGE_FAULT, _EMULATED, action, target, host), 0

    def _noticed(self, page: int) -> Action | None:
        """What a store to this guest page is, of which the VMM has to know; None: it need not."""
        return _PAGE_TABLE_WRITE if page in self.shadow.table_pages else None

    def _interpret(
        self, vcpu: VCpu, action: Action, target: int, known: tuple[int, Access, int] | None = None
    ) -> tuple[Outcome, int]:
        """Execute the faulting instruction on the virtual hart: a device register, a page table, or MPRV. known: see
        VirtualHart."""
        vcpu.virtual.bus.touched = None
        try:
            word = self._encoding(vcpu, known is not None)
        except Trap as trap:
            return self._inject(vcpu, trap.cause, trap.value, _PAGE_FAULT), 0
        done = access_for(vcpu, word, known)
        if isinstance(done, Trap):
            return self._inject(vcpu, done.cause, done.value, _EXCEPTION), word
        if isinstance(done, Outcome):
            return done, word
        kind = _VM_EXIT if action == _EMULATE else _PAGE_FAULT
        return Outcome(kind, _EMULATED, action, target, done), word

    def _encoding(self, vcpu: VCpu, executing: bool) -> int:
        """The instruction at the virtual hart's pc. executing: a load or a store of it trapped. Raises Trap."""
        hart = vcpu.hart
        assert hart is not None
        word = hart.executing() if executing else None
        return vcpu.virtual.fetch(vcpu.virtual.pc) if word is None else word

    # -- the rest of Technique -----------------------------------------------------------------------
    def host_walk(self, vcpu: VCpu, tables: mmu.Tables, address: int) -> tuple[RecordedWalk, int | None]:
        root = self.shadow.roots.get(self._space(vcpu.virtual))
        if root is None:
            return RecordedWalk(tables), None
        return mmu.look(tables, mmu.SV39 << 60 | (RAM_BASE >> 12) + root, 0, address, USER, Status.MXR)

    def stored(self, address: int, length: int) -> None:
        self.shadow.stored(address, length, self.guest.host.active.interpreter)

    def remapped(self, page: int) -> None:
        self.shadow.remapped(page)

    def unmap(self, page: int) -> bool:
        return self.shadow.unmap(page)

    def close(self) -> None:
        self.shadow.close()

    def save(self) -> dict[str, Any]:
        return self.shadow.save()

    def load(self, state: dict[str, Any]) -> None:
        self.shadow.load(state)
