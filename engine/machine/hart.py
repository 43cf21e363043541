"""A hart: registers, CSRs, privilege, translation caches, traps, and the loop that executes it.

One *step* is one instruction attempt (retired or trapped) or one interrupt taken. `steps` counts them, and
the hart's clock is `steps + extra`: one step is 1 ns of virtual time, `extra` holds modelled costs and sleep.
`run` stops after an exact number of steps, whatever happens in between, and stopping changes nothing: there
is no state outside the hart that depends on where a run ended.

A trap whose target is M mode goes to `monitor` where there is one: built-in firmware, or a hypervisor that
runs a guest on this hart. Otherwise the architecture's trap entry happens here. `observe` is told of every
trap delivered here.

What the privileged architecture does to a hart's state is in engine.machine.privileged; here is what surrounds
it: which caches hold, who is told, and CSR access by the rows of engine.isa.csrs.

Privileged specification 1.12; section numbers below are its.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from engine.bits import MASK64
from engine.devices import AccessFault
from engine.isa.csrs import CSRS, Csr, EnvironmentBits
from engine.isa.decoder import encoding_of, length_of
from engine.machine import csrfile, mmu, privileged
from engine.machine.bus import Bus
from engine.machine.memory import PAGE
from engine.machine.mmu import Access
from engine.machine.native.entry import STRETCH_STEPS
from engine.machine.native.layout import EMPTY, EXIT, FETCH, LIMIT, TRAP
from engine.machine.native.procedures import TRAPPED
from engine.machine.native.runtime import Contexts, Interpreter, Native, Stops, word_at
from engine.machine.privileged import MACHINE, NO_INTERRUPT
from engine.machine.reference import Operation, operation
from engine.machine.state import NEVER, NO_RESERVATION, NO_STREAK, NO_TIME, HartState
from engine.machine.traps import IllegalInstruction, Trap, VirtualInstruction
from engine.trace.record import Cause, Interrupt

TICK_NS = 100
LAST_SLOT = 2047  # a page has 2048 halfwords, where instructions may begin
_CONTEXTS = 64
_LAST_WORD = 4092
_TIMER, _GUEST_TIMER = Interrupt.SUPERVISOR_TIMER, Interrupt.VIRTUAL_SUPERVISOR_TIMER
_TIMER_LINE, _GUEST_TIMER_LINE = 1 << _TIMER, 1 << _GUEST_TIMER
_MISALIGNED = {Access.LOAD: Cause.LOAD_MISALIGNED, Access.STORE: Cause.STORE_MISALIGNED}

class Monitor(Protocol):
    """Software below the guest's view of this hart: firmware in M mode, or a hypervisor."""

    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:
        """Handle a trap to M mode taken at hart.pc, and leave the hart ready to go on."""
        ...


#: Told of a delivered trap: cause, tval, is it an interrupt, the privilege that trapped, the handler's address.
Observer = Callable[["Hart", int, int, bool, int, int], None]
#: A debugger's eye: called before every instruction attempt, with a true `hart.pc`. It may change nothing.
Probe = Callable[["Hart"], None]
Caches = tuple[dict[int, int], dict[int, int], dict[int, list[Operation]]]


class Hart(HartState):
    """Reset leaves it in M mode at pc 0. `ticks` reads the board's mtime (10 MHz). hypervisor_extension: it has
    HS, VS and VU modes. silent: see engine.isa.silent."""

    def __init__(
        self,
        number: int,
        bus: Bus,
        ticks: Callable[[], int],
        hypervisor_extension: bool = False,
        silent: bool = False,
    ) -> None:
        self.number = number
        self.bus = bus
        self.ticks = ticks
        super().__init__()
        self.address = ctypes.addressof(self)
        self.own_registers()
        self.privilege = MACHINE
        self.hypervisor = int(hypervisor_extension)
        self.silent = int(silent)
        csrfile.reset(self)
        self.reservation = NO_RESERVATION
        self.time_started = NO_TIME
        self.streak_at = NO_STREAK
        self.next_event = NEVER  # clock at which `on_event` is due
        self.on_event: Callable[[], None] = _nothing
        self.on_records: Callable[[], None] = _nothing  # native code wrote `record_count` records
        self.on_timer: Callable[[], None] = _nothing  # `timer_due` may have changed
        self.monitor: Monitor | None = None
        self.observe: Observer | None = None
        self._probe: Probe | None = None  # called before every instruction
        self._stops: tuple[Stops, Probe] | None = None  # called before some
        self._native: Native | None = None
        self._native_contexts: Contexts | None = None
        self._contexts: dict[tuple[int, ...], Caches] = {}
        self.read_tlb: dict[int, int] = {}
        self.write_tlb: dict[int, int] = {}
        self.fetch_tlb: dict[int, list[Operation]] = {}
        self.views = bus.memory.views
        bus.memory.caches.append(self)
        self.refresh()

    def own_registers(self) -> None:
        """`x` and `f` are this hart's own words."""
        self.x = _register_view(self, "x_words")
        self.f = _register_view(self, "f_words")

    def look(self, probe: Probe | None, stops: Collection[int] | None = None) -> None:
        """From now on call `probe` before each instruction or, in the native tiers, before each at the virtual addresses
        `stops`. None: no longer."""
        if self._stops is not None:
            self._stops[0].close()
        self._probe = self._stops = None
        if probe is not None and stops is not None and self._native is not None:
            self._stops = Stops(self, self._native, stops), probe
        else:
            self._probe = probe

    def clear_registers(self) -> None:
        self.x[:] = self.f[:] = _CLEARED

    # -- clock ---------------------------------------------------------------------------------------
    @property
    def clock(self) -> int:
        """Virtual time of this hart, ns."""
        return self.steps + self.extra

    @property
    def retired(self) -> int:
        return self.steps - self.unretired

    # -- translation caches --------------------------------------------------------------------------
    def holds(self, address: int) -> tuple[bool, bool, bool]:
        """Would a load, a store and a fetch at an address find its translation in the TLB now? No part of the state."""
        if self._native is not None and self._native_contexts is not None:
            return self._native_contexts.holds(self, address)
        page = address >> 12
        return page in self.read_tlb, page in self.write_tlb, page in self.fetch_tlb

    def flush(self) -> None:
        for caches in self._contexts.values():
            for cache in caches:
                cache.clear()
        self.stale = EMPTY
        self.limit = 0

    def flush_writable(self) -> None:
        for caches in self._contexts.values():
            caches[1].clear()
        if self._native_contexts is not None:
            self._native_contexts.empty_writable()

    def flush_fetch(self) -> None:
        self.stale = EMPTY

    def use_native(self, native: Native | None) -> None:
        """Execute in the native tiers from now on; None: in the reference tier. No guest can tell."""
        self._native = native
        memory = self.bus.memory
        if native is not None and self._native_contexts is None:
            self._native_contexts = Contexts(self)
            self.memory_at = ctypes.addressof(memory)
            memory.harts_at[memory.hart_count] = self.address
            memory.hart_count += 1
            native.pages.users.add(memory)
        self._contexts.clear()
        self.read_tlb, self.write_tlb, self.fetch_tlb = {}, {}, {}
        self.refresh()

    @property
    def interpreter(self) -> Interpreter | None:
        """Native code that does for Python what Python could do; None in the reference tier."""
        return None if self._native is None else self._native.interpreter

    def data_privilege(self) -> int:
        return privileged.data_privilege(self)

    def refresh(self) -> None:
        if self._native is None:
            privileged.choose_context(self)
        else:
            self._native.refresh(self.address)
            self.limit = 0

    def use_context(self, *key: int) -> None:
        """Use the caches of the situation that `key` stands for: six words, which decide about all translations."""
        caches = self._contexts.get(key)
        if caches is None:
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            caches = self._contexts[key] = ({}, {}, {})
        self.read_tlb, self.write_tlb, self.fetch_tlb = caches

    def look_at_interrupts(self) -> None:
        """Before the next step: what they depend on may have changed."""
        self.limit = 0

    def translate(self, address: int, access: Access) -> int:
        """Physical address, or Trap. Native code that leaves an access to Python has walked for it, and counted that."""
        if self._native is None:
            return privileged.translate(self, address, access)
        walks, references = self.walks, self.walk_references
        ended = self._native.interpreter.translate(self.address, address, access)
        self.walks, self.walk_references = walks, references
        if ended == TRAPPED:
            raise Trap(self.trap_cause, self.trap_value)
        return self.physical

    def has_entry(self, address: int) -> bool:
        return self.bus.is_ram(address)

    def read_entry(self, address: int, place: int, level: int, stage: int) -> int:  # noqa: ARG002 (mmu.Walker)
        self.walk_references += 1
        return self.bus.read_entry(address)

    def write_entry(self, address: int, entry: int) -> None:
        self.bus.write_entry(address, entry)

    # -- fetch ---------------------------------------------------------------------------------------
    def fetch_page(self, pc: int) -> list[Operation]:
        """The decoded instructions of pc's page: an operation for each halfword and, last, the one that
        decodes."""
        physical = self.translate(pc, Access.FETCH)
        offset = self.bus.offset(physical)
        if offset is None:
            raise Trap(Cause.INSTRUCTION_ACCESS_FAULT, pc)
        memory = self.bus.memory
        page = offset >> 12
        ops = memory.code.get(page)
        if ops is None:
            ops = _undecoded(memory.views[1], page)
            memory.use_as_code(page, ops)
        self.fetch_tlb[pc >> 12] = ops
        return ops

    def fetch(self, pc: int) -> int:
        """The encoding at pc, 2 or 4 bytes; a fault is at the halfword that has it (section 3.1.16)."""
        physical = self.translate(pc, Access.FETCH)
        word = self._fetch_half(pc, physical)
        if length_of(word) == 2:
            return word
        following = (pc + 2) & MASK64
        physical = physical + 2 if following & 0xFFF else self.translate(following, Access.FETCH)
        return word | self._fetch_half(following, physical) << 16

    def _fetch_half(self, address: int, physical: int) -> int:
        try:
            return self.bus.read(physical, 2)
        except AccessFault:
            raise Trap(Cause.INSTRUCTION_ACCESS_FAULT, address) from None

    # -- loads and stores (primitives of the semantics) ----------------------------------------------
    def _load(self, address: int, size: int) -> int:
        return self._access(address & MASK64, size, Access.LOAD, None)

    def _store(self, address: int, size: int, value: int) -> None:
        self._access(address & MASK64, size, Access.STORE, value)

    def _access(self, address: int, size: int, access: Access, value: int | None) -> int:
        """The slow path: translate, split at a page's end, fill the cache. Raises Trap."""
        parts = [
            (virtual, length, self.translate(virtual, access)) for virtual, length in _within_pages(address, size)
        ]
        for virtual, _, physical in parts:
            offset = self.bus.offset(physical)
            if offset is not None and self._native is None:
                page = offset & ~0xFFF
                if access == Access.LOAD:
                    self.read_tlb[virtual >> 12] = page
                elif self.bus.memory.use_as_data(page >> 12):
                    self.write_tlb[virtual >> 12] = page
        return self._transfer(parts, access, value)

    def _transfer(self, parts: list[tuple[int, int, int]], access: Access, value: int | None) -> int:
        """Load, or store `value`, in parts (virtual address, length, physical address)."""
        result = shift = 0
        for virtual, length, physical in parts:
            try:
                if value is None:
                    result |= self.bus.read(physical, length) << shift
                else:
                    self.bus.write(physical, length, value >> shift & ((1 << 8 * length) - 1))
            except AccessFault:
                raise Trap(mmu.access_fault(access), virtual) from None
            shift += 8 * length
        return result

    def _atomic_place(self, address: int, size: int, access: Access) -> int:
        """Where an atomic goes: aligned, permitted as `access`, and in main memory, or Trap."""
        if address & (size - 1):
            raise Trap(_MISALIGNED[access], address)
        physical = self.translate(address, access)
        if not self.bus.is_ram(physical):
            raise Trap(mmu.access_fault(access), address)
        return physical

    def hyper_load(self, address: int, size: int, execute: int) -> int:
        """hlv and hlvx: a load as the guest would do it (section 8.3.1)."""
        privileged.check_guest_access(self)
        access = Access.LOAD_EXECUTABLE if execute else Access.LOAD
        return self._guest_access(address & MASK64, size, access, None)

    def hyper_store(self, address: int, size: int, value: int) -> None:
        """hsv."""
        privileged.check_guest_access(self)
        self._guest_access(address & MASK64, size, Access.STORE, value)

    def _guest_access(self, address: int, size: int, access: Access, value: int | None) -> int:
        parts = [
            (virtual, length, privileged.translate_guest(self, virtual, access))
            for virtual, length in _within_pages(address, size)
        ]
        return self._transfer(parts, access, value)

    def amo_load(self, address: int, size: int) -> int:
        """The old value for a read-modify-write: everything that the store needs is checked first."""
        return self.bus.read(self._atomic_place(address & MASK64, size, Access.STORE), size)

    def load_reserved(self, address: int, size: int) -> int:
        address &= MASK64
        physical = self._atomic_place(address, size, Access.LOAD)
        value = self._access(address, size, Access.LOAD, None)
        self.reservation = physical
        return value

    def store_conditional(self, address: int, size: int, value: int) -> int:
        address &= MASK64
        physical = self._atomic_place(address, size, Access.STORE)
        held, self.reservation = self.reservation == physical, NO_RESERVATION
        if held:
            self._access(address, size, Access.STORE, value)
        return 0 if held else 1

    # -- CSRs ----------------------------------------------------------------------------------------
    def csr_value(self, row: Csr) -> int:
        """A CSR as machine mode reads it."""
        return csrfile.value(self, row)

    def csr_read(self, number: int) -> int:
        return csrfile.access_read(self, _csr(number))

    def csr_write(self, number: int, value: int) -> None:
        csrfile.access_write(self, _csr(number), value)

    def csr_set(self, number: int, bits: int) -> None:
        csrfile.access_set(self, _csr(number), bits)

    def csr_clear(self, number: int, bits: int) -> None:
        csrfile.access_clear(self, _csr(number), bits)

    def time_ticks(self) -> int:
        """mtime."""
        return self.ticks() & MASK64

    def settle_floats(self) -> None:
        """fcsr has every flag that was raised: here always."""

    # -- system instructions -------------------------------------------------------------------------
    def ecall(self) -> None:
        privileged.ecall(self)

    def ebreak(self) -> None:
        raise Trap(Cause.BREAKPOINT, 0)  # tval becomes the instruction's address in `_trapped`

    def mret(self) -> int:
        target = privileged.mret(self)
        self.refresh()
        return target

    def sret(self) -> int:
        target = privileged.sret(self)
        self.refresh()
        return target

    def wfi(self) -> None:
        privileged.check_wfi(self)
        self.waiting = True
        self.limit = 0

    # The caches are coherent with the tables in memory (see Memory), so a fence only has to be legal.
    def sfence_vma(self, *_operands: int) -> None:
        privileged.check_fence(self)

    def hfence_vvma(self, *_operands: int) -> None:
        privileged.check_guest_fence(self, False)

    def hfence_gvma(self, *_operands: int) -> None:
        privileged.check_guest_fence(self, True)

    def sfence_order(self) -> None:
        privileged.check_fence_order(self)

    def fence_i(self) -> None:
        """Decoded instructions are coherent with memory (see Memory)."""

    # -- traps ---------------------------------------------------------------------------------------
    def pending_interrupt(self) -> int:
        """The code of the interrupt to take now, or NO_INTERRUPT."""
        return privileged.pending_interrupt(self)

    def trap_target(self, cause: int, interrupt: bool) -> int:
        return privileged.trap_target(self, cause, interrupt)

    def trap(self, cause: int, value: int, interrupt: bool = False) -> None:
        """Take a trap at self.pc."""
        target = privileged.trap_target(self, cause, interrupt)
        if target == MACHINE and self.monitor is not None:
            self.monitor.trap(self, cause, value, interrupt)
            return
        origin = self.privilege
        at = self.pc
        self.enter_trap(target, cause, value, interrupt)
        if self.observe is not None:
            handler, self.pc = self.pc, at
            try:
                self.observe(self, cause, value, interrupt, origin, handler)
            finally:
                self.pc = handler

    def enter_trap(self, target: int, cause: int, value: int, interrupt: bool) -> None:
        """Trap entry of the architecture."""
        interpreter = self.interpreter
        if interpreter is None:
            privileged.enter_trap(self, target, cause, value, interrupt)
        else:
            interpreter.enter_trap(self.address, target, cause, value, interrupt)
        self.refresh()

    # -- supervisor timers (Sstc) --------------------------------------------------------------------
    def timer_changed(self) -> None:
        """stimecmp, vstimecmp or what decides about them was written."""
        if self.menvcfg & EnvironmentBits.STCE:
            self.mip &= ~_TIMER_LINE  # the bit is the comparator's now
        self.update_timers()
        self.on_timer()

    def update_timers(self) -> None:
        """Bring STIP and VSTIP in line with their comparators."""
        on = self.menvcfg & EnvironmentBits.STCE
        ticks = self.ticks() if on else 0
        self.set_line(_TIMER, on != 0 and ticks >= self.stimecmp)
        if self.hypervisor:
            self.set_line(_GUEST_TIMER, on & self.henvcfg != 0 and ticks + self.htimedelta & MASK64 >= self.vstimecmp)

    def timer_due(self) -> int:
        """mtime at which the next comparator is reached; NEVER if none will be."""
        on, lines = self.menvcfg & EnvironmentBits.STCE, self.lines
        waits = on and not lines & _TIMER_LINE
        due = self.stimecmp if waits else NEVER
        if on & self.henvcfg and not lines & _GUEST_TIMER_LINE:
            ticks = self.ticks()
            of_guest = ticks + self.vstimecmp - (ticks + self.htimedelta & MASK64)
            if not waits or of_guest < due:
                due = of_guest
        return due

    def set_line(self, interrupt: Interrupt, level: bool) -> None:
        """Drive an interrupt line into mip."""
        bit = 1 << interrupt
        lines = self.lines | bit if level else self.lines & ~bit
        if lines != self.lines:
            self.lines = lines
            self.limit = 0

    def raise_software(self, interrupt: Interrupt) -> None:
        """Set a bit of mip that software may also write (SSIP, STIP)."""
        self.mip |= 1 << interrupt
        self.limit = 0

    def wake_if_pending(self) -> None:
        """wfi ends as soon as an enabled interrupt is pending, whatever mstatus says (section 3.3.3)."""
        if self.waiting and csrfile.pending(self) & self.mie:
            self.waiting = False

    # -- execution -----------------------------------------------------------------------------------
    def run(self, steps: int, until: int = NEVER) -> int:
        """Execute up to `steps` steps; returns how many were.

        Fewer only when the clock has reached `until`, while waiting or stopped, or on `leave`.
        """
        begin = self.steps
        end = self.last_step = begin + steps
        self.until = min(until, NEVER)
        while self.steps < end and self.steps + self.extra < until and not self.leave:
            if self.steps + self.extra >= self.next_event:
                self.on_event()
                if self.leave:
                    break
            if self.waiting:
                self.wake_if_pending()
            if self.waiting or self.stopped:
                break
            interrupt = self.pending_interrupt()
            if interrupt != NO_INTERRUPT:
                self.steps += 1
                self.unretired += 1
                self.trap(interrupt, 0, interrupt=True)
                continue
            self.horizon = horizon = min(self.next_event, until)
            self.limit = max(0, min(end, horizon - self.extra))
            if self._probe is not None:
                self._probe(self)
                self.limit = min(self.limit, self.steps + 1)
            self._execute()
        return self.steps - begin

    def _execute(self) -> None:
        """Instructions until `limit`, a trap, or something that needs a look at interrupts (which sets limit
        to 0)."""
        if self._native is not None:
            self._execute_native(self._native)
            return
        pc = self.pc
        try:
            while self.steps < self.limit:
                page = pc >> 12
                ops = self.fetch_tlb.get(page) or self.fetch_page(pc)
                while True:
                    pc = ops[pc >> 1 & LAST_SLOT](self, pc)
                    self.steps += 1
                    if self.steps >= self.limit or pc >> 12 != page:
                        break
                if pc > MASK64:
                    pc &= MASK64
            self.pc = pc
        except Trap as trap:
            self._trapped(pc & MASK64, trap.cause, trap.value)
        except IllegalInstruction:
            pc &= MASK64
            self._trapped(pc, Cause.ILLEGAL_INSTRUCTION, self.fetch(pc))
        except VirtualInstruction:
            pc &= MASK64
            self._trapped(pc, Cause.VIRTUAL_INSTRUCTION, self.fetch(pc))

    def _execute_native(self, native: Native) -> None:
        """As `_execute`: native code runs, and what it leaves undone is done here, one instruction at a time."""
        if self._probe is not None:
            if self.steps < self.limit:
                self._complete(self.pc, self.fetch)
            return
        state, proceed, jit = self.address, native.proceed, native.jit
        self.limit = min(self.limit, self.steps + STRETCH_STEPS)
        reason = proceed(state, False)
        while True:
            if self.record_count:
                self.on_records()
            if jit is not None and (self.hot_count or jit.finished):
                jit.attend(self)
            if reason == EXIT:
                self.monitor.trap(self, self.trap_cause, self.trap_value, False)  # type: ignore[union-attr]
                reason = proceed(state, True)
            elif reason == LIMIT:
                return
            elif reason == TRAP:
                self.trap(self.trap_cause, self.trap_value)
                reason = proceed(state, True)
            elif self._fetch_native(self.pc, native) if reason == FETCH else self._complete(self.pc, self._native_word):
                reason = proceed(state, False)
            else:
                return

    def _complete(self, pc: int, fetch: Callable[[int], int]) -> bool:
        """Execute an instruction that native code left undone. False: it trapped."""
        try:
            word = fetch(pc)
            if self._stops is not None and pc in self._stops[0].addresses:
                self._stops[1](self)
            try:
                self.pc = operation(word)(self, pc) & MASK64
            except IllegalInstruction:
                raise Trap(Cause.ILLEGAL_INSTRUCTION, encoding_of(word)) from None
            except VirtualInstruction:
                raise Trap(Cause.VIRTUAL_INSTRUCTION, encoding_of(word)) from None
        except Trap as trap:
            self._trapped(pc, trap.cause, trap.value)
            return False
        self.steps += 1
        return True

    def executing(self) -> int | None:
        """The encoding of the instruction at pc, of which native code made a load or a store that trapped; None: it has
        to be fetched."""
        offset = self.pc & 0xFFF
        if self._native is None or self._probe is not None or offset > _LAST_WORD or self.page_pc != self.pc - offset:
            return None
        return encoding_of(word_at(self.ops, offset))

    def _native_word(self, pc: int) -> int:
        """The instruction at pc, in the page that native code was executing."""
        offset = pc & 0xFFF
        return self.fetch(pc) if offset > _LAST_WORD else word_at(self.ops, offset)

    def _fetch_native(self, pc: int, native: Native) -> bool:
        """Let native code execute pc's page. False: it cannot be fetched."""
        try:
            offset = self.bus.offset(self.translate(pc, Access.FETCH))
        except Trap as trap:
            self._trapped(pc, trap.cause, trap.value)
            return False
        if offset is None:
            self._trapped(pc, Cause.INSTRUCTION_ACCESS_FAULT, pc)
            return False
        memory, page = self.bus.memory, offset >> 12
        if not memory.native_code[page]:
            memory.use_as_native_code(page, native.pages.of(memory.read_bytes(page << 12, PAGE)))
        if self._stops is not None:
            self._stops[0].use(pc, memory.native_code[page])
        return True

    def _trapped(self, pc: int, cause: int, value: int) -> None:
        self.pc = pc
        if cause == Cause.BREAKPOINT:
            value = pc
        self.steps += 1
        self.unretired += 1
        self.trap(cause, value)

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        return {
            "x": list(self.x),
            "pc": self.pc,
            "privilege": self.privilege,
            "virtual": self.virtual,
            "f": list(self.f),
            "csrs": csrfile.words(self),
            "lines": self.lines,
            "reservation": self.reservation,
            "waiting": bool(self.waiting),
            "stopped": bool(self.stopped),
            "steps": self.steps,
            "extra": self.extra,
            "unretired": self.unretired,
            "cycle_offset": self.cycle_offset,
            "instret_offset": self.instret_offset,
            "next_event": self.next_event,
        }

    def power_on(self, ticks: Callable[[], int]) -> None:
        """Reset of the architectural state. Steps and clock go on."""
        self.clear_registers()
        self.pc, self.privilege, self.virtual = 0, MACHINE, 0
        csrfile.reset(self)
        self.lines = 0
        self.reservation = NO_RESERVATION
        self.waiting = self.stopped = False
        self.cycle_offset, self.instret_offset = -self.clock, -self.retired
        self.next_event = NEVER
        self.ticks = ticks
        self.time_started = NO_TIME
        self.refresh()

    def adopt(self, state: dict[str, Any]) -> int:
        """Take the architectural state of another hart's `save`; own steps and clock go on. Returns own minus
        its retired."""
        steps, extra, unretired = self.steps, self.extra, self.unretired
        self.load(state)
        cycles, retired = self.clock, self.retired
        self.steps, self.extra, self.unretired = steps, extra, unretired
        self.cycle_offset += cycles - self.clock
        self.instret_offset += retired - self.retired
        self.next_event = NEVER
        return self.retired - retired

    def load(self, state: dict[str, Any]) -> None:
        self.x[:], self.f[:] = _words(state["x"]), _words(state["f"])
        self.pc, self.privilege, self.virtual = state["pc"], state["privilege"], state["virtual"]
        csrfile.set_words(self, state["csrs"])
        self.lines = state["lines"]
        self.reservation, self.waiting, self.stopped = (
            state["reservation"],
            state["waiting"],
            state["stopped"],
        )
        self.steps, self.extra, self.unretired = state["steps"], state["extra"], state["unretired"]
        self.cycle_offset, self.instret_offset = state["cycle_offset"], state["instret_offset"]
        self.next_event = state["next_event"]
        self.walks = self.walk_references = 0
        self.leave = False
        self.refresh()




def _csr(number: int) -> Csr:
    row = CSRS.get(number)
    if row is None:
        raise IllegalInstruction
    return row


def _within_pages(address: int, size: int) -> list[tuple[int, int]]:
    """(address, length) of the parts of an access that lie in one page each."""
    room = 4096 - (address & 0xFFF)
    if size <= room:
        return [(address, size)]
    return [(address, room), ((address + room) & MASK64, size - room)]


def _words(values: Sequence[int]) -> memoryview:
    """Integers as the words of a register view."""
    return memoryview(array("Q", values))


def _register_view(hart: Hart, field: str) -> memoryview:
    return memoryview(getattr(hart, field)).cast("B").cast("Q")


_CLEARED = _words([0] * 32)


def _nothing() -> None:
    """No event is due."""


def _undecoded(halves: memoryview, page: int) -> list[Operation]:
    """A page of operations none of which is decoded yet: each decodes its slot when it is first executed.

    An instruction that begins in the page's last halfword and ends in the next page is fetched each time:
    what follows depends on the address space.
    """

    def decode_slot(hart: Hart, pc: int) -> int:
        slot = pc >> 1 & LAST_SLOT
        at = page << 11 | slot
        word = halves[at]
        if length_of(word) == 4:
            if slot == LAST_SLOT:
                return operation(hart.fetch(pc))(hart, pc)
            word |= halves[at + 1] << 16
        op = operation(word)
        ops[slot] = op
        return op(hart, pc)

    ops: list[Operation] = [decode_slot] * (LAST_SLOT + 2)
    return ops


def _make_load(shift: int) -> Callable[[Hart, int], int]:
    size = 1 << shift
    low_mask = size - 1

    def load(self: Hart, address: int) -> int:
        address &= MASK64
        page = self.read_tlb.get(address >> 12)
        if page is not None and not address & low_mask:
            value: int = self.views[shift][(page | address & 0xFFF) >> shift]
            return value
        return self._load(address, size)

    return load


def _make_store(shift: int) -> Callable[[Hart, int, int], None]:
    size = 1 << shift
    low_mask = size - 1
    mask = (1 << 8 * size) - 1

    def store(self: Hart, address: int, value: int) -> None:
        address &= MASK64
        page = self.write_tlb.get(address >> 12)
        if page is not None and not address & low_mask:
            self.views[shift][(page | address & 0xFFF) >> shift] = value & mask
        else:
            self._store(address, size, value)

    return store


for _shift in range(4):
    setattr(Hart, f"load{8 << _shift}", _make_load(_shift))
    setattr(Hart, f"store{8 << _shift}", _make_store(_shift))
