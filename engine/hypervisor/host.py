"""A host: harts, RAM, one stack, and its guests, executed deterministically.

Harts take turns in quanta of QUANTUM_NS of virtual time; a host's only hart needs none. On a hypervisor, the host's
scheduler says which vCPU a hart gets and when it makes room for another. A vCPU off the harts either sleeps, until
something wakes it, or waits for a hart: that time is stolen from it, and it is told (SBI STA). A step is one step of any
hart; `position` counts them. `run` does exactly the number it is asked for, and what it did is the same however the
steps are divided into calls: a call ends right after a step, and clocks of resting harts move only on the way to the
next one.

Where a hypervisor runs on a host's operating system (type 2), that system has processes of its own. They get
`load_percent` of each hart, in the beginning of each LOAD_PERIOD_NS, which guests then do not have: a vCPU that is on
the hart is preempted, with a record, and the hart's translations are gone when it comes back. While no guest wants a
hart, nothing of this takes place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from engine.commands import LabError, Problem, SchedulerId
from engine.hypervisor.bare_metal import BareMetalGuest
from engine.hypervisor.costs import DEFAULT_COSTS, Costs, Routes
from engine.hypervisor.frames import Frames, OutOfFramesError
from engine.hypervisor.guest import Guest
from engine.hypervisor.page_sharing import PAGE_NS, SCAN_PERIOD_NS, PageScanner
from engine.hypervisor.scheduling import SCHEDULERS
from engine.hypervisor.scheduling.scheduler import DEFAULT_SHARE, Key, Share
from engine.hypervisor.stacks import SILENT_SENSITIVE, STACKS, Configuration, Exit
from engine.hypervisor.swapping import BATCH, LEFT, SPARED, WRITE_NS, Pager
from engine.hypervisor.technique import Technique
from engine.hypervisor.vm import GuestRam, VCpu
from engine.hypervisor.vm_guest import TECHNIQUES, VmGuest
from engine.machine.bus import Bus, Devices
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE, LoadedImage
from engine.machine.memory import PAGE, Memory
from engine.machine.native.runtime import NativeRecords
from engine.machine.state import NEVER, NO_RESERVATION
from engine.machine.tiers import Tier, native_tier
from engine.trace.record import Action, Disposition, Kind, Level
from engine.trace.rings import Trace

QUANTUM_NS = 10_000
#: Records that native code writes before somebody has to fetch them.
NATIVE_RECORDS = 8192
#: Host memory that the hypervisor's own image takes; shadow tables get a sixteenth of the host besides.
IMAGE_MIB = 2
SHADOW_SHARE = 16
#: A host's own processes get their share of every such period.
LOAD_PERIOD_NS = 1_000_000
#: Who runs next when a vCPU makes room for a process of the host, as a record has it.
OF_THE_HOST = 0
#: And when its guest's cap is used up, or equal pages are looked for.
CAP_REACHED = 1 << 16
SCANNING = 1 << 17
_UNLIMITED = 1 << 62


def _no_cable(_guest: int, _frame: bytes) -> None:
    """Frames of a host that is connected to nothing."""


class Host:
    """`console(guest, bytes)` gets what guests print, `transmit(guest, frame)` what their network cards send.
    `position_offset` is added to the positions in records. `load_percent`: what the host's own processes take of each
    hart. `scheduler` None: the stack's own. `share_pages`: are equal pages of guests looked for? `overcommit`: may its
    guests be promised more memory than there is?"""

    def __init__(
        self,
        host_id: int,
        harts: int,
        memory_mib: int,
        configuration: Configuration,
        trace: Trace,
        console: Callable[[int, bytes], None],
        transmit: Callable[[int, bytes], None] = _no_cable,
        tier: Tier = Tier.JIT,
        costs: Costs = DEFAULT_COSTS,
        load_percent: int = 0,
        scheduler: SchedulerId | None = None,
        share_pages: bool = False,
        overcommit: bool = False,
    ) -> None:
        self.id = host_id
        self.configuration = configuration
        self.technique = None if configuration.technique is None else TECHNIQUES[configuration.technique]
        self.routes = Routes(configuration, costs)
        self.load_percent = load_percent
        self.memory_mib = memory_mib
        self.trace = trace
        self.console = console
        self.transmit = transmit
        self.memory = Memory(RAM_BASE, memory_mib << 20)
        self.bus = Bus(self.memory, Devices([]))
        extension = self.technique is None or self.technique.hypervisor_extension
        silent = SILENT_SENSITIVE in configuration.switches
        self.harts = [Hart(number, self.bus, _no_clock, extension, silent) for number in range(harts)]
        self.frames = Frames(self.memory, (IMAGE_MIB << 20) // PAGE)
        self.guests: dict[int, Guest] = {}
        self.staged: dict[int, VmGuest] = {}  # guests that come here or have just left: memory and no right to run
        self._beginning: Guest | None = None  # one that is neither yet
        self.loaded: list[VCpu | None] = [None] * harts
        self.position_offset = 0
        self.busy_ns = 0
        self.active = self.harts[0]
        self.scheduler = SCHEDULERS[scheduler or STACKS[configuration.stack].scheduler](harts)
        self.scanner = self._scanner(share_pages)
        self.pager = Pager()
        self.frames.evict = self._evict
        self.overcommits = False
        self.set_overcommit(overcommit)
        self._began = [0] * harts  # when the loaded vCPU got its hart
        self._slice_end = [0] * harts  # when to look again who should have it
        self._charged = [0] * harts  # while a hart runs: up to when its vCPU has paid
        self._turn = 0
        self._quantum_end = QUANTUM_NS
        self._traps_left = _UNLIMITED
        self._until = NEVER
        # One for all harts: it is empty whenever one of them begins to execute.
        self._records = NativeRecords(NATIVE_RECORDS)
        for hart in self.harts:
            hart.on_event = lambda hart=hart: self._event(hart)  # type: ignore[misc]
            hart.on_timer = lambda hart=hart: self.retime(hart)  # type: ignore[misc]
            hart.use_native(native_tier(tier))

    # -- structure -----------------------------------------------------------------------------------
    @property
    def bare_metal(self) -> bool:
        return self.technique is None

    @property
    def memory_used_mib(self) -> int:
        """Memory that guests may use, and what the hypervisor keeps."""
        promised = sum(guest.memory_mib for guest in (*self.guests.values(), *self.staged.values()))
        return promised if self.bare_metal else promised + IMAGE_MIB + self._shadow_mib

    @property
    def _shadow_mib(self) -> int:
        return max(2, self.memory_mib // SHADOW_SHARE)

    @property
    def swap_mib(self) -> int:
        """The size of its swap device: guests may be promised as much besides."""
        return self.memory_mib if self.overcommits else 0

    @property
    def free_mib(self) -> int:
        """What guests can be promised yet."""
        return max(0, self.memory_mib + self.swap_mib - self.memory_used_mib)

    def fits(self, vcpus: int, memory_mib: int, machine_mode: bool, paravirtual: bool | None) -> Problem | None:
        """Why a guest of this size, which needs machine mode or does not, cannot be added; None: it can.

        paravirtual: is its kernel made for hypercalls? None: whatever it is, the technique runs it already. The bare
        machine takes any kernel, as machines do.
        """
        if self.technique is None:
            if self.guests:
                return Problem(
                    "host-occupied",
                    "A bare-metal host runs one system, and this one has it.",
                    {"host": self.id},
                )
            if vcpus > len(self.harts):
                return _too_few_harts(vcpus, len(self.harts))
            if memory_mib > self.memory_mib:
                return _too_little_memory(memory_mib, self.memory_mib)
            return None
        free = self.free_mib
        if memory_mib > free:
            return _too_little_memory(memory_mib, free, self.swap_mib)
        return None if paravirtual is None else self.technique.refuses(machine_mode, paravirtual)

    def add_guest(
        self,
        guest_id: int,
        image: LoadedImage,
        vcpus: int,
        memory_mib: int,
        arguments: str,
        share: Share = DEFAULT_SHARE,
    ) -> None:
        """Start a guest. Raises LabError, and then nothing has changed."""
        guest = self._new(guest_id, image, vcpus, memory_mib, arguments, image.start_mode == "M")
        try:
            guest.start()
        except LabError:
            self._beginning = None
            guest.close()
            raise
        self._admit(guest, share)

    def _new(
        self, guest_id: int, image: LoadedImage, vcpus: int, memory_mib: int, arguments: str, machine_mode: bool
    ) -> BareMetalGuest | VmGuest:
        problem = self.fits(vcpus, memory_mib, machine_mode, image.paravirtual)
        if problem is not None:
            raise LabError(problem.key, problem.message, **problem.params)
        kind = BareMetalGuest if self.bare_metal else VmGuest
        guest = kind(self, guest_id, image, vcpus, memory_mib, arguments)
        self._beginning = guest
        return guest

    def _admit(self, guest: Guest, share: Share) -> None:
        self.guests[guest.id], self._beginning = guest, None
        if isinstance(guest, VmGuest):
            self.scheduler.admit(guest.id, guest.vcpu_count, share, self.active.clock)
            self.look_again()

    def set_share(self, guest_id: int, share: Share) -> None:
        """From now on a guest has this share of the harts. On bare metal it has the machine."""
        if isinstance(self.guests[guest_id], VmGuest):
            self.scheduler.set_share(guest_id, share, self.active.clock)
            self.look_again()

    def set_scheduler(self, scheduler: SchedulerId | None) -> None:
        """Another scheduler, which knows nothing of what was; None: the stack's own."""
        before = self.scheduler
        self.scheduler = SCHEDULERS[scheduler or STACKS[self.configuration.stack].scheduler](len(self.harts))
        for guest in self.guests.values():
            if isinstance(guest, VmGuest):
                self.scheduler.admit(guest.id, guest.vcpu_count, before.shares[guest.id], self.active.clock)
                for vcpu in guest.vcpus:
                    if not guest.ended and not vcpu.asleep:
                        self.scheduler.woke((guest.id, vcpu.number))
        self.look_again()

    def set_page_sharing(self, share_pages: bool) -> None:
        """Look for equal pages from now on, or no longer: what is shared already stays so until somebody stores there."""
        self.scanner = self._scanner(share_pages)
        self.look_again()

    def set_overcommit(self, overcommit: bool) -> None:
        """From now on guests may be promised more than there is, or no longer: then all that was swapped out comes back.
        Where the technique allows it. Raises LabError while there is no room for what was promised."""
        overcommit = overcommit and self._moves_pages
        if overcommit == self.overcommits:
            return
        beyond = self.memory_used_mib - self.memory_mib
        if not overcommit and beyond > 0:
            raise LabError(
                "host-overcommitted",
                f"Its guests were promised {beyond} MiB more than the host has; move or remove some first.",
                beyond_mib=beyond,
            )
        self.overcommits = overcommit
        if overcommit:
            self.frames.reserve((self._shadow_mib << 20) // PAGE, self.frames.total // SPARED)
            return
        self.frames.reserve(0)
        for _, ram in sorted(self._memories().items()):
            ram.swap_in()
        self._ask_no_more()

    @property
    def _moves_pages(self) -> bool:
        """May a page of a guest get another frame or none, and the guest not know? On bare metal there is nobody to do it."""
        return self.technique is not None and not self.technique.names_frames

    @property
    def pages_swapped(self) -> int:
        """How many pages of its guests are on the swap device."""
        return sum(len(ram.swapped) for ram in self._memories().values())

    def _memories(self) -> dict[int, GuestRam]:
        """The memories that frames of this host are taken for, by guest."""
        guests = [self._beginning, *self.guests.values(), *self.staged.values()]
        return {guest.id: guest.vm.ram for guest in guests if isinstance(guest, VmGuest)}

    def _evict(self, keep: int | None) -> None:
        """Free a frame, because a guest needs one: of those that are spared or, when there are none, by swapping something
        out. The step in which this happens is the hart's last before the hypervisor's own (`_page_out`). Raises
        OutOfFramesError."""
        if not self.overcommits:
            raise OutOfFramesError
        if self.frames.use_spares(BATCH):
            self.pager.short = True
            self.interrupt_all()
            return
        freed = set(self.pager.evict(self._memories(), keep))
        for hart in self.harts:
            if (hart.reservation - RAM_BASE) // PAGE in freed:
                hart.reservation = NO_RESERVATION
        self.interrupt_all()

    def _scanner(self, share_pages: bool) -> PageScanner | None:
        return PageScanner(self.active.clock) if share_pages and self._moves_pages else None

    def guest(self, guest_id: int) -> Guest:
        return self.guests[guest_id]

    def remove_guest(self, guest_id: int) -> None:
        guest = self._concrete(guest_id)
        guest.close()
        del self.guests[guest_id]
        self.pager.forget(guest_id)
        self._ask_no_more()
        if isinstance(guest, VmGuest):
            self.scheduler.forget(guest_id)
            self.look_again()

    def power(self, guest_id: int, action: str) -> None:
        """on: start if it does not run; off: stop at once; reset: start again from the image."""
        guest = self._concrete(guest_id)
        if action == "off":
            guest.power_off()
            if isinstance(guest, VmGuest):
                self.unload_guest(guest)
        elif action == "reset" or guest.ended:
            guest.restart()

    def export_guest(self, guest_id: int) -> dict[str, Any]:
        """A guest with everything it is."""
        return self._concrete(guest_id).export()

    def import_guest(
        self, guest_id: int, image: LoadedImage, state: dict[str, Any], share: Share = DEFAULT_SHARE
    ) -> None:
        """Take over what `export_guest` gave: of a bare-metal host on one, of any other on any other. Raises LabError
        if it does not fit."""
        machine_mode = state["board"]["firmware"] is None
        guest = self._new(
            guest_id, image, state["vcpu_count"], state["memory_mib"], state["arguments"], machine_mode
        )
        self._admit(guest, share)  # first, so that its timers are set on this host's harts
        guest.take_over(state)

    def clone_guest(self, guest_id: int, clone_id: int) -> None:
        """Another VM that goes on from where this one is. Raises LabError if it does not fit."""
        original = self._concrete(guest_id)
        clone = self._new(
            clone_id, original.image, original.vcpu_count, original.memory_mib, original.arguments,
            original.machine_mode,
        )  # fmt: skip
        assert isinstance(original, VmGuest)
        assert isinstance(clone, VmGuest)
        self._admit(clone, self.scheduler.shares[guest_id])
        clone.become_clone(original)

    # -- migration (engine.hypervisor.migration) -----------------------------------------------------
    def stage(
        self, guest_id: int, image: LoadedImage, vcpus: int, memory_mib: int, arguments: str, machine_mode: bool
    ) -> VmGuest:
        """Room for a VM that will come. Raises LabError if it does not fit."""
        guest = self._new(guest_id, image, vcpus, memory_mib, arguments, machine_mode)
        assert isinstance(guest, VmGuest)
        self.staged[guest_id], self._beginning = guest, None
        return guest

    def unstage(self, guest_id: int) -> None:
        """Give back what `stage` or `send_off` kept."""
        self.staged.pop(guest_id).close()
        self.pager.forget(guest_id)
        self._ask_no_more()

    def send_off(self, guest_id: int) -> None:
        """A paused VM has no right to run here any more; its memory stays."""
        guest = self._concrete(guest_id)
        assert isinstance(guest, VmGuest)
        del self.guests[guest_id]
        self.scheduler.forget(guest_id)
        self.staged[guest_id] = guest

    def welcome(self, guest_id: int, state: dict[str, Any]) -> None:
        """A staged VM goes on here with what `VmGuest.portable` gave. On the hindmost hart's clock, so that no hart
        shows it a time that it has seen before."""
        guest = self.staged.pop(guest_id)
        self.active = min(self.harts, key=lambda hart: hart.clock)
        self._admit(guest, Share(*state["share"]))
        guest.take_over(state | {"pages": {}})

    def arrange(self, here: Iterable[int], staged: Iterable[int], make: Callable[[int], VmGuest]) -> None:
        """Have exactly these guests, in this order, before their state is loaded; `make` gives one that is new."""
        wanted = (list(here), list(staged))
        if wanted == (list(self.guests), list(self.staged)):
            return
        for place in (self.guests, self.staged):
            for guest_id in [guest_id for guest_id in place if guest_id not in wanted[place is self.staged]]:
                guest = place.pop(guest_id)
                assert isinstance(guest, VmGuest)
                guest.close()
        self.guests = {guest_id: self.guests.get(guest_id) or make(guest_id) for guest_id in wanted[0]}
        self.staged = {guest_id: self.staged.get(guest_id) or make(guest_id) for guest_id in wanted[1]}

    def _concrete(self, guest_id: int) -> BareMetalGuest | VmGuest:
        guest = self.guests[guest_id]
        assert isinstance(guest, BareMetalGuest | VmGuest)
        return guest

    def set_costs(self, costs: Costs) -> None:
        """What switches cost from now on."""
        self.routes = Routes(self.configuration, costs)
        for hart in self.harts:
            self._set_route(hart)

    def _set_route(self, hart: Hart) -> None:
        """Tell native code where the exits of the vCPU that is loaded go."""
        if self.technique is not None and self.loaded[hart.number] is not None:
            level = self.technique.kernel_level
            hart.exit_route = self.routes.packed(Exit.PRIVILEGED, level)
            hart.fill_route = self.routes.packed(Exit.FILL, level)

    def set_devices(self, devices: Devices) -> None:
        """A bare-metal system's board is the host's own."""
        self.bus.devices = devices

    def clear_memory(self) -> None:
        self.memory.load({})

    # -- time ----------------------------------------------------------------------------------------
    @property
    def time(self) -> int:
        """Virtual time that every hart has reached, ns."""
        return min(hart.clock for hart in self.harts)

    @property
    def position(self) -> int:
        return sum(hart.steps for hart in self.harts)

    def advance(self, time: int) -> None:
        """Let the clock of a host that has nothing to do before `time` jump there, if that lies ahead.

        Whether the last `run` ended with its last step or went on to see that there is nothing to do cannot
        be told after this.
        """
        for hart in self.harts:
            if self.loaded[hart.number] is not None:
                self._unload(hart)
            hart.extra += max(0, time - hart.clock)
        self.active = self.harts[0]
        self._turn = 0
        self._quantum_end = self.time + QUANTUM_NS

    def delay(self, hart: Hart, time: int) -> None:
        """Let time pass on a hart without a step: its guest cannot tell this from a modelled cost."""
        hart.extra += time
        hart.limit = 0

    @property
    def busy_from(self) -> int:
        """Clock from which there is something to do here: now, the next timer event, or NEVER (only input can
        help)."""
        if self.pager.pending or any(self._can_run(hart) for hart in self.harts):
            return self.time
        return max(self.time, self._next_event())

    @property
    def idle(self) -> bool:
        """Can nothing ever happen here again without input?"""
        return self.busy_from >= NEVER

    def run(self, steps: int, stop_after_traps: int | None = None, until: int = NEVER) -> int:
        """Execute up to `steps` steps; returns how many. Fewer when idle for ever, after `stop_after_traps`
        records, or when nothing is to be done before the clock `until` (ns); the clocks then stay where the
        last step left them."""
        begin = self.position
        end = begin + steps
        self._traps_left = _UNLIMITED if stop_after_traps is None else stop_after_traps
        self._until = until
        while (left := end - self.position) > 0 and self._traps_left > 0 and self.time < (until := self._until):
            if self._turn >= len(self.harts):
                if not self._next_quantum(until):
                    break
                continue
            hart = self.active = self.harts[self._turn]
            end_of_turn = min(self._quantum_end, until) if len(self.harts) > 1 else until
            if hart.clock >= end_of_turn:
                self._turn += 1
            elif self._page_out(hart) or self._pay(hart) or self._host_process(hart) or self._scan(hart):
                continue
            elif self._dispatch(hart):
                if not self.pager.pending:
                    self._advance_hart(hart, left, end_of_turn)
            elif self.busy_from >= until:
                break
            else:
                self._rest(hart, end_of_turn)
        self._traps_left = _UNLIMITED
        return self.position - begin

    def stop_at(self, clock: int) -> None:
        """Called from within `run`: let it end at `clock`, if it would not end earlier."""
        if clock < self._until:
            self._until = clock
            self.interrupt_all()

    # -- records of traps that native code took ------------------------------------------------------
    def record_natively(self, hart: Hart, guest: int, vcpu: int, started: int) -> None:
        """From now on traps that stay inside this guest need not leave native code; its board's time began at
        `started`."""
        hart.record_ids = self.id | guest << 16 | vcpu << 32
        hart.record_at = self._records.address
        hart.on_records = lambda: self._fetch_records(hart, guest)
        hart.time_started = started

    def record_in_python(self, hart: Hart) -> None:
        """No guest: nothing is recorded natively."""
        hart.record_at = hart.record_limit = 0

    def _fetch_records(self, hart: Hart, guest: int) -> None:
        interpreter = hart.interpreter
        assert interpreter is not None
        records, counts = self._records.numbered(hart, interpreter, self.trace.total(guest))
        self.trace.extend(guest, records, counts)
        self._traps_left -= hart.record_count
        self.guests[guest].exits += sum(
            count for key, count in counts.items() if key & 0xFF != Disposition.HARDWARE
        )
        hart.record_count = 0
        self._limit_records(hart)
        if self._traps_left <= 0:
            self.interrupt_all()

    def _limit_records(self, hart: Hart) -> None:
        hart.record_limit = max(0, min(NATIVE_RECORDS, self._traps_left)) if hart.record_at else 0

    def _advance_hart(self, hart: Hart, steps: int, end_of_turn: int) -> None:
        began = self._charged[hart.number] = hart.clock
        hart.leave = False
        hart.position_base = self.position_offset + self.position - hart.steps
        self._limit_records(hart)
        vcpu = self.loaded[hart.number]
        if vcpu is None or not (self._technique(vcpu).inject_pending(vcpu) or self.pager.pending):
            hart.run(steps, end_of_turn)
        self._charge(hart)
        self.busy_ns += hart.clock - began
        for guest in self.guests.values():
            if guest.reboot_requested:
                self._concrete(guest.id).restart()

    def _rest(self, hart: Hart, end_of_turn: int) -> None:
        """Nothing to run on this hart: its clock goes to its next event inside its turn, or to the turn's
        end."""
        wakes = self._wakes_at(hart)
        hart.extra += min(max(wakes, hart.clock + 1), end_of_turn) - hart.clock

    def _next_quantum(self, until: int) -> bool:
        """Begin a quantum; if every hart rests, that of the next event. False: there is none before
        `until`."""
        wakes = self.busy_from
        if wakes >= until:
            return False
        self._turn = 0
        self._quantum_end = max(self._quantum_end, self.time) + QUANTUM_NS
        if wakes > self._quantum_end:
            for hart in self.harts:
                hart.extra += max(0, wakes - hart.clock)
            self._quantum_end = wakes + QUANTUM_NS
        return True

    def interrupt_all(self) -> None:
        """A guest ended or wants to reboot: look at it before any further step."""
        for hart in self.harts:
            hart.leave = True
            hart.limit = 0

    # -- who runs ------------------------------------------------------------------------------------
    def _technique(self, vcpu: VCpu) -> Technique:
        return self._vm_of(vcpu).technique

    def _vm_of(self, vcpu: VCpu) -> VmGuest:
        owner = vcpu.vm.board.owner
        assert isinstance(owner, VmGuest)
        return owner

    def _can_run(self, hart: Hart) -> bool:
        """Is there something to execute on this hart now? Changes nothing that a guest could see."""
        if self.bare_metal:
            return any(not guest.ended for guest in self.guests.values()) and self._awake(hart)
        vcpu = self.loaded[hart.number]
        if vcpu is not None and not self._vm_of(vcpu).halted and vcpu.runnable:
            return True
        return any(self._ready_at(waiting, hart) <= hart.clock for waiting in self._off_hart())

    def _awake(self, hart: Hart) -> bool:
        hart.wake_if_pending()
        return not hart.stopped and not hart.waiting

    def _off_hart(self) -> list[VCpu]:
        """The vCPUs that have no hart and could want one some day."""
        return [
            vcpu
            for guest in self.guests.values()
            if isinstance(guest, VmGuest) and not guest.halted
            for vcpu in guest.vcpus
            if vcpu.hart is None
        ]

    def _ready_at(self, vcpu: VCpu, hart: Hart | None) -> int:
        """Clock from which a vCPU without a hart could have one: it is awake, and its guest's cap allows it. NEVER: only
        something from outside wakes it. hart: whose clock's timers are due."""
        guest = self._vm_of(vcpu)
        if vcpu.asleep and not vcpu.runnable:
            due = vcpu.deadline() + guest.started
            if hart is not None and due <= hart.clock:
                self._ring(vcpu, hart)
            if not vcpu.runnable:
                due = vcpu.deadline() + guest.started
                if not guest.board.timer_wakes(vcpu.number):
                    return NEVER
                return min(NEVER, max(due, self.scheduler.held_until(_key(vcpu, guest))))
        return self.scheduler.held_until(_key(vcpu, guest))

    def _ring(self, vcpu: VCpu, hart: Hart) -> None:
        """The timer of a sleeping vCPU is due on this hart's clock."""
        guest = self._vm_of(vcpu)
        due = vcpu.deadline() + guest.started
        previous, self.active = self.active, hart
        guest.board.update_timer(vcpu.number)
        self.active = previous
        if vcpu.runnable and vcpu.woken is None:
            vcpu.woken = max(due, vcpu.since)

    def woken(self, vcpu: VCpu) -> None:
        """Something happened that a vCPU without a hart may have waited for."""
        if vcpu.asleep and vcpu.woken is None and vcpu.runnable:
            vcpu.woken = self.active.clock
            self.look_again()

    def look_again(self) -> None:
        """Every hart asks the scheduler before its next instruction."""
        for hart in self.harts:
            if self.loaded[hart.number] is not None:
                self._slice_end[hart.number] = min(self._slice_end[hart.number], hart.clock)
                self.retime(hart)

    def _waiting(self, hart: Hart) -> VCpu | None:
        """Who should have this hart, of those that could and have none."""
        self.scheduler.advance(hart.clock)
        ready: dict[Key, VCpu] = {}
        for vcpu in self._off_hart():
            key = _key(vcpu, self._vm_of(vcpu))
            if self._ready_at(vcpu, hart) <= hart.clock:
                ready[key] = vcpu
                if vcpu.asleep:
                    vcpu.asleep = False
                    vcpu.since = hart.clock if vcpu.woken is None else vcpu.woken
                    vcpu.woken = None
                    self.scheduler.woke(key)
        return ready[self.scheduler.best(ready)] if ready else None

    def _plan(self, hart: Hart, vcpu: VCpu, waiting: VCpu | None) -> None:
        """When to look again whether this vCPU should have the hart. `waiting`: the best of the others."""
        now, key = hart.clock, _key(vcpu, self._vm_of(vcpu))
        best = None if waiting is None else _key(waiting, self._vm_of(waiting))
        at = min(
            self.scheduler.yield_at(key, best, self._began[hart.number], now), self.scheduler.lasts_until(key, now)
        )
        for other in self._off_hart():
            ready = self._ready_at(other, None)
            if now < ready < at:
                at = ready
        self._slice_end[hart.number] = max(at, now + 1)

    def _charge(self, hart: Hart) -> None:
        """The vCPU on a hart pays for what it ran since it last paid."""
        vcpu = self.loaded[hart.number]
        if vcpu is not None:
            ran = hart.clock - self._charged[hart.number]
            self._charged[hart.number] = hart.clock
            vcpu.ran += ran
            self.scheduler.ran(_key(vcpu, self._vm_of(vcpu)), ran)

    def _dispatch(self, hart: Hart) -> bool:
        """Make sure that the hart has something to execute. False: it has nothing."""
        if self.bare_metal:
            self._bare_timer(hart)
            return self._can_run(hart)
        vcpu = self.loaded[hart.number]
        if vcpu is not None and (self._vm_of(vcpu).halted or not vcpu.runnable):
            self._unload(hart)
            vcpu = None
        if vcpu is None:
            vcpu = self._waiting(hart)
            if vcpu is None:
                return False
            guest = self._vm_of(vcpu)
            self.scheduler.chosen(_key(vcpu, guest))
            vcpu.stolen += max(0, hart.clock - vcpu.since)
            self.loaded[hart.number] = vcpu
            if self.scanner is not None:
                self.scanner.postpone(hart.clock)
            self._began[hart.number] = hart.clock
            try:
                guest.tell_stolen(vcpu)
                guest.technique.enter(vcpu, hart)
            except OutOfFramesError:
                self._fail_for_memory(vcpu)
                if vcpu.hart is None:
                    self.loaded[hart.number] = None
                    vcpu.arrive(hart.clock)
                    self.scheduler.slept(_key(vcpu, guest))
                return self._dispatch(hart)
            self._set_route(hart)
            self._plan(hart, vcpu, self._waiting(hart))
        self.retime(hart)
        return True

    # -- the host's own processes --------------------------------------------------------------------
    @property
    def _host_share_ns(self) -> int:
        """How much of each period the host's processes take on each hart; 0 where there is no host system."""
        if STACKS[self.configuration.stack].hypervisor_type != 2:
            return 0
        return LOAD_PERIOD_NS * self.load_percent // 100

    def _host_process(self, hart: Hart) -> bool:
        """The share of the host's processes in a period comes first: one step, if a guest has to wait for it. What a
        guest left of it (an exit that lasted into it) is all that they get. False: it is over, or nobody waits."""
        left = self._host_share_ns - hart.clock % LOAD_PERIOD_NS
        if left <= 0 or not self._can_run(hart):
            return False
        if self.loaded[hart.number] is not None:
            self._unload(hart)
        hart.flush()
        hart.steps += 1
        hart.unretired += 1
        hart.extra += left - 1
        self.busy_ns += left
        return True

    # -- sharing of equal pages ----------------------------------------------------------------------
    def _scan_at(self) -> int:
        """Clock from which a scan for equal pages should take place; NEVER: not before something has run."""
        scanner = self.scanner
        return NEVER if scanner is None or not self.guests or scanner.rests(self.position) else scanner.due

    def _scan(self, hart: Hart) -> bool:
        """A scan for equal pages, if it is due: one step. A vCPU that runs is preempted first, with a record."""
        vcpu = self.loaded[hart.number]
        if hart.clock < self._scan_at() or (vcpu is not None and not self._vm_of(vcpu).halted and vcpu.runnable):
            return False
        scanner = self.scanner
        assert scanner is not None
        memories = {
            guest.id: guest.vm.ram
            for guest in self.guests.values()
            if isinstance(guest, VmGuest) and not guest.ended
        }
        found = scanner.scan(memories, self.position)
        hart.position_base = self.position_offset + self.position - hart.steps
        hart.steps += 1
        hart.unretired += 1
        if found.merged:
            guest = self.guests[found.guest]
            assert isinstance(guest, VmGuest)
            guest.shared(found.merged, found.freed)
        took = max(1, found.pages * PAGE_NS)
        hart.extra += took - 1
        self.busy_ns += took
        scanner.due, scanner.position = hart.clock + SCAN_PERIOD_NS, self.position
        return True

    # -- swapping ------------------------------------------------------------------------------------
    def _page_out(self, hart: Hart) -> bool:
        """What the hypervisor has to do for want of frames. Asking takes no time; writing the pages of one guest that were
        swapped out is one step, on the hart whose turn it is. False: nothing."""
        if self.pager.short:
            self.pager.short = False
            self._ask()
            return True
        written = self.pager.written
        if not written:
            return False
        guest_id = min(written)
        pages = written.pop(guest_id)
        hart.position_base = self.position_offset + self.position - hart.steps
        hart.steps += 1
        hart.unretired += 1
        guest = self.guests.get(guest_id)
        if isinstance(guest, VmGuest):
            guest.swapped(pages)
        hart.extra += pages * WRITE_NS - 1
        self.busy_ns += pages * WRITE_NS
        return True

    def _ask(self) -> None:
        """Ask guests for what is lacking, and those again that have not given all that they were asked for."""
        balloons = [
            (guest.vm.ram.pages, guest.board.balloon)
            for guest in self.guests.values()
            if isinstance(guest, VmGuest) and not guest.ended and guest.board.balloon is not None
        ]
        willing = [(pages, balloon) for pages, balloon in balloons if balloon.live and balloon.actual >= balloon.target]
        for _, balloon in balloons:
            if balloon.actual < balloon.target:
                balloon.remind()
        for pages, balloon in willing:
            more = -(-max(0, self.frames.lacking) // len(willing))
            balloon.ask(balloon.wished, min(balloon.target + more, pages - pages // LEFT))

    def _ask_no_more(self) -> None:
        """Somebody has gone: guests may have back what they were asked for."""
        for guest in self.guests.values():
            if isinstance(guest, VmGuest) and guest.board.balloon is not None:
                guest.board.balloon.ask(guest.board.balloon.wished, 0)

    def set_balloon(self, guest_id: int, mib: int) -> None:
        """From now on a guest's balloon should hold so much, if it has one."""
        balloon = self._concrete(guest_id).board.balloon
        if balloon is not None:
            balloon.ask((mib << 20) // PAGE, balloon.asked)

    def _pay(self, hart: Hart) -> bool:
        """What came for the guest on this hart from elsewhere outside any exit of it is waited for. False: nothing."""
        vcpu = self.loaded[hart.number]
        return vcpu is not None and self._vm_of(vcpu).wait(hart)

    def _fail_for_memory(self, vcpu: VCpu) -> None:
        self._vm_of(vcpu).fail(
            "out-of-memory", "The host has no memory left for the guest.", pc=f"{vcpu.pc:#x}"
        )

    def _unload(self, hart: Hart) -> None:
        vcpu = self.loaded[hart.number]
        assert vcpu is not None
        guest = self._vm_of(vcpu)
        guest.technique.leave(vcpu)
        self.loaded[hart.number] = None
        hart.next_event = NEVER
        vcpu.since, vcpu.woken = hart.clock, None
        vcpu.asleep = guest.ended or not vcpu.runnable
        if vcpu.asleep:
            self.scheduler.slept(_key(vcpu, guest))

    def unload_guest(self, guest: VmGuest) -> None:
        """Take a guest's vCPUs off the harts."""
        for hart in self.harts:
            vcpu = self.loaded[hart.number]
            if vcpu is not None and vcpu.vm is guest.vm:
                self._unload(hart)

    def put_to_sleep(self, guest: VmGuest) -> None:
        """Its vCPUs, which have no harts, do not wait for any."""
        for vcpu in guest.vcpus:
            vcpu.arrive(self.active.clock)
            self.scheduler.slept(_key(vcpu, guest))

    def end_slice(self, hart: Hart) -> None:
        """The vCPU on this hart gives the rest of its time slice up, to whoever the scheduler finds worth no less."""
        self._began[hart.number] = -NEVER
        self._slice_end[hart.number] = hart.clock
        self.retime(hart)

    # -- events --------------------------------------------------------------------------------------
    def retime(self, hart: Hart) -> None:
        """Set the clock at which the hart must stop for its timer or for the end of its slice."""
        if self.bare_metal:
            system = next(iter(self.guests.values()), None)
            hart.next_event = (
                NEVER if system is None else _clock_at(system.board.deadline(hart.number) + system.started)
            )
        else:
            vcpu = self.loaded[hart.number]
            if vcpu is None:
                return
            guest = self._vm_of(vcpu)
            machine = _clock_at(guest.board.machine_deadline(vcpu.number) + guest.started)
            others = min(machine, self._slice_end[hart.number])
            if self._host_share_ns:
                others = min(others, (hart.clock // LOAD_PERIOD_NS + 1) * LOAD_PERIOD_NS)
            if self.scanner is not None:
                others = min(others, self.scanner.due)
            supervisor = _clock_at(guest.board.supervisor_deadline(vcpu.number) + guest.started)
            hart.other_event, hart.next_event = others, min(others, supervisor)
        hart.limit = 0

    def _bare_timer(self, hart: Hart) -> None:
        for guest in self.guests.values():
            if hart.clock >= hart.next_event:
                guest.board.update_timer(hart.number)
                self.retime(hart)

    def _event(self, hart: Hart) -> None:
        """`next_event` is due while the hart executes."""
        if self.bare_metal:
            self._bare_timer(hart)
            return
        vcpu = self.loaded[hart.number]
        assert vcpu is not None
        if hart.clock % LOAD_PERIOD_NS < self._host_share_ns:
            self._preempt(hart, vcpu, OF_THE_HOST)
            return
        if self.scanner is not None and hart.clock >= self.scanner.due:
            self._preempt(hart, vcpu, SCANNING)
            return
        if hart.clock >= self._slice_end[hart.number]:
            self._charge(hart)
            waiting, key = self._waiting(hart), _key(vcpu, self._vm_of(vcpu))
            if self.scheduler.held_until(key) > hart.clock:
                self._preempt(hart, vcpu, CAP_REACHED)
                return
            if waiting is not None:
                other = self._vm_of(waiting)
                since = self._began[hart.number]
                if self.scheduler.yield_at(key, _key(waiting, other), since, hart.clock) <= hart.clock:
                    self._preempt(hart, vcpu, other.id)
                    return
            self._plan(hart, vcpu, waiting)
        if hart.clock >= self._timer_of(vcpu):
            self._technique(vcpu).timer(vcpu, None)
        else:
            self.retime(hart)

    def _preempt(self, hart: Hart, vcpu: VCpu, by: int) -> None:
        self._technique(vcpu).timer(vcpu, by)
        self._charge(hart)
        self._unload(hart)
        hart.leave = True

    def _timer_of(self, vcpu: VCpu) -> int:
        """Clock at which the vCPU's timer is due."""
        return _clock_at(vcpu.deadline() + self._vm_of(vcpu).started)

    def _wakes_at(self, hart: Hart) -> int:
        """Clock of the next timer event that could give this hart something to do."""
        if self.bare_metal:
            return min(
                (
                    guest.board.deadline(hart.number) + guest.started
                    for guest in self.guests.values()
                    if not guest.ended
                    and hart.number < guest.vcpu_count
                    and guest.board.timer_wakes(hart.number)
                ),
                default=NEVER,
            )
        return self._next_event()

    def _next_event(self) -> int:
        """Clock of the next timer event of anything that sleeps on this host; NEVER if there is none."""
        if self.bare_metal:
            return min((self._wakes_at(hart) for hart in self.harts), default=NEVER)
        waiting = [vcpu for vcpu in self.loaded if vcpu is not None and not self._vm_of(vcpu).halted]
        return min(
            (
                self._scan_at(),
                *(self._ready_at(vcpu, None) for vcpu in self._off_hart()),
                *(
                    vcpu.deadline() + self._vm_of(vcpu).started
                    for vcpu in waiting
                    if not vcpu.runnable and self._vm_of(vcpu).board.timer_wakes(vcpu.number)
                ),
            ),
            default=NEVER,
        )

    # -- records -------------------------------------------------------------------------------------
    def record(
        self,
        guest: int,
        vcpu: int,
        kind: Kind,
        cause: int,
        path: int,
        disposition: Disposition,
        action: Action,
        origin: Level,
        to: Level,
        time: int,
        pc: int,
        value: int,
        instruction: int,
        executed: int,
        cost: int,
        a: int,
        b: int,
    ) -> None:
        """Write a record for the step that the active hart is executing."""
        active = self.active
        self.trace.record(
            self.id, guest, vcpu, kind, cause, path, disposition, action, origin, to, time,
            active.position_base + active.steps - 1, pc, value, instruction, executed, cost, a, b,
        )  # fmt: skip
        self.recorded(active)

    def recorded(self, hart: Hart) -> None:
        """A record was written for the step that a hart is executing."""
        self._traps_left = left = self._traps_left - 1
        if left < NATIVE_RECORDS:
            self._limit_records(hart)
            if left <= 0:
                self.interrupt_all()

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        """Everything that decides what comes next. Memory pages are shared with earlier saves."""
        return {
            "memory": self.memory.save(),
            "harts": [hart.save() for hart in self.harts],
            "frames": self.frames.save(),
            "guests": {guest.id: guest.save() for guest in self.guests.values()},
            "staged": {guest.id: guest.save() for guest in self.staged.values()},
            "loaded": [None if vcpu is None else [self._vm_of(vcpu).id, vcpu.number] for vcpu in self.loaded],
            "scheduler": self.scheduler.save(),
            "began": list(self._began),
            "slice_end": list(self._slice_end),
            "turn": self._turn,
            "quantum_end": self._quantum_end,
            "busy_ns": self.busy_ns,
            "active": self.active.number,
            **({} if self.scanner is None else {"scanner": self.scanner.save()}),
            "pager": self.pager.save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the state that `save` gave for a host with the same guests."""
        for hart, saved in zip(self.harts, state["harts"], strict=True):
            hart.load(saved)
            hart.monitor = None
        self.active = self.harts[state["active"]]
        self.frames.load(state["frames"])
        if "pager" in state:  # a lab may have been saved before there was one
            self.pager.load(state["pager"])
        self.memory.load(state["memory"])
        self.loaded = [None] * len(self.harts)
        for guest_id, saved in state["guests"].items():
            self._concrete(guest_id).load(saved)
        if "scheduler" in state:  # lost with a lab that was saved before there were any: they begin anew
            self.scheduler.load(state["scheduler"])
        if self.scanner is not None:
            self.scanner.load(state["scanner"])
        for guest_id, saved in state.get("staged", {}).items():
            self.staged[guest_id].load(saved)
        for hart, entry in zip(self.harts, state["loaded"], strict=True):
            if entry is not None:
                guest = self.guests[entry[0]]
                assert isinstance(guest, VmGuest)
                vcpu = self.loaded[hart.number] = guest.vcpus[entry[1]]
                next_event, reservation, pending = hart.next_event, hart.reservation, hart.mip
                arrived = vcpu.virtual.arrived
                guest.technique.enter(vcpu, hart)
                hart.next_event, hart.reservation, hart.mip = next_event, reservation, pending
                vcpu.virtual.arrived = arrived
                self._set_route(hart)
        self._began, self._slice_end = list(state["began"]), list(state["slice_end"])
        self._turn, self._quantum_end = state["turn"], state["quantum_end"]
        self.busy_ns = state["busy_ns"]


def _key(vcpu: VCpu, guest: VmGuest) -> Key:
    return (guest.id, vcpu.number)


def _clock_at(time: int) -> int:
    """A time as a hart's clock can show it. One before the host was switched on is what a guest brings along
    whose timer was due already."""
    return 0 if time < 0 else time if time < NEVER else NEVER


def _too_little_memory(need: int, free: int, swap: int = 0) -> Problem:
    free = max(0, free)
    if swap:
        return Problem(
            "host-memory-and-swap",
            f"It needs {need} MiB, and of the host's RAM and its {swap} MiB of swap {free} MiB are free.",
            {"need_mib": need, "free_mib": free, "swap_mib": swap},
        )
    return Problem(
        "host-memory",
        f"It needs {need} MiB and the host has {free} MiB free.",
        {"need_mib": need, "free_mib": free},
    )


def _too_few_harts(need: int, have: int) -> Problem:
    return Problem(
        "host-harts", f"It needs {need} harts and the host has {have}.", {"need": need, "have": have}
    )


def _no_clock() -> int:
    return 0
