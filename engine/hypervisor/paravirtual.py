"""Paravirtualization (Whitaker et al., Denali, 2002; Barham et al., Xen, 2003): a guest whose kernel knows.

    guest user    ─┐ both run in U mode of the host hart, directly, on direct tables (direct_tables)
    guest kernel  ─┘ and the kernel executes no privileged instruction: it asks (hypercalls)
          │
          │ hypercalls, system calls, faults and host timer interrupts: a VM exit
          ▼
    VMM   ecall of the kernel   a hypercall, or a batch of them
          ecall of a program,   trap entry of the guest: the kernel goes on at the address that it set, on the stack
          exceptions            that the shared page names
          page fault            a page that comes when it is first touched, or the guest's own: as above
          timer                 the timer event becomes pending; an upcall if the guest takes any

Which it is decides the vCPU's privilege, which the hardware does not know. Nothing is emulated: an instruction that is
illegal in U mode is illegal, and there are no device registers. Floating point is off: a context switch that saved
it would need a call that nobody has written down yet.

What the guest believes is in the virtual hart as everywhere (stvec is the trap entry, satp the space, sepc, scause and
stval the latest trap), so that looking at a paravirtual guest takes nothing special. A fault in what guest and
hypervisor share (no shared page, no trap entry) ends the guest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.bits import MASK64
from engine.commands import Problem
from engine.hypervisor import hypercalls
from engine.hypervisor.direct_tables import ENTRIES, DirectTables, RefusedError
from engine.hypervisor.frames import OutOfFramesError
from engine.hypervisor.hypercalls import BATCH_LIMIT, BY_NUMBER, CALL, UPCALL, WORD, Device, Event, Number
from engine.hypervisor.technique import Outcome, claim
from engine.hypervisor.vm import VCpu
from engine.isa.csrs import Status
from engine.machine import mmu, sbi
from engine.machine.domain import Domain
from engine.machine.hart import TICK_NS, Hart
from engine.machine.memory import PAGE
from engine.machine.mmu import PAGE_FAULTS, Access, RecordedWalk
from engine.machine.privileged import SUPERVISOR, USER
from engine.machine.traps import Trap
from engine.trace.record import INTERRUPT_BIT, Action, Cause, Disposition, Interrupt, Kind, Level, cause_name

if TYPE_CHECKING:
    from engine.hypervisor.vm_guest import VmGuest

#: Members of enumerations that exits need, by names of their own (why: engine.machine.mmu).
_HYPERCALL, _SYSCALL, _EXCEPTION, _PAGE_FAULT = Kind.HYPERCALL, Kind.SYSCALL, Kind.EXCEPTION, Kind.PAGE_FAULT
_EMULATED, _FORWARDED, _INJECTED = Disposition.EMULATED, Disposition.FORWARDED, Disposition.INJECTED
_HYPERCALL_RETURN, _MULTICALL, _INJECT_EXCEPTION = Action.HYPERCALL_RETURN, Action.MULTICALL, Action.INJECT_EXCEPTION
_DIRECT_FILL = Action.DIRECT_FILL
_ECALL_U, _ILLEGAL_INSTRUCTION = Cause.ECALL_U, Cause.ILLEGAL_INSTRUCTION
_STORE = Access.STORE
_SUCCESS = sbi.Error.SUCCESS
SP, A0, A1, A6, A7 = 2, 10, 11, 16, 17
_TIME_COUNTER = 1 << 1  # of mcounteren and scounteren
_RIGHTS = {Access.FETCH: mmu.X, Access.LOAD: mmu.R, Access.STORE: mmu.W}
_ACCESS_FAULTS = {
    Access.FETCH: Cause.INSTRUCTION_ACCESS_FAULT, Access.LOAD: Cause.LOAD_ACCESS_FAULT,
    _STORE: Cause.STORE_ACCESS_FAULT,
}  # fmt: skip
#: Words of the shared page. A trap writes those from `stack` to `upcalls_off`, the first as it was; a return reads them.
_STACK, _PC, _SP, _CAUSE, _VALUE, _PRIVILEGE, _PREVIOUS, _UPCALLS_OFF, _PENDING, _MASKED = (
    WORD[name]
    for name in ("stack", "pc", "sp", "cause", "value", "privilege", "previous", "upcalls_off", "pending", "masked")
)
_RETURNED = tuple(
    (register, WORD[name]) for register, name in ((SP, "sp"), (A0, "a0"), (A1, "a1"), (A6, "a6"), (A7, "a7"))
)
_FRAME_WORDS, _PAGE_WORDS = _UPCALLS_OFF + 1, PAGE // 8
_FRAME = struct.Struct(f"<{_FRAME_WORDS}Q")
_TIME_WORDS = struct.Struct("<2Q")  # time_version, time_offset
_WORD = struct.Struct("<Q")
_TIMER_INTERRUPT = INTERRUPT_BIT | Interrupt.SUPERVISOR_TIMER
_HIGHEST_STATUS = 0xFFFF


@dataclass
class Paravirtual:
    """Runs the vCPU of one VM on a host hart. It is the `monitor` of a hart while it is loaded. Further vCPUs of a
    guest stay stopped: there is no call that starts one."""

    guest: VmGuest
    domain: Domain
    tables: DirectTables

    kernel_level = Level.KERNEL_DEPRIVILEGED
    hypervisor_extension = False
    names_frames = True

    @classmethod
    def of(cls, guest: VmGuest) -> Paravirtual:
        domain = Domain(guest.board, Event.CONSOLE, Event.BLOCK, Event.NET)
        guest.board.domain = domain
        made = cls(guest, domain, DirectTables(guest.vm.ram, lambda page: domain.shared == page << 12))
        domain.raise_event = made.raise_event
        return made

    @staticmethod
    def refuses(machine_mode: bool, paravirtual: bool) -> Problem | None:
        if paravirtual and not machine_mode:
            return None
        return Problem(
            "needs-paravirtual-kernel",
            "Paravirtualization runs kernels that are made for it, and this one would execute privileged instructions.",
            {},
        )

    # -- entering and leaving a hart -----------------------------------------------------------------
    def enter(self, vcpu: VCpu, hart: Hart) -> None:
        vcpu.load(hart)
        hart.monitor = self
        hart.monitored = 1
        hart.privilege = USER
        hart.mcounteren = hart.scounteren = _TIME_COUNTER
        # The host's own time counts from this guest's phase, so that their difference is a whole number of ticks.
        phase = self.guest.started % TICK_NS
        hart.ticks = lambda: (hart.clock - phase) // TICK_NS
        hart.time_started, hart.time_offset = phase, 0
        vcpu.virtual.mie = 1 << Interrupt.SUPERVISOR_TIMER
        self._tell_time()
        hart.pc = vcpu.virtual.pc
        if self.domain.pins and not self.tables.tables:
            self.domain.pins = self.tables.rebuild(self.domain.pins)
        self._select_space(vcpu, hart)

    def leave(self, vcpu: VCpu) -> None:
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        vcpu.unload()
        hart.monitor = None
        hart.monitored = 0
        hart.mcounteren = hart.scounteren = 0

    def catch_up(self, vcpu: VCpu) -> None:
        """The virtual hart takes the only thing that the guest changes without an exit: its pc."""
        if vcpu.hart is not None:
            vcpu.virtual.pc = vcpu.hart.pc

    def _select_space(self, vcpu: VCpu, hart: Hart) -> None:
        """The hart translates through the view that holds for the vCPU now. Raises OutOfFramesError."""
        virtual = vcpu.virtual
        root = virtual.satp & mmu.ROOT_PAGES if virtual.satp else None
        satp = self.tables.satp(root, virtual.privilege == SUPERVISOR)
        if satp is None:
            self.guest.fail(
                "page-tables-broken",
                "Something other than the guest's kernel wrote to its page tables, and they are none any more.",
                pc=f"{virtual.pc:#x}",
            )
        elif hart.satp != satp or hart.privilege != USER:
            hart.satp = satp
            hart.privilege = USER
            hart.refresh()

    def _resume(self, vcpu: VCpu, hart: Hart) -> None:
        hart.pc = vcpu.virtual.pc
        try:
            self._select_space(vcpu, hart)
        except OutOfFramesError:
            self._fail_for_memory(vcpu)
        if self.guest.ended or not vcpu.runnable or self._upcall_is_due():
            hart.leave = True

    def _fail_for_memory(self, vcpu: VCpu) -> None:
        self.guest.fail("out-of-memory", "The host has no memory left for the guest.", pc=f"{vcpu.pc:#x}")

    # -- the shared page -----------------------------------------------------------------------------
    def _tell_time(self) -> None:
        """Bring the shared page's time_offset up to date: the guest may have been started elsewhere."""
        if self.domain.shared is None:
            return
        ram, at = self.guest.vm.ram, self.domain.shared + 8 * WORD["time_version"]
        version, offset = _TIME_WORDS.unpack(ram.read(at, _TIME_WORDS.size))
        wanted = -(self.guest.started // TICK_NS) & MASK64
        if offset != wanted:
            ram.write(at, _TIME_WORDS.pack(version + 1 & MASK64, wanted))

    def _events(self) -> tuple[bool, int]:
        """Are upcalls on, and which events are pending and not masked? None while nothing is shared."""
        shared = self.domain.shared
        if shared is None:
            return False, 0
        words, at = self._shared_words(shared)
        return not words[at + _UPCALLS_OFF], words[at + _PENDING] & ~words[at + _MASKED]

    def _shared_words(self, shared: int) -> tuple[memoryview, int]:
        """The shared page to read, as words from an index on."""
        ram = self.guest.vm.ram
        frame = ram.map.frame(shared >> 12)
        if frame is None:
            return memoryview(ram.read(shared, PAGE)).cast("Q"), 0
        return ram.memory.views[3], frame * _PAGE_WORDS

    def _upcall_is_due(self) -> bool:
        on, events = self._events()
        return on and events != 0

    def raise_event(self, event: int) -> None:
        """Make an event pending. It wakes the vCPU unless it is masked."""
        self._change_pending(1 << event, 0)
        vcpu = self.guest.vm.vcpus[0]
        on, events = self._events()
        if events:
            vcpu.virtual.waiting = False
        if on and events and vcpu.hart is not None:
            vcpu.hart.leave = True

    def _change_pending(self, set_bits: int, clear_bits: int) -> None:
        if self.domain.shared is None:
            return
        ram, at = self.guest.vm.ram, self.domain.shared + 8 * WORD["pending"]
        (old,) = _WORD.unpack(ram.read(at, 8))
        new = old & ~clear_bits | set_bits
        if new != old:
            ram.write(at, _WORD.pack(new))

    def _look_at_timer(self, vcpu: VCpu) -> None:
        """A timer that is due becomes an event, once."""
        virtual = vcpu.virtual
        if virtual.lines >> Interrupt.SUPERVISOR_TIMER & 1:
            virtual.stimecmp = MASK64
            virtual.timer_changed()
            self.raise_event(Event.TIMER)

    # -- exits ---------------------------------------------------------------------------------------
    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:  # noqa: ARG002
        """A VM exit at hart.pc."""
        vcpu = self.guest.loaded(hart)
        origin, pc = vcpu.level, hart.pc
        self.catch_up(vcpu)
        if cause == _ECALL_U:
            of_kernel = vcpu.virtual.privilege == SUPERVISOR
            outcome = self._hypercall(vcpu) if of_kernel else self._inject(vcpu, cause, 0, _SYSCALL)
        elif (access := PAGE_FAULTS.get(cause)) is not None:
            outcome = self._page_fault(vcpu, access, value)
        else:
            outcome = self._inject(vcpu, cause, value, _EXCEPTION)
        instruction = value if cause == _ILLEGAL_INSTRUCTION else 0
        self.guest.exit(vcpu, outcome, cause, pc, value, instruction, origin)
        self._resume(vcpu, hart)

    def timer(self, vcpu: VCpu, preempted_by: int | None) -> None:
        """The host's timer interrupted the guest: its own timer is due, or (`preempted_by`: next guest) its
        slice is over."""
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        origin, pc = vcpu.level, hart.pc
        hart.steps += 1
        hart.unretired += 1
        self.guest.vm.board.update_timer(vcpu.number)
        self._look_at_timer(vcpu)
        outcome = self._upcall(vcpu)
        if outcome is None:
            action, a = (Action.TIMER, 1) if preempted_by is None else (Action.PREEMPT, preempted_by)
            outcome = Outcome(Kind.INTERRUPT, _EMULATED, action, a)
        self.guest.exit(vcpu, outcome, _TIMER_INTERRUPT, pc, 0, 0, origin)
        self._resume(vcpu, hart)
        self.guest.host.retime(hart)

    def wake(self, vcpu: VCpu) -> None:
        """`inject_pending` looks at the timer before the hart's next instruction, and events wake by themselves."""

    def inject_pending(self, vcpu: VCpu) -> bool:
        """Make the upcall that became due while the VMM had the hart. False: there was none."""
        hart = vcpu.hart
        assert hart is not None
        origin, pc = vcpu.level, vcpu.pc
        self.catch_up(vcpu)
        self._look_at_timer(vcpu)
        outcome = self._upcall(vcpu)
        if outcome is None:
            return False
        hart.steps += 1
        hart.unretired += 1
        self.guest.exit(vcpu, outcome, INTERRUPT_BIT | UPCALL, pc, 0, 0, origin, switched=False)
        hart.leave = False
        self._resume(vcpu, hart)
        return True

    # -- into the guest's kernel ---------------------------------------------------------------------
    def _upcall(self, vcpu: VCpu) -> Outcome | None:
        on, events = self._events()
        if not on or not events:
            return None
        vcpu.virtual.waiting = False
        self._enter_kernel(vcpu, UPCALL, 0, interrupt=True)
        return Outcome(Kind.INTERRUPT, _INJECTED, Action.UPCALL, events, vcpu.virtual.pc)

    def _inject(self, vcpu: VCpu, cause: int, value: int, kind: Kind) -> Outcome:
        """The trap is the guest's own: its kernel goes on."""
        self._enter_kernel(vcpu, cause, value, interrupt=False)
        self.guest.watch_for_trap_loops(vcpu, cause, vcpu.instructions)
        return Outcome(kind, _INJECTED, _INJECT_EXCEPTION, cause, vcpu.virtual.pc)

    def _enter_kernel(self, vcpu: VCpu, cause: int, value: int, interrupt: bool) -> None:
        """Trap entry at the virtual hart's pc."""
        virtual, shared = vcpu.virtual, self.domain.shared
        if shared is None or not virtual.stvec:
            self.guest.fail(
                "no-trap-handler",
                f"The guest trapped at {virtual.pc:#x} ({cause_name(cause)}) before it had said where traps go.",
                pc=f"{virtual.pc:#x}", handler=f"{virtual.stvec:#x}", cause=cause, cause_name=cause_name(cause),
            )  # fmt: skip
            return
        x = virtual.x
        shown, at = self._shared_words(shared)
        words = shown[at : at + _FRAME_WORDS].tolist()
        words[_PRIVILEGE] = virtual.privilege
        virtual.enter_trap(SUPERVISOR, cause, value, interrupt)
        words[_PC], words[_SP] = virtual.sepc, x[SP]
        words[_CAUSE], words[_VALUE] = virtual.scause, virtual.stval
        words[_PREVIOUS], words[_UPCALLS_OFF] = words[_UPCALLS_OFF], 1
        x[SP] = words[_STACK]
        self.guest.vm.ram.write(shared, _FRAME.pack(*words))

    # -- page faults ---------------------------------------------------------------------------------
    def _page_fault(self, vcpu: VCpu, access: Access, address: int) -> Outcome:
        """A page that comes when it is touched, one that is shared with a clone, or the guest's own fault."""
        try:
            return self._fill(vcpu, access, address)
        except Trap as trap:
            kind = _PAGE_FAULT if trap.cause in PAGE_FAULTS else _EXCEPTION
            return self._inject(vcpu, trap.cause, trap.value, kind)
        except OutOfFramesError:
            self._fail_for_memory(vcpu)
            return Outcome(_PAGE_FAULT, Disposition.KILLED, Action.KILL)

    def _fill(self, vcpu: VCpu, access: Access, address: int) -> Outcome:
        """Raises the guest's Trap, or OutOfFramesError."""
        virtual, ram, hart = vcpu.virtual, self.guest.vm.ram, vcpu.hart
        assert hart is not None
        right = _RIGHTS[access]
        if virtual.satp:
            target = virtual.look_up(address, access, Status.SUM | mmu.LOOK)
        elif ram.holds(address, 1):
            target = address
        else:
            raise Trap(_ACCESS_FAULTS[access], address)
        page = target >> 12
        if not ram.holds(target, 1):
            raise Trap(_ACCESS_FAULTS[access], address)
        _, action = claim(ram, page, access == _STORE)
        if not self.tables.grants(hart.satp, address, right):
            if not virtual.satp:
                self.tables.fill_start(page)
            else:
                level, table = virtual.reached
                if level == 1 and table >> 12 in self.tables.tables:
                    self.tables.fill_megapage(table >> 12, address >> 21 & ENTRIES - 1, page, virtual.leaf)
            if not self.tables.grants(hart.satp, address, right):
                raise Trap(mmu.page_fault(access), address)
        action = _DIRECT_FILL if action is None else action
        host = self.guest.host_address(ram.frame(page)) | target & 0xFFF
        return Outcome(_PAGE_FAULT, _EMULATED, action, target, host)

    # -- hypercalls ----------------------------------------------------------------------------------
    def _hypercall(self, vcpu: VCpu) -> Outcome:
        """An ecall of the guest's kernel, which goes on after it."""
        virtual = vcpu.virtual
        x = virtual.x
        extension, number, a, b = x[A7], x[A6], x[A0], x[A1]
        virtual.pc = virtual.pc + 4 & MASK64
        if extension != hypercalls.EXTENSION:
            error, value = _base(extension, number, a)
            x[A0], x[A1] = error & MASK64, value
            return Outcome(_HYPERCALL, _EMULATED, Action.SBI_CALL, extension, number)
        carried, told = 0, False
        error, value = _SUCCESS, 0
        try:
            match number:
                case Number.MULTICALL:
                    carried, value, told = self._batch(vcpu, a, b)
                case Number.RETURN:
                    carried, value, told = self._batch(vcpu, a, b)
                    if not value:
                        self._return(vcpu)
                        disposition = _FORWARDED if told else _EMULATED
                        action = _HYPERCALL_RETURN
                        return Outcome(_HYPERCALL, disposition, action, virtual.pc, carried, told)
                    error = sbi.Error.FAILED
                case _:
                    value = self._call(vcpu, number, a, b)
                    told = number in _FOR_DEVICES
        except RefusedError as refusal:
            error = refusal.error
        x[A0], x[A1] = error & MASK64, value
        disposition = _FORWARDED if told else _EMULATED
        if number in (Number.MULTICALL, Number.RETURN):
            return Outcome(_HYPERCALL, disposition, _MULTICALL, carried, value, told)
        if number == Number.BLOCK:
            return Outcome(_HYPERCALL, disposition, Action.BLOCK, self.guest.wakes_at(vcpu))
        return Outcome(_HYPERCALL, disposition, Action.HYPERCALL, number, a, told)

    def _batch(self, vcpu: VCpu, address: int, count: int) -> tuple[int, int, bool]:
        """(calls done, how many of them got an error, did a device take part). Raises RefusedError; then none was
        done."""
        if not count:
            return 0, 0, False
        ram = self.guest.vm.ram
        if count > BATCH_LIMIT:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if not ram.holds(address, count * CALL.size):
            raise RefusedError(sbi.Error.INVALID_ADDRESS)
        calls = ram.read(address, count * CALL.size)
        answers, refused, told = b"", 0, False
        for number, a, b, _ in CALL.iter_unpack(calls):
            error = _SUCCESS
            try:
                self._call(vcpu, number if number in _BATCHED else -1, a, b)
                told |= number in _FOR_DEVICES
            except RefusedError as refusal:
                error = refusal.error
                refused += 1
            answers += CALL.pack(number, a, b, error & MASK64)
        if answers != calls:
            ram.write(address, answers)
        return count, refused, told

    def _call(self, vcpu: VCpu, number: int, a: int, b: int) -> int:
        """One call; returns its value. Raises RefusedError."""
        handler = _HANDLERS.get(number)
        if handler is None:
            raise RefusedError(sbi.Error.NOT_SUPPORTED)
        return handler(self, vcpu, a, b)

    def _return(self, vcpu: VCpu) -> None:
        """Go on where the shared page says. Raises RefusedError."""
        virtual, shared = vcpu.virtual, self.domain.shared
        if shared is None:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        shown, at = self._shared_words(shared)
        words = shown[at : at + _FRAME_WORDS].tolist()
        privilege = words[_PRIVILEGE] & 1
        if privilege == USER and not virtual.satp:
            raise RefusedError(sbi.Error.DENIED)
        virtual.privilege = privilege
        virtual.pc = words[_PC] & ~1
        x = virtual.x
        for register, word in _RETURNED:
            x[register] = words[word]
        self.guest.vm.ram.write(shared + 8 * _UPCALLS_OFF, _WORD.pack(words[_PREVIOUS]))

    def _share(self, _vcpu: VCpu, page: int, _b: int) -> int:
        self._check_page(page)
        self.domain.shared = page
        self._tell_time()
        return 0

    def _check_page(self, address: int) -> None:
        if address % PAGE or not self.guest.vm.ram.holds(address, PAGE):
            raise RefusedError(sbi.Error.INVALID_ADDRESS)
        if address >> 12 in self.tables.tables:
            raise RefusedError(sbi.Error.DENIED)

    def _set_trap_entry(self, vcpu: VCpu, pc: int, _b: int) -> int:
        if pc % 4 or not pc:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        vcpu.virtual.stvec = pc
        return 0

    def _pin(self, _vcpu: VCpu, root: int, _b: int) -> int:
        if root % PAGE or root >> 12 in self.domain.pins:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        self.tables.pin(root >> 12)
        self.domain.pins.append(root >> 12)
        return 0

    def _unpin(self, vcpu: VCpu, root: int, _b: int) -> int:
        if root % PAGE or root >> 12 not in self.domain.pins:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if vcpu.virtual.satp and vcpu.virtual.satp & mmu.ROOT_PAGES == root >> 12:
            raise RefusedError(sbi.Error.DENIED)
        self.domain.pins.remove(root >> 12)
        self.tables.unpin(root >> 12)
        return 0

    def _set_space(self, vcpu: VCpu, root: int, _b: int) -> int:
        if root % PAGE or root >> 12 not in self.domain.pins:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        vcpu.virtual.satp = mmu.SV39 << 60 | root >> 12
        self.tables.drop_start()
        return 0

    def _set_entry(self, _vcpu: VCpu, entry: int, value: int) -> int:
        ram = self.guest.vm.ram
        if entry % 8:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if not ram.holds(entry, 8):
            raise RefusedError(sbi.Error.INVALID_ADDRESS)
        if entry >> 12 in self.tables.tables:
            self.tables.set_entry(entry >> 12, entry >> 3 & 0x1FF, value)
        else:
            ram.write(entry, _WORD.pack(value))
        return 0

    def _flush(self, _vcpu: VCpu, _page: int, _b: int) -> int:
        """The hart's translations follow its tables at once."""
        return 0

    def _set_timer(self, vcpu: VCpu, time: int, _b: int) -> int:
        self._change_pending(0, 1 << Event.TIMER)
        vcpu.virtual.stimecmp = time
        vcpu.virtual.timer_changed()
        self._look_at_timer(vcpu)
        return 0

    def _block(self, vcpu: VCpu, _a: int, _b: int) -> int:
        _, events = self._events()
        vcpu.virtual.waiting = not events
        return 0

    def _yield(self, vcpu: VCpu, _a: int, _b: int) -> int:
        assert vcpu.hart is not None
        self.guest.host.end_slice(vcpu.hart)
        return 0

    def _deliver(self, _vcpu: VCpu, _a: int, _b: int) -> int:
        """An upcall that is due comes after any call."""
        return 0

    def _connect(self, _vcpu: VCpu, device: int, page: int) -> int:
        self._check_page(page)
        domain = self.domain
        match device:
            case Device.CONSOLE:
                domain.console.connect(page)
            case Device.BLOCK:
                sectors = domain.block.connect(page)
                if sectors is None:
                    raise RefusedError(sbi.Error.FAILED)
                return sectors
            case Device.NET_SEND | Device.NET_RECEIVE:
                ring = domain.network.sending if device == Device.NET_SEND else domain.network.receiving
                ring.connect(page)
                return int.from_bytes(self.guest.fitting.mac, "big")
            case _:
                raise RefusedError(sbi.Error.INVALID_PARAM)
        return 0

    def _notify(self, _vcpu: VCpu, device: int, _b: int) -> int:
        back_ends: dict[int, Callable[[], bool]] = {
            Device.CONSOLE: self.domain.console.service, Device.BLOCK: self.domain.block.service,
            Device.NET_SEND: self.domain.network.service,
        }  # fmt: skip
        service = back_ends.get(device)
        if service is None:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if not service():
            raise RefusedError(sbi.Error.FAILED)
        return 0

    def _console_write(self, _vcpu: VCpu, address: int, length: int) -> int:
        length = min(length, sbi.CONSOLE_CHUNK)
        if not self.guest.vm.ram.holds(address, length):
            raise RefusedError(sbi.Error.INVALID_ADDRESS)
        self.guest.board.print_serial(self.guest.vm.ram.read(address, length))
        return length

    def _shutdown(self, _vcpu: VCpu, kind: int, status: int) -> int:
        if kind > 1 or status > _HIGHEST_STATUS:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if kind:
            self.guest.reboot()
        else:
            self.guest.finish(status)
        return 0

    # -- the rest of Technique -----------------------------------------------------------------------
    def host_walk(self, vcpu: VCpu, tables: mmu.Tables, address: int) -> tuple[RecordedWalk, int | None]:
        virtual = vcpu.virtual
        root = virtual.satp & mmu.ROOT_PAGES if virtual.satp else None
        if root is None and not self.tables.start:
            return RecordedWalk(tables), None
        satp = self.tables.satp(root, virtual.privilege == SUPERVISOR)
        if satp is None:
            return RecordedWalk(tables), None
        return mmu.look(tables, satp, 0, address, USER, Status.MXR)

    def stored(self, address: int, length: int) -> None:
        """A device or a debugger wrote to a table: check all of them anew."""
        tables, first, last = self.tables, address >> 12, address + length - 1 >> 12
        if (first == last and first not in tables.tables) or tables.tables.keys().isdisjoint(range(first, last + 1)):
            return
        try:
            self.domain.pins = tables.rebuild(self.domain.pins)
            for vcpu in self.guest.vm.vcpus:
                if vcpu.hart is not None:
                    self._select_space(vcpu, vcpu.hart)
        except OutOfFramesError:
            self._fail_for_memory(self.guest.vm.vcpus[0])

    def remapped(self, page: int) -> None:
        self.tables.refresh(page)

    def unmap(self, page: int) -> bool:
        """Its tables name frames, and what the guest said of them is looked at once."""
        raise NotImplementedError

    def close(self) -> None:
        self.tables.drop()

    def save(self) -> dict[str, Any]:
        return self.tables.save()

    def load(self, state: dict[str, Any]) -> None:
        self.tables.load(state)


def _base(extension: int, function: int, argument: int) -> tuple[int, int]:
    """SBI's base extension, so far as a kernel needs it to find out where it is; nothing else of SBI is there."""
    if extension != sbi.Extension.BASE or function != sbi.PROBE:
        return sbi.Error.NOT_SUPPORTED, 0
    return _SUCCESS, int(argument in (sbi.Extension.BASE, hypercalls.EXTENSION))


Handler = Callable[[Paravirtual, VCpu, int, int], int]
_BATCHED = frozenset(row.number.value for row in hypercalls.CALLS if row.batched)
_FOR_DEVICES = (Number.NOTIFY, Number.CONSOLE_WRITE)
_HANDLERS: dict[int, Handler] = {
    Number.SHARE: Paravirtual._share,
    Number.SET_TRAP_ENTRY: Paravirtual._set_trap_entry,
    Number.PIN: Paravirtual._pin,
    Number.UNPIN: Paravirtual._unpin,
    Number.SET_SPACE: Paravirtual._set_space,
    Number.SET_ENTRY: Paravirtual._set_entry,
    Number.FLUSH: Paravirtual._flush,
    Number.SET_TIMER: Paravirtual._set_timer,
    Number.BLOCK: Paravirtual._block,
    Number.YIELD: Paravirtual._yield,
    Number.DELIVER: Paravirtual._deliver,
    Number.CONNECT: Paravirtual._connect,
    Number.NOTIFY: Paravirtual._notify,
    Number.CONSOLE_WRITE: Paravirtual._console_write,
    Number.SHUTDOWN: Paravirtual._shutdown,
}
if _HANDLERS.keys() | {Number.MULTICALL, Number.RETURN} != BY_NUMBER.keys():
    raise ValueError("a hypercall has no handler, or a handler no hypercall")
