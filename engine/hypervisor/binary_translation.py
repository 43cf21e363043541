"""Binary translation in the manner of VMware's first monitor (Adams and Agesen, 2006).

    guest user     runs directly, on shadow tables, as under trap-and-emulate
    guest kernel   is never run where it is: its code is translated block by block into host code that may run in U mode,
                   and that is kept in a cache of host memory (engine.hypervisor.translation)
          │
          │ what is left of exits: call-outs (the translation of what cannot be done inline, and of what comes next for
          ▼ the first time), page faults, user code's traps, timer interrupts
    VMM    does what trap-and-emulate does; a vCPU goes on in its translation

No exit depends on a privileged instruction of the guest's kernel trapping, so a machine where some of them do not trap
makes no difference.

**Where a loaded vCPU is** (`Place`): on the hart, running user code; on the hart, in the cache; or OUT, in the hands of
the VMM. Only when it is OUT is the virtual hart the truth; `catch_up` makes it true without disturbing the hart, which
keeps addresses in the cache and words of the VMM in its floating-point registers. Whoever takes code away takes out
the vCPUs that are inside it, and they go on before the next instruction of their hart.

**Kept true.** A page that translations were read from is not writable in the shadow tables; a store to it is emulated
and drops the blocks with those bytes. After RELEASE_AFTER stores without a new translation between, all its blocks go
and it is writable again. That virtual pages mean the same guest pages is looked up once for each shadow space
(`TranslationCache.verified`), and again when an entry of the tables it was seen in is written. So fence.i and
sfence.vma have nothing left to do.

**Adaptive.** A store that faults RETRANSLATE_AFTER times because the VMM has to know of it is retranslated to a
call-out, and back when it has gone to ordinary memory as often in a row.

**Counting.** What the hart retires is what is counted: `executed` of a record, the guest's instret and virtual time
include what the translation adds. `counts` has the guest instructions translated.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from engine.bits import MASK64
from engine.hypervisor.frames import OutOfFramesError
from engine.hypervisor.shadow import DECIDES, ShadowTables, SpaceKey, key_in
from engine.hypervisor.technique import Outcome
from engine.hypervisor.translation import translator as words
from engine.hypervisor.translation.cache import BASE, Block, Mode, Reading, TranslationCache
from engine.hypervisor.translation.translator import IN_WORD, TARGET, Call, Translator
from engine.hypervisor.trap_and_emulate import TrapAndEmulate
from engine.hypervisor.vm import VCpu
from engine.isa.csrs import Status
from engine.isa.decoder import encoding_of, length_of
from engine.machine import mmu
from engine.machine.hart import Hart
from engine.machine.mappings import RELEASE_AFTER
from engine.machine.memory import PAGE
from engine.machine.mmu import PAGE_FAULTS, Access, RecordedWalk
from engine.machine.native import translated
from engine.machine.privileged import NO_INTERRUPT, SUPERVISOR, USER, walk_options
from engine.machine.traps import Trap
from engine.trace.record import Action, Cause, Disposition, Kind

if TYPE_CHECKING:
    from engine.hypervisor.vm_guest import VmGuest

#: Members of enumerations that exits need, by names of their own (why: engine.machine.mmu).
_VM_EXIT, _EXCEPTION = Kind.VM_EXIT, Kind.EXCEPTION
_EMULATED = Disposition.EMULATED
_CHAIN = Action.CHAIN
_ECALL_U, _INSTRUCTION_PAGE_FAULT = Cause.ECALL_U, Cause.INSTRUCTION_PAGE_FAULT
_EMULATE, _STORE, _MISS = Call.EMULATE, Call.STORE, Call.MISS
#: As many as make a page of the guest's an ordinary one again: what clears old page tables is not retranslated for it.
RETRANSLATE_AFTER = RELEASE_AFTER
#: Call-outs for stores, and faults of stores, that are remembered at once.
MAX_STORES = 1024
#: Part of the address space that has the cache in it, while a guest kernel runs: a page-table entry's span.
_SPAN = 21
_INLINE_MODE = 4
#: The privilege in the key of a space without leaves, for user code: a negative one, and not the kernel's.
_USER_SPLIT = -2


class Place(IntEnum):
    OUT = 0
    USER = 1
    CACHE = 2


_OUT, _USER, _CACHE = Place.OUT, Place.USER, Place.CACHE


class _UserApart(ShadowTables):
    """User code has its own spaces, also where the guest translates nothing: the cache is not mapped there."""

    @staticmethod
    def key(virtual: Hart) -> SpaceKey:
        return _key_apart(virtual.privilege, virtual.mstatus & DECIDES, virtual.satp)


@lru_cache(maxsize=4096)
def _key_apart(privilege: int, status: int, satp: int) -> SpaceKey:
    satp, of_space, bits = key_in(privilege, status, satp)
    if privilege == USER and not satp:
        of_space = _USER_SPLIT if of_space < 0 else USER
    return (satp, of_space, bits)


class BinaryTranslation(TrapAndEmulate):
    """Runs the vCPUs of one VM on host harts. It is the `monitor` of a hart while one of them is loaded."""

    def __init__(self, guest: VmGuest) -> None:
        frames, ram = guest.host.frames, guest.vm.ram
        self.cache = TranslationCache(frames, self._evict, self._unmap)
        super().__init__(guest, _UserApart(frames, ram))
        self.shadow.writable = self._may_store
        ram.protected = self.shadow.protect
        self.shadow.changed = self._tables_changed
        self._places: dict[int, Place] = {}
        self._reloaded: dict[int, Place] = {}  # of vCPUs whose hart has been loaded as it was
        self._stores: dict[int, int] = {}  # stores to a guest page with code since it was last translated from
        self._faults: dict[tuple[Mode, int], int] = {}  # of stores, by guest pc, that the VMM had to know of
        self._call_outs: dict[tuple[Mode, int], int] = {}  # such stores now -> times in a row that it had not
        self._noticed_store: tuple[int, Action] | None = None

    kernel_in_place = False

    @classmethod
    def of(cls, guest: VmGuest) -> BinaryTranslation:
        return cls(guest)

    # -- entering and leaving a hart -----------------------------------------------------------------
    def enter(self, vcpu: VCpu, hart: Hart) -> None:
        place = self._reloaded.pop(vcpu.number, None)
        x, f, pc = list(hart.x), list(hart.f), hart.pc
        vcpu.load(hart)
        vcpu.virtual.keep_registers()
        hart.monitor, hart.monitored = self, 1
        self._places[vcpu.number] = place or _OUT
        if place is None:
            hart.privilege = USER
            self._resume(vcpu, hart)
            return
        hart.pc = pc
        for number in range(32):
            hart.x[number], hart.f[number] = x[number], f[number]

    def leave(self, vcpu: VCpu) -> None:
        hart = vcpu.hart
        assert hart is not None
        self.catch_up(vcpu)
        self._places[vcpu.number] = _OUT
        vcpu.unload()
        hart.monitor = None
        hart.monitored = 0

    def catch_up(self, vcpu: VCpu) -> None:
        hart = vcpu.hart
        if hart is None:
            return
        virtual, place = vcpu.virtual, self._place(vcpu)
        if place == _OUT:
            return
        virtual.x[:] = hart.x
        if place == _USER:
            virtual.f[:] = hart.f
            super().catch_up(vcpu)
            return
        f = hart.f
        point = self.cache.point(hart.pc)
        if point.pc >= 0:
            virtual.pc = point.pc
        else:
            virtual.pc = f[translated.PC] if point.pc == IN_WORD else hart.x[TARGET] & ~1
        for register, word, constant in point.fixes:
            virtual.x[register] = constant if word < 0 else f[word]
        virtual.moves.catch_up_translated(virtual.subject, hart.address)

    def _place(self, vcpu: VCpu) -> Place:
        return self._places.get(vcpu.virtual.number, _OUT)

    def _take_out(self, vcpu: VCpu) -> Place:
        """The virtual hart is the truth from now on; returns where the vCPU was."""
        self.catch_up(vcpu)
        place = self._place(vcpu)
        self._places[vcpu.virtual.number] = _OUT
        return place

    def _resume(self, vcpu: VCpu, hart: Hart) -> None:
        virtual = vcpu.virtual
        if self.guest.ended or not vcpu.runnable or virtual.pending_interrupt() != NO_INTERRUPT:
            hart.leave = True
            return
        try:
            self._go_on(vcpu, hart)
            self.guest.wait(hart)
        except OutOfFramesError:
            self.cache.give_back()
            try:
                self._go_on(vcpu, hart)
            except OutOfFramesError:
                self.guest.fail(
                    "out-of-memory", "The host has no memory left for the guest.", pc=f"{virtual.pc:#x}"
                )
                hart.leave = True

    def _go_on(self, vcpu: VCpu, hart: Hart) -> None:
        """Put an OUT vCPU where it has to go on. Raises OutOfFramesError, and then it is OUT still."""
        virtual = vcpu.virtual
        key = self._space(virtual)
        if virtual.privilege == USER:
            hart.f[:] = virtual.f
            self._hand_over(vcpu)
            place = _USER
        else:
            hart.pc = self._translation(vcpu, key)
            virtual.moves.hand_over_translated(virtual.subject, hart.address)
            place = _CACHE
        self._select(key, hart)
        hart.x[:] = virtual.x
        self._places[virtual.number] = place

    # -- exits ---------------------------------------------------------------------------------------
    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:  # noqa: ARG002
        vcpu = self.guest.loaded(hart)
        address = hart.pc
        place = self._take_out(vcpu)
        origin, pc = vcpu.level, vcpu.virtual.pc
        if place == _CACHE:
            outcome, instruction = self._handle_in_cache(vcpu, cause, value, address)
        else:
            outcome, instruction = self._handle(vcpu, cause, value)
        self.guest.exit(vcpu, outcome, cause, pc, value, instruction, origin)
        self._resume(vcpu, hart)

    def timer(self, vcpu: VCpu, preempted_by: int | None) -> None:
        self._take_out(vcpu)
        super().timer(vcpu, preempted_by)

    def inject_pending(self, vcpu: VCpu) -> bool:
        virtual, hart = vcpu.virtual, vcpu.hart
        assert hart is not None
        place = self._place(vcpu)
        if (virtual.mip | virtual.lines) & virtual.mie:
            self._take_out(vcpu)
            if super().inject_pending(vcpu):
                return True
        key = self._space(virtual)
        if place != _OUT and (key not in self.shadow.roots or self.shadow.satp(key) != hart.satp):
            # Another vCPU's exit took the tables that this hart translates through.
            self._places[vcpu.number] = place
            self._take_out(vcpu)
            place = _OUT
        if place == _OUT:
            self._resume(vcpu, hart)
        else:
            self._places[vcpu.number] = place
            if place == _CACHE:
                translated.announce(virtual, hart.address)
        return False

    def _handle_in_cache(self, vcpu: VCpu, cause: int, value: int, address: int) -> tuple[Outcome, int]:
        """A trap of translated code; the guest is at the point of this address."""
        virtual, counts = vcpu.virtual, self.cache.counts
        mode, pc = self._mode(vcpu), virtual.pc
        if cause == _INSTRUCTION_PAGE_FAULT:  # a page of the table of jumps that has not been needed yet
            return self._go_to(vcpu, indirect=True), 0
        if cause == _ECALL_U:
            counts.call_outs += 1
            point = self.cache.point(address)
            if point.call == _EMULATE:
                return self._emulate(vcpu, point.instruction), point.instruction
            if point.call == _STORE:
                return self._called_store(vcpu, (mode, pc), point.instruction)
            return self._go_to(vcpu, point.call == _MISS), 0
        counts.faults += 1
        access = PAGE_FAULTS.get(cause)
        if access is None:
            return self._inject(vcpu, cause, value, _EXCEPTION), 0
        if value >> _SPAN == BASE >> _SPAN:
            return self._interpret(vcpu, Action.EMULATE, value)
        outcome, instruction = self._page_fault(vcpu, access, value)
        if outcome.action in (Action.PAGE_TABLE_WRITE, Action.CODE_WRITE):
            outcome = self._adapt(outcome, (mode, pc))
        return outcome, instruction

    def _emulate(self, vcpu: VCpu, instruction: int) -> Outcome:
        if instruction == words.ECALL:
            return self._ecall(vcpu)
        if instruction in _BREAKPOINTS:
            return self._inject(vcpu, Cause.BREAKPOINT, vcpu.virtual.pc, _EXCEPTION)
        return self._privileged(vcpu, instruction)

    def _go_to(self, vcpu: VCpu, indirect: bool) -> Outcome:
        """Go on at the guest's pc, from a direct jump whose target was not translated, or from one (indirect) that the
        table of jumps does not know."""
        mode, pc = self._mode(vcpu), vcpu.virtual.pc
        known = self.cache.find(mode, pc) is not None
        try:
            address = self._find(vcpu)
            if indirect:
                self.cache.learn(mode, pc)
        except Trap as trap:
            kind = Kind.PAGE_FAULT if trap.cause in PAGE_FAULTS else _EXCEPTION
            return self._inject(vcpu, trap.cause, trap.value, kind)
        except OutOfFramesError:  # `_resume` sees to it
            return Outcome(_VM_EXIT, _EMULATED, _CHAIN, pc)
        block = self.cache.block_of(mode, pc)
        if known or block is None:
            return Outcome(_VM_EXIT, _EMULATED, _CHAIN, pc, address)
        return Outcome(_VM_EXIT, _EMULATED, Action.TRANSLATE, pc, len(block.draft.entries))

    # -- stores that the VMM has to know of ----------------------------------------------------------
    def _adapt(self, outcome: Outcome, place: tuple[Mode, int]) -> Outcome:
        """A store faulted. When it has done so often, it is a call-out from now on."""
        if len(self._faults) >= MAX_STORES:
            self._faults.clear()
        if self._noticed(outcome.a >> 12) is None:
            self._faults.pop(place, None)
            return outcome
        count = self._faults[place] = self._faults.get(place, 0) + 1
        block = self.cache.block_of(*place)
        if count < RETRANSLATE_AFTER or block is None or not self._is_store(block, place[1]):
            return outcome
        self._faults.pop(place)
        if len(self._call_outs) >= MAX_STORES:
            self._call_outs.pop(next(iter(self._call_outs)))
        self._call_outs[place] = 0
        self.cache.drop([block])
        self.cache.counts.retranslated += 1
        return replace(outcome, action=Action.RETRANSLATE)

    @staticmethod
    def _is_store(block: Block, pc: int) -> bool:
        """Is the instruction at a guest pc one that can be a call-out?"""
        at = block.draft.entries[pc]
        return words.is_store(int.from_bytes(block.draft.code[at : at + 4], "little"))

    def _called_store(
        self, vcpu: VCpu, place: tuple[Mode, int], instruction: int
    ) -> tuple[Outcome, int]:
        self._noticed_store = None
        outcome, _ = self._interpret(vcpu, Action.EMULATE, 0)
        if outcome.action != Action.EMULATE:
            return outcome, instruction
        if self._noticed_store is not None:
            target, action = self._noticed_store
            self._call_outs[place] = 0
            return replace(outcome, kind=Kind.PAGE_FAULT, action=action, a=target), instruction
        ordinary = self._call_outs.get(place, 0) + 1
        self._call_outs[place] = ordinary
        block = self.cache.block_of(*place)
        if ordinary >= RETRANSLATE_AFTER:
            del self._call_outs[place]
            if block is not None:
                self.cache.drop([block])
        return outcome, instruction

    def _noticed(self, page: int) -> Action | None:
        known = super()._noticed(page)
        return Action.CODE_WRITE if known is None and self.cache.on_guest_page(page) else known

    def _may_store(self, page: int) -> bool:
        return self.guest.vm.ram.writable(page) and not self.cache.on_guest_page(page)

    def stored(self, address: int, length: int) -> None:
        for page in range(address >> 12, (address + length - 1 >> 12) + 1):
            noticed = self._noticed(page)
            if noticed is not None:
                self._noticed_store = address, noticed
            if self.cache.on_guest_page(page):
                self._stores[page] = self._stores.get(page, 0) + 1
                if self._stores[page] >= RELEASE_AFTER:
                    self.cache.drop(self.cache.on_guest_page(page))
                    self._stores.pop(page, None)
        self.cache.drop(self.cache.written(address, length))
        super().stored(address, length)

    # -- translations --------------------------------------------------------------------------------
    @staticmethod
    def _mode(vcpu: VCpu) -> Mode:
        virtual = vcpu.virtual
        plain = virtual.privilege == SUPERVISOR and not virtual.mstatus & Status.TVM
        return virtual.privilege | (_INLINE_MODE if plain else 0)

    def _encoding(self, vcpu: VCpu, executing: bool) -> int:
        """As of TrapAndEmulate; where the guest's kernel is, is known of translated code that is still true."""
        virtual = vcpu.virtual
        if virtual.privilege == USER:
            return super()._encoding(vcpu, executing)
        page, at = virtual.pc >> 12, virtual.pc & PAGE - 1
        if at <= PAGE - 4 and page in self.cache.verified.get(self._space(virtual), ()):
            ram = self.guest.vm.ram
            return encoding_of(ram.memory.read(ram.offset(self.cache.behind[page] << 12 | at), 4))
        return virtual.fetch(virtual.pc)

    def _translation(self, vcpu: VCpu, key: SpaceKey) -> int:
        """The host address at which an OUT vCPU goes on: in the cache, and if its instruction cannot be fetched at the
        stub there that asks again, so that this is an exit of its own. key: of its space. Raises OutOfFramesError."""
        self.shadow.satp(key)
        self.shadow.link(key, BASE, self.cache.table_frame())
        self._verify(key, vcpu)
        try:
            return self._find(vcpu)
        except Trap:
            return BASE

    def _find(self, vcpu: VCpu) -> int:
        """The host address of the guest's next instruction, translated now if it was not. Raises Trap where it cannot be
        fetched, and OutOfFramesError."""
        mode, pc = self._mode(vcpu), vcpu.virtual.pc
        offset = self.cache.find(mode, pc)
        if offset is None:
            offset = self._translate(vcpu, mode, pc)
        return BASE + offset

    def _translate(self, vcpu: VCpu, mode: Mode, pc: int) -> int:
        ram = self.guest.vm.ram
        page = self._fetched(vcpu, pc)
        ram.frame(page)  # as a fetch would: it may be elsewhere
        code = ram.read(page << 12, PAGE)
        begin = pc & ~(PAGE - 1)
        pages = [(pc >> 12, page)]
        if pc - begin == PAGE - 2 and length_of(int.from_bytes(code[-2:], "little")) == 4:
            following = self._fetched(vcpu, pc + 2 & MASK64)
            ram.frame(following)
            code += ram.read(following << 12, 2)
            pages.append(((pc + 2 & MASK64) >> 12, following))
        translator = Translator(
            lambda at: int.from_bytes(code[at - begin : at - begin + 2], "little"),
            begin + len(code),
            lambda at: self.cache.find(mode, at) is not None,
            bool(mode & _INLINE_MODE),
            lambda at: (mode, at) in self._call_outs,
        )
        draft = translator.translate(pc)
        fresh = [guest for _, guest in pages if not self.cache.on_guest_page(guest)]
        offset = self.cache.add(mode, tuple(pages), draft)
        for virtual, guest in pages:
            self._stores.pop(guest, None)
            self.cache.verified.setdefault(self._space(vcpu.virtual), set()).add(virtual)
        for guest in fresh:
            self.shadow.remapped(guest)
        return offset

    def _fetched(self, vcpu: VCpu, address: int) -> int:
        """The guest page that an instruction is fetched from. Raises Trap."""
        virtual = vcpu.virtual
        key = self._space(virtual)
        target = address
        if virtual.satp >> 60 and virtual.privilege == SUPERVISOR:
            target = virtual.walk(address, Access.FETCH)
            self.shadow.rest_on(key, address, virtual.trail)
        if not self.guest.vm.ram.holds(target, 2):
            raise Trap(Cause.INSTRUCTION_ACCESS_FAULT, address)
        return target >> 12

    # -- kept true -----------------------------------------------------------------------------------
    def _verify(self, key: SpaceKey, vcpu: VCpu) -> None:
        """In this space, the virtual pages of all blocks mean what they did when those were translated; blocks for which
        that is not so are dropped."""
        verified, behind = self.cache.verified.setdefault(key, set()), self.cache.behind
        if len(verified) == len(behind):
            return
        for page, guest in sorted(behind.items()):
            if page in verified:
                continue
            if self._means(vcpu, key, page, guest):
                verified.add(page)
            else:
                self.cache.drop(self.cache.on_virtual_page(page))

    def _means(self, vcpu: VCpu, key: SpaceKey, page: int, guest: int) -> bool:
        """Could instructions be fetched from `guest` through this virtual page, as the guest's tables are?"""
        virtual = vcpu.virtual
        if not (virtual.satp >> 60 and virtual.privilege == SUPERVISOR):
            return page == guest
        walk = RecordedWalk(virtual.bus)
        address = page << 12
        try:
            options = walk_options(virtual, 0) | mmu.LOOK
            target = mmu.walk(walk, virtual.satp, 0, address, Access.FETCH, virtual.privilege, options)
        except Trap:
            return False
        if target >> 12 != guest or not walk.leaf & mmu.A:
            return False
        self.shadow.rest_on(key, address, [step.table for step in walk.trail])
        return True

    def _tables_changed(self, key: SpaceKey, address: int, level: int) -> None:
        if level == mmu.LEVELS:
            self.cache.verified.pop(key, None)
            return
        verified, span = self.cache.verified.get(key), 1 << 9 * level
        if verified:
            first = address >> 12 & -span
            if span < len(verified):
                verified.difference_update(range(first, first + span))
            else:
                verified.difference_update([page for page in verified if first <= page < first + span])

    def _evict(self, is_inside: Callable[[int], bool]) -> None:
        for vcpu in self.guest.vm.vcpus:
            if vcpu.hart is not None and self._place(vcpu) == _CACHE and is_inside(vcpu.hart.pc - BASE):
                self._take_out(vcpu)

    def _unmap(self) -> None:
        table = self.cache.table
        assert table is not None
        self.shadow.unlink(BASE, table)

    def settled(self, vcpu: VCpu) -> bool:
        """Is a vCPU at the begin of the translation of an instruction, or not in the cache at all?"""
        if vcpu.hart is None or self._place(vcpu) != _CACHE:
            return True
        self.catch_up(vcpu)
        return self.cache.find(self._mode(vcpu), vcpu.virtual.pc) == vcpu.hart.pc - BASE

    # -- looking -------------------------------------------------------------------------------------
    def translation(self, number: int, address: int | None) -> Reading | None:
        """The block with the instruction at a guest address; None: at its pc or, if that has none, at the trap vector.
        None where nothing is translated."""
        vcpu = self.guest.vm.vcpus[number]
        self.catch_up(vcpu)
        virtual, block = vcpu.virtual, None
        wanted = [address] if address is not None else [virtual.pc, virtual.stvec & ~3]
        modes = sorted({self._mode(vcpu), SUPERVISOR | _INLINE_MODE}, key=lambda mode: mode != self._mode(vcpu))
        for mode, pc in product(modes, wanted):
            block = block or self.cache.block_of(mode, pc)
        return None if block is None else self.cache.read(block)

    # -- the rest of Technique -----------------------------------------------------------------------
    def close(self) -> None:
        self.cache.close()
        super().close()

    def save(self) -> dict[str, Any]:
        loaded = [vcpu.number for vcpu in self.guest.vm.vcpus if vcpu.hart is not None]
        return super().save() | {
            "cache": self.cache.save(),
            "places": [[number, int(self._places[number])] for number in loaded],
            "stores": list(self._stores.items()),
            "faults": [[*place, count] for place, count in self._faults.items()],
            "call_outs": [[*place, count] for place, count in self._call_outs.items()],
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.cache.load(state["cache"])
        self._places = {}
        self._reloaded = {number: Place(place) for number, place in state["places"]}
        self._stores = dict(state["stores"])
        self._faults = {(mode, pc): count for mode, pc, count in state["faults"]}
        self._call_outs = {(mode, pc): count for mode, pc, count in state["call_outs"]}


_BREAKPOINTS = (0x0010_0073, 0x9002)
