"""One guest under a debugger: it runs, stops, and goes back in time; nothing of it is about any protocol.

    history ●────────●──────●──○─ ─ ─ ─      ○ now: forward runs the world on, backward restores a checkpoint
                                                and runs again up to the place that was asked for

A run to a breakpoint is two runs of the same stretch. In the first a probe on every hart looks at the machine
before instructions and notes where it would have stopped; the second ends there. So a guest that is being
debugged executes exactly what it would have executed without, and its memory is never patched. For breakpoints the probe
looks at their addresses, and the rest runs natively; for watchpoints, for a step back, in the reference tier and where a
host translates its guests' code, it looks before each instruction, at some 100,000 a second. A stretch is short at first and
grows while nothing is found.

Invariants
- A breakpoint is a virtual address, compared with the pc of every vCPU before the instruction executes. The
  instruction that a vCPU stands at does not stop it again: a page that only the VMM had to map is no event.
- A watchpoint keeps the physical memory that its address meant when it was set; forward it stops after the
  instruction that changed it, backward before.
- A step ends where the vCPU's pc or its count of retired instructions differs: a trap entry is one.
- Writing a register or memory begins a new history: what the guest did before cannot lead there.
- Console output is shown once, however often a stretch is run.
- Running is cut into slices (the generators yield None), so that the caller can stop it at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from engine.commands import GuestSet
from engine.document import GuestRow, HostRow
from engine.history import History
from engine.hypervisor.binary_translation import BinaryTranslation
from engine.hypervisor.costs import DEFAULT_COSTS, Costs
from engine.hypervisor.guest import Guest
from engine.hypervisor.host import Host
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.csrs import CSRS, Csr
from engine.machine import csrfile
from engine.machine.hart import Hart
from engine.machine.loader import LoadedImage
from engine.machine.memory import PAGE
from engine.machine.privileged import MACHINE, SUPERVISOR, USER
from engine.machine.tiers import Tier
from engine.world import World

#: Stretches that are run at once: the first, how they grow, and the longest under a probe that looks before each
#: instruction and otherwise.
FIRST_STEPS, GROWTH = 64, 4
SLICE_STEPS, LONG_STEPS = 20_000, 1 << 20
#: Stops in a stretch of the past, each looked at in Python, after which a probe gives up and looks at the rest by itself.
MAX_HITS = 20_000
MAX_STOPS = 256
MAX_WATCHED_BYTES = PAGE

#: (address, length) of a watchpoint
Range = tuple[int, int]
#: What tells one moment of a vCPU from the next: (pc, instructions retired)
Moment = tuple[int, int]
#: A run that can be interrupted: None after each slice, at last why it stopped
Running = Iterator["Stop | None"]


class Stop(NamedTuple):
    """Why the guest stands still. `reason`: step, breakpoint, watchpoint, begin (of the history), exited or
    failed; `address`: of the watchpoint."""

    vcpu: int
    reason: str
    address: int = 0


class _Hit(NamedTuple):
    """A position at which the guest would have stopped."""

    position: int
    stop: Stop


class Subject(Protocol):
    """What a debugger works on: a world and its past, and how a change is made there (`poke` and what follows)."""

    @property
    def world(self) -> World: ...

    @property
    def history(self) -> History: ...

    def change(self, change: GuestSet) -> bool:
        """False, and nothing is changed, where nothing can be."""
        ...


class Alone:
    """A host with one guest that has not executed anything yet. Raises LabError when the host cannot take it."""

    def __init__(self, host: HostRow, guest: GuestRow, image: LoadedImage, tier: Tier, costs: Costs) -> None:
        self.output: Callable[[int, bytes], None] = _unheard
        self.world = World.build([host], [guest], lambda _name: image, self._print, tier, costs)
        self.history = History(self.world)

    def _print(self, guest: int, data: bytes) -> None:
        self.output(guest, data)

    def change(self, change: GuestSet) -> bool:
        changed = poke(self.world, change)
        if changed:
            self.history.rebase()
        return changed


class Debugger:
    """One guest of `subject`."""

    def __init__(self, subject: Subject, guest: int, show: Callable[[bytes], None] | None = None) -> None:
        self._subject = subject
        self.breakpoints: set[int] = set()
        self.watchpoints: dict[Range, list[Range]] = {}  # by virtual range: the physical ones it means
        self._id = guest
        self._show = show
        self._shown = 0  # position up to which output was shown
        self._printed: bytearray | None = None

    @classmethod
    def alone(
        cls, host: HostRow, guest: GuestRow, image: LoadedImage, show: Callable[[bytes], None], tier: Tier = Tier.JIT,
        costs: Costs = DEFAULT_COSTS,
    ) -> Debugger:
        """A debugger with a world of its own; `show` gets what the guest prints, each byte once."""
        subject = Alone(host, guest, image, tier, costs)
        made = cls(subject, guest.id, show)
        subject.output = made._print
        return made

    @property
    def world(self) -> World:
        return self._subject.world

    @property
    def history(self) -> History:
        return self._subject.history

    @property
    def guest(self) -> Guest:
        return self.world.guest(self._id)

    @property
    def host(self) -> Host:
        return self.world.hosts[self.world.homes[self._id]]

    @property
    def waits(self) -> bool:
        """Can nothing happen without input?"""
        return self.world.idle

    # -- looking -------------------------------------------------------------------------------------
    def hart(self, vcpu: int) -> Hart:
        """The architectural state that the guest believes in. For looking only."""
        return self.guest.hart(vcpu)

    def read(self, vcpu: int, address: int, length: int) -> bytes:
        """Memory at a virtual address, up to the first byte that is not mapped RAM."""
        found = bytearray()
        for at, size in _pages(address, length):
            part = self.guest.read(vcpu, at, size, physical=False)
            if part is None:
                break
            found += part
        return bytes(found)

    # -- changing ------------------------------------------------------------------------------------
    def write(self, vcpu: int, address: int, data: bytes) -> bool:
        """Store through the guest's translation, whatever its pages permit. False, and nothing is changed,
        where no RAM is mapped."""
        return self._change(GuestSet(self._id, "memory", address, data=data, vcpu=vcpu))

    def set_register(self, vcpu: int, number: int, value: int) -> None:
        """x0 to x31; 32 is pc. x0 stays zero."""
        self._change(GuestSet(self._id, "x", number, value, vcpu=vcpu))

    def set_float(self, vcpu: int, number: int, value: int) -> None:
        """f0 to f31, as 64 bits."""
        self._change(GuestSet(self._id, "f", number, value, vcpu=vcpu))

    def set_csr(self, vcpu: int, row: Csr, value: int) -> bool:
        """Write what may be written (WARL). False for a read-only register."""
        return self._change(GuestSet(self._id, "csr", row.number, value, vcpu=vcpu))

    def set_privilege(self, vcpu: int, privilege: int) -> bool:
        return self._change(GuestSet(self._id, "privilege", value=privilege, vcpu=vcpu))

    def _change(self, change: GuestSet) -> bool:
        changed = self._subject.change(change)
        if changed:
            self._shown = self.world.position
        return changed

    def receive(self, data: bytes) -> None:
        """Bytes typed on the guest's console."""
        self.history.submit(self._id, data=data)

    # -- where to stop -------------------------------------------------------------------------------
    def watch(self, vcpu: int, address: int, length: int) -> bool:
        """False where no RAM is mapped, or where it is too much to watch."""
        ranges = self._physical(vcpu, address, length) if 0 < length <= MAX_WATCHED_BYTES else None
        if ranges is None or len(self.watchpoints) >= MAX_STOPS:
            return False
        self.watchpoints[address, length] = ranges
        return True

    def stop_at(self, address: int) -> bool:
        """Set a breakpoint. False when there are too many."""
        if len(self.breakpoints) >= MAX_STOPS:
            return False
        self.breakpoints.add(address)
        return True

    def _physical(self, vcpu: int, address: int, length: int) -> list[Range] | None:
        return _physical(self.guest, vcpu, address, length)

    # -- forward -------------------------------------------------------------------------------------
    def go(self) -> Running:
        """Run until something stops the guest. Goes on yielding None while it waits for input."""
        eye = _Eye(self, backward=False) if self.breakpoints or self.watchpoints else None
        steps = FIRST_STEPS
        while not self.guest.ended:
            begin = self.world.position
            self._run(steps, eye)
            steps = self._longer(steps, eye)
            if eye is not None:
                eye.look_once_more()
            if eye is not None and eye.first is not None:
                self._printed = None
                self.history.seek(begin)
                while self.world.position < eye.first.position:
                    self._run(eye.first.position - self.world.position, None)
                self._show_printed()
                yield eye.first.stop
                return
            self._show_printed()
            if not self.guest.ended:
                yield None
        yield self._ending()

    def step(self, vcpu: int) -> Running:
        """One step of this vCPU; the others go on beside it and stop for nothing."""
        before, done = self._moment(vcpu), 0
        while not self.guest.ended and (self._moment(vcpu) == before or not self.guest.settled(vcpu)):
            self._run(1, None)
            self._show_printed()
            done += 1
            if self.waits or done % SLICE_STEPS == 0:
                yield None
        yield self._ending() if self.guest.ended else Stop(vcpu, "step")

    @staticmethod
    def _longer(steps: int, eye: _Eye | None) -> int:
        """How long the next stretch is when nothing was found in one of so many steps."""
        return min(steps * GROWTH, LONG_STEPS if eye is None or eye.stops is not None else SLICE_STEPS)

    def _run(self, steps: int, eye: _Eye | None) -> None:
        """Run on, keeping what is printed for the first time."""
        seen = self._shown - self.world.position
        if seen <= 0:
            self._printed = self._printed or bytearray()
        with self._looking(eye):
            self.history.run(min(steps, seen) if seen > 0 else steps)

    def _print(self, _guest: int, data: bytes) -> None:
        if self._printed is not None:
            self._printed += data

    def _show_printed(self) -> None:
        printed, self._printed = self._printed, None
        self._shown = max(self._shown, self.world.position)
        if printed and self._show is not None:
            self._show(bytes(printed))

    def _ending(self) -> Stop:
        return Stop(0, "exited" if self.guest.failure is None else "failed")

    def _moment(self, vcpu: int) -> Moment:
        hart = self.guest.hart(vcpu)
        return hart.pc, hart.retired

    # -- backward ------------------------------------------------------------------------------------
    def go_back(self) -> Running:
        """Go back to the latest place where a run would have stopped, or to where the history begins."""
        end = self.world.position
        eye = _Eye(self, backward=True)
        steps = FIRST_STEPS
        while end > self.history.begin:
            begin = max(self.history.begin, end - steps)
            if steps >= LONG_STEPS:
                begin = self.history.checkpoint_before(end)
            steps = self._longer(steps, eye)
            yield from self._replay(begin, end, eye)
            found = eye.last
            while eye.gave_up and found is not None:
                yield from self._replay(found.position + 1, end, eye)
                found = eye.last or found
            if found is not None:
                self.history.seek(found.position)
                yield found.stop
                return
            end = begin
            self.history.seek(end)
            yield None
        yield Stop(0, "begin")

    def step_back(self, vcpu: int) -> Running:
        """Take back this vCPU's latest step."""
        now, end = self._moment(vcpu), self.world.position
        steps = FIRST_STEPS
        while end > self.history.begin:
            begin = max(self.history.begin, end - steps)
            eye = _Eye(self, backward=True, every_step_of=vcpu)
            steps = self._longer(steps, eye)
            yield from self._replay(begin, end, eye)
            begin = begin if eye.last is None else eye.last.position
            self.history.seek(begin)
            found = None
            while self.world.position < end:
                if self._moment(vcpu) != now and self.guest.settled(vcpu):
                    found = self.world.position
                self.history.run(1)
            if found is not None:
                self.history.seek(found)
                yield Stop(vcpu, "step")
                return
            end = begin
            self.history.seek(end)
            yield None
        yield Stop(vcpu, "begin")

    def _replay(self, begin: int, end: int, eye: _Eye) -> Iterator[None]:
        """Run a stretch of the past under an eye."""
        self.history.seek(begin)
        eye.begin()
        with self._looking(eye):
            while self.world.position < end:
                self.history.run(min(end - self.world.position, LONG_STEPS))
                if self.world.position < end:
                    yield None
        eye.look_once_more()

    @contextmanager
    def _looking(self, eye: _Eye | None) -> Iterator[None]:
        self._look(eye)
        try:
            yield
        finally:
            self._look(None)

    def _look(self, eye: _Eye | None) -> None:
        """Let `eye` look at the harts of all hosts: a guest that migrates goes on elsewhere within a stretch."""
        for host in self.world.hosts.values():
            for hart in host.harts:
                hart.look(eye, None if eye is None else eye.stops)


class _Eye:
    """Looks before instructions of a stretch, and notes where the guest would have stopped: `first` and `last`.
    every_step_of: note each attempt of that vCPU instead of breakpoints and watchpoints. stops: the addresses at which it
    has to look; None: everywhere. gave_up: has it noted as many as it may, and looked no more?"""

    def __init__(self, debugger: Debugger, backward: bool, every_step_of: int | None = None) -> None:
        self.first: _Hit | None = None
        self.last: _Hit | None = None
        self._debugger = debugger
        self._backward = backward
        self._every_step_of = every_step_of
        self._breakpoints = frozenset(debugger.breakpoints)
        self._watched = dict(debugger.watchpoints) if every_step_of is None else {}
        self._standing = {vcpu: debugger._moment(vcpu) for vcpu in range(debugger.guest.vcpu_count)}
        elsewhere = any(
            host.technique is BinaryTranslation or host.active.interpreter is None for host in debugger.world.hosts.values()
        )
        everywhere = every_step_of is not None or bool(self._watched) or elsewhere
        self.stops = None if everywhere else self._breakpoints
        self._values: dict[Range, bytes] = {}
        self._attempt = (0, 0)  # position and vCPU of the latest one
        self.begin()

    def begin(self) -> None:
        """A stretch begins here."""
        self.first = self.last = None
        self._hits = 0
        self.gave_up = False
        self._values = {key: self._value(key) for key in self._watched}
        self._attempt = (self._position, 0)

    @property
    def _position(self) -> int:
        host = self._debugger.host
        return host.position_offset + host.position

    def __call__(self, hart: Hart) -> None:
        host, guest = self._debugger.host, self._debugger.guest
        if hart.number >= len(host.harts) or host.harts[hart.number] is not hart:
            return  # of another host
        loaded = host.loaded[hart.number]
        if loaded is not None and loaded.vm.board.owner is not guest:
            return  # somebody else's turn
        vcpu = hart.number if loaded is None else loaded.number
        if self._every_step_of is not None:
            if vcpu == self._every_step_of and guest.settled(vcpu):
                self._note(self._position, Stop(vcpu, "step"))
            return
        if self._watched:
            self._look_at_values()
        if not guest.settled(vcpu):
            return
        if self._breakpoints:
            moment = self._debugger._moment(vcpu)
            if moment[0] in self._breakpoints and moment != self._standing[vcpu]:
                self._note(self._position, Stop(vcpu, "breakpoint"))
        self._attempt = (self._position, vcpu)

    def look_once_more(self) -> None:
        """The stretch is over: its last instruction may have changed something."""
        self._look_at_values()

    def _look_at_values(self) -> None:
        for key, before in self._values.items():
            value = self._value(key)
            if value != before:
                self._values[key] = value
                position, vcpu = self._attempt
                if not self._backward:
                    position = self._position
                self._note(position, Stop(vcpu, "watchpoint", key[0]))

    def _value(self, key: Range) -> bytes:
        ram = self._debugger.guest.board.ram
        return b"".join(ram.read(address, length) for address, length in self._watched[key])

    def _note(self, position: int, stop: Stop) -> None:
        self.last = _Hit(position, stop)
        self.first = self.first or self.last
        self._hits += 1
        if self.stops is not None and (not self._backward or self._hits >= MAX_HITS):
            self.gave_up = True
            self._debugger._look(None)


def poke(world: World, change: GuestSet) -> bool:
    """Make a debugger's change. False, and nothing is changed, where nothing can be. The past of this world does not
    lead to what it is now."""
    guest, vcpu = world.guest(change.guest), change.vcpu
    if not 0 <= vcpu < guest.vcpu_count:
        return False
    if change.place == "memory":
        ranges = _physical(guest, vcpu, change.number, len(change.data))
        done = 0
        for at, size in ranges or ():
            guest.board.ram.write(at, change.data[done : done + size])
            done += size
        return ranges is not None
    csr = CSRS.get(change.number) if change.place == "csr" else None
    possible = {
        "x": change.number <= 32,
        "f": change.number < 32,
        "csr": csr is not None and not csr.read_only,
        "privilege": change.value in (USER, SUPERVISOR, MACHINE) and not (
            isinstance(guest, VmGuest) and guest.technique.refuses(change.value == MACHINE, guest.image.paravirtual)
        ),
    }
    if not possible[change.place]:
        return False
    if isinstance(guest, VmGuest):  # off its host hart, so that the change is entered like any other
        world.hosts[world.homes[change.guest]].unload_guest(guest)
    hart = guest.hart(vcpu)
    match change.place:
        case "x" if change.number == 32:
            hart.pc = change.value & ~1
        case "x" if change.number:
            hart.x[change.number] = change.value
        case "f":
            hart.f[change.number] = change.value
        case "csr" if csr is not None:
            csrfile.store(hart, csr, change.value)
        case "privilege":
            hart.privilege = change.value
            hart.refresh()
    return True


def _physical(guest: Guest, vcpu: int, address: int, length: int) -> list[Range] | None:
    """The physical ranges that a virtual one means now; None where no RAM is mapped."""
    found = []
    for at, size in _pages(address, length):
        physical = guest.physical(vcpu, at)
        if physical is None:
            return None
        found.append((physical, size))
    return found


def _unheard(_guest: int, _data: bytes) -> None:
    """Nobody listens yet."""


def _pages(address: int, length: int) -> Iterator[Range]:
    """A virtual range cut at page ends. It ends with the address space."""
    end = min(address + length, 1 << 64)
    while address < end:
        size = min(end - address, PAGE - address % PAGE)
        yield address, size
        address += size
