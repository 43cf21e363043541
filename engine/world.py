"""The hosts of a lab as one deterministic machine: state plus inputs give the next state, and nothing else
does.

    World ── position (steps so far), whose turn it is, when the epoch ends
      ├─ Host 1 ── guests ...        one step: an instruction attempt or an interrupt taken, on one hart
      ├─ Host 2 ── guests ...
      ├─ Switch     connects the guests' network cards, whatever host they are on
      ├─ Trace      the records of every guest: exact counters, and the latest in full
      └─ Scrollback of every guest's console

Hosts advance in epochs of virtual time (`EPOCH_NS`), in the order of their ids: nothing crosses between hosts
inside an epoch, so their order inside it cannot be seen by a guest. The turn and the epoch's end are part of
the state and change only together with a step or an input. So stopping, saving or looking at any position
changes nothing that comes after it.

While one host alone has something to do, its epoch lasts longer, up to LONE_EPOCH_NS, but ends as it would have
otherwise as soon as anything leaves the host or comes in. So what a guest sees of another is never later than with
epochs of EPOCH_NS.

Frames that guests send arrive when the epoch ends, also on their own host: as soon as no host has anything to
do before its end, with the step that brought that about. So whoever looks at a position always finds them
either all on their way or all delivered.

A migration (engine.hypervisor.migration) has its events at epochs' ends, too. Each is a step, taken when no host has
anything to do before it, and the one that lets a guest go on elsewhere changes `homes`: which guest is where is part
of the state.

A host that sleeps, until its next timer event or for ever, has no turns and its clock stands still. When
input reaches it, its clock first jumps to the lab's time. An epoch in which every host sleeps is left out.

Structure (which hosts and guests exist) is not in `save()`, but where the guests are: a world is built from the
document's rows and then loaded. Everything here runs on one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.commands import LabError
from engine.devices.switch import Switch
from engine.document import GuestRow, HostRow
from engine.hypervisor.costs import DEFAULT_COSTS, Costs
from engine.hypervisor.guest import Guest
from engine.hypervisor.host import Host
from engine.hypervisor.migration import DONE, PULLING, Migration, Plan, Progress
from engine.hypervisor.vm_guest import VmGuest
from engine.machine.loader import LoadedImage
from engine.machine.state import NEVER
from engine.machine.tiers import Tier
from engine.trace.rings import Trace

EPOCH_NS = 50_000
LONE_EPOCH_NS = 200 * EPOCH_NS
SCROLLBACK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Ran:
    """What a call of run() did."""

    steps: int
    traps: int
    idle: bool  # nothing can ever happen again without input
    virtual_ns: int  # by how much the lab's time went on


class Scrollback:
    """The last `SCROLLBACK_BYTES` that a guest wrote to its console, kept so that a snapshot shares the old
    part.
    """

    _CHUNK = 1024

    def __init__(self, content: bytes = b"") -> None:
        self._chunks: deque[bytes] = deque([content] if content else ())
        self._size = len(content)
        self._tail = bytearray()

    def append(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) >= self._CHUNK:
            self._chunks.append(bytes(self._tail))
            self._size += len(self._tail)
            self._tail.clear()
            while self._size - len(self._chunks[0]) >= SCROLLBACK_BYTES:
                self._size -= len(self._chunks.popleft())

    def content(self) -> bytes:
        return (b"".join(self._chunks) + self._tail)[-SCROLLBACK_BYTES:]

    def save(self) -> list[bytes]:
        return [*self._chunks, bytes(self._tail)]

    @classmethod
    def load(cls, chunks: list[bytes]) -> Scrollback:
        self = cls()
        self._chunks.extend(chunks[:-1])
        self._size = sum(map(len, self._chunks))
        self._tail = bytearray(chunks[-1])
        return self


def anew(state: Mapping[str, Any]) -> dict[str, Any]:
    """A guest's state (as `World.export_guest` gives it) for a guest that begins with it: what was recorded
    of the other one is not its own."""
    kept = {**state["kept"], "trace": Trace().save_guest(0)}
    return {"machine": {**state["machine"], "exits": 0, "started": 0}, "kept": kept}


class World:
    """See the module. `images` finds a loaded image by the id in a guest's row; `output` is told what guests
    print. No guest can tell the `tier`.
    """

    def __init__(
        self,
        images: Callable[[str], LoadedImage],
        output: Callable[[int, bytes], None],
        tier: Tier = Tier.JIT,
        costs: Costs = DEFAULT_COSTS,
    ) -> None:
        self.trace = Trace()
        self.switch = Switch()
        self.hosts: dict[int, Host] = {}
        self.homes: dict[int, int] = {}  # guest -> host
        self.consoles: dict[int, Scrollback] = {}
        self.migrations: dict[int, Progress] = {}  # of each guest the latest
        self.position = 0
        self._rows: dict[int, GuestRow] = {}  # what each guest is, wherever it runs
        self._moving: dict[int, Migration] = {}  # those of `migrations` that go on
        self._images = images
        self._output = output
        self._tier = tier
        self._costs = costs
        self._turn = 0
        self._epoch_end = 0
        self._cut = 0  # while a host runs: where the epoch has to end now

    @classmethod
    def build(
        cls,
        hosts: list[HostRow],
        guests: list[GuestRow],
        images: Callable[[str], LoadedImage],
        output: Callable[[int, bytes], None],
        tier: Tier = Tier.JIT,
        costs: Costs = DEFAULT_COSTS,
    ) -> World:
        """A world in which every guest is about to start from its image."""
        self = cls(images, output, tier, costs)
        for host in sorted(hosts, key=lambda row: row.id):
            self.add_host(host)
        for guest in sorted(guests, key=lambda row: row.id):
            self.add_guest(guest)
        return self

    # -- structure -----------------------------------------------------------------------------------
    def add_host(self, row: HostRow) -> None:
        """A host without guests, whose clock shows the lab's time."""
        host = Host(
            row.id, row.harts, row.memory_mib, row.configuration, self.trace, self._console, self._transmit, self._tier,
            self._costs, row.host_load, row.scheduler, row.share_pages, row.overcommit,
        )  # fmt: skip
        host.advance(self.time)
        self.hosts = dict(sorted({**self.hosts, row.id: host}.items()))

    def replace_host(self, row: HostRow) -> None:
        """Another machine, without guests, in the place of a host."""
        now = self.time
        self._settle_host(row.id)
        del self.hosts[row.id]
        self.add_host(row)
        self.hosts[row.id].advance(now)

    def set_costs(self, costs: Costs) -> None:
        """What switches cost from now on."""
        self._costs = costs
        for host in self.hosts.values():
            host.set_costs(costs)

    def convert_host(self, row: HostRow, guests: list[GuestRow], carry: bool) -> None:
        """Another machine in the place of a host, with the same guests: as they are, or switched off. Raises LabError
        when it cannot take one; then nothing has changed."""
        before = self.hosts[row.id]
        self.replace_host(row)
        after = self.hosts[row.id]
        try:
            for guest in guests:
                image = self._images(guest.image)
                if carry:
                    after.import_guest(guest.id, image, before.export_guest(guest.id), guest.share)
                else:
                    after.add_guest(guest.id, image, guest.vcpus, guest.memory_mib, guest.arguments, guest.share)
                    after.set_balloon(guest.id, guest.balloon_mib)
                    after.power(guest.id, "off")
        except LabError:
            self.hosts[row.id] = before
            raise

    def set_share(self, row: GuestRow) -> None:
        """A guest's part of its host's harts is from now on what its row says."""
        self._rows[row.id] = row
        self._waken(self.homes[row.id]).set_share(row.id, row.share)

    def set_balloon(self, row: GuestRow) -> None:
        """A guest's balloon should hold from now on what its row says."""
        self._rows[row.id] = row
        self._waken(self.homes[row.id]).set_balloon(row.id, row.balloon_mib)

    def remove_host(self, host: int) -> None:
        self._settle_host(host)
        for guest in [guest for guest, home in self.homes.items() if home == host]:
            self.remove_guest(guest)
        del self.hosts[host]

    def export_host(self, host: int) -> dict[str, Any]:
        """A host with its guests, for `import_host`. No migration goes on there any more."""
        self._settle_host(host)
        guests = [guest for guest, home in self.homes.items() if home == host]
        return {"machine": self.hosts[host].save(), "kept": {guest: self._kept(guest) for guest in guests}}

    def import_host(self, row: HostRow, guests: list[GuestRow], state: dict[str, Any]) -> None:
        """Bring a host back as `export_host` found it."""
        self.add_host(row)
        for guest in guests:
            self.add_guest(guest)
            self._keep(guest.id, state["kept"][guest.id])
        self.hosts[row.id].load(state["machine"])

    def add_guest(self, row: GuestRow) -> None:
        """Start a guest from its image. Raises LabError when the host cannot take it."""
        self.consoles[row.id] = Scrollback()
        self.homes[row.id], self._rows[row.id] = row.host, row
        try:
            self._waken(row.host).add_guest(
                row.id, self._images(row.image), row.vcpus, row.memory_mib, row.arguments, row.share
            )
        except LabError:
            del self.consoles[row.id], self.homes[row.id], self._rows[row.id]
            raise
        self.hosts[row.host].set_balloon(row.id, row.balloon_mib)
        self.switch.plug(row.id)

    def remove_guest(self, guest: int) -> None:
        self._settle_guest(guest)
        self.migrations.pop(guest, None)
        self.switch.unplug(guest)
        self.hosts[self.homes.pop(guest)].remove_guest(guest)
        self.trace.remove(guest)
        del self.consoles[guest], self._rows[guest]

    def export_guest(self, guest: int) -> dict[str, Any]:
        """Everything that a guest is, with its records and its console, for `import_guest`."""
        return {"machine": self.hosts[self.homes[guest]].export_guest(guest), "kept": self._kept(guest)}

    def import_guest(self, row: GuestRow, state: dict[str, Any]) -> None:
        """Bring a guest back as `export_guest` found it. Raises LabError when the host cannot take it."""
        self._waken(row.host).import_guest(row.id, self._images(row.image), state["machine"], row.share)
        self.homes[row.id], self._rows[row.id] = row.host, row
        self.switch.plug(row.id)
        self._keep(row.id, state["kept"])

    def clone_guest(self, row: GuestRow, original: int) -> None:
        """A new guest that goes on from where another is: on the same hypervisor on its memory, as long as
        neither stores there, elsewhere on a copy. Raises LabError when the host cannot take it."""
        if self.homes[original] == row.host:
            self._waken(row.host).clone_guest(original, row.id)
            self.homes[row.id], self._rows[row.id] = row.host, row
            self.consoles[row.id] = Scrollback.load(self.consoles[original].save())
        else:
            self.import_guest(row, anew(self.export_guest(original)))

    def move_guest(self, row: GuestRow) -> None:
        """Stop a guest, carry it to the host that its row now names, and let it go on there."""
        self._settle_guest(row.id)
        source = self.hosts[self.homes[row.id]]
        state = source.export_guest(row.id)
        source.remove_guest(row.id)
        self._waken(row.host).import_guest(row.id, self._images(row.image), state, row.share)
        self.homes[row.id] = row.host

    # -- migration -----------------------------------------------------------------------------------
    def migrate(self, guest: int, plan: Plan) -> None:
        """Begin to move a running VM that is not moving yet. Raises LabError when the target cannot take it."""
        vm = self.guest(guest)
        assert isinstance(vm, VmGuest)
        problem = self.hosts[plan.host].fits(vm.vcpu_count, vm.memory_mib, vm.machine_mode, vm.image.paravirtual)
        if problem is not None:
            raise LabError(problem.key, problem.message, **problem.params)
        source = self._waken(self.homes[guest])
        target = self._waken(plan.host)
        self._moving[guest] = Migration.begin(vm, source, target, plan, self.time, _end_of_epoch)
        self.migrations[guest] = self._moving[guest].progress
        self._tidy(guest)
        self._settle()

    def cancel_migration(self, guest: int) -> None:
        """The guest goes on where it is. The migration has begun and not switched yet."""
        self._waken(self.homes[guest])
        self._moving[guest].cancel(self.time)
        self._tidy(guest)
        self._settle()

    def _tidy(self, guest: int) -> None:
        if not self.migrations[guest].active:
            del self._moving[guest]

    def _settle_guest(self, guest: int, reason: str = "guest-changed") -> None:
        """A guest is about to change: end its migration."""
        migration = self._moving.get(guest)
        if migration is not None:
            migration.settle(self.time, reason)
            self._tidy(guest)

    def _settle_host(self, host: int) -> None:
        """A host is about to change or go: end every migration that it takes part in."""
        for guest, migration in list(self._moving.items()):
            if host in (migration.progress.source, migration.progress.plan.host):
                self._settle_guest(guest, "host-changed")

    def _next_migration(self) -> Migration | None:
        """The one whose event is due first."""
        return min(self._moving.values(), key=lambda it: (it.progress.due_ns, it.progress.guest), default=None)

    def _migration_event(self, migration: Migration) -> None:
        progress = migration.progress
        for host in (progress.source, progress.plan.host):
            self._advanced(self.hosts[host], progress.due_ns)
        self._epoch_end, self._turn = progress.due_ns, 0
        migration.event()
        if progress.phase in (PULLING, DONE):
            self.homes[progress.guest] = progress.plan.host
        self._tidy(progress.guest)
        self.position += 1

    def _kept(self, guest: int) -> dict[str, Any]:
        return {"trace": self.trace.save_guest(guest), "console": self.consoles[guest].save()}

    def _keep(self, guest: int, kept: dict[str, Any]) -> None:
        self.trace.load_guest(guest, kept["trace"])
        self.consoles[guest] = Scrollback.load(kept["console"])

    # -- time ----------------------------------------------------------------------------------------
    @property
    def time(self) -> int:
        """The lab's virtual time: that of its foremost host, ns."""
        return max((host.time for host in self.hosts.values()), default=0)

    @property
    def idle(self) -> bool:
        return not self._moving and all(host.idle for host in self.hosts.values())

    def run(self, steps: int, stop_after_traps: int | None = None) -> Ran:
        """Execute up to `steps` steps; fewer when everything is idle or `stop_after_traps` records were
        written.
        """
        begin, began, recorded = self.position, self.time, self.trace.written
        turn, epoch_end = self._turn, self._epoch_end
        busy_from = {host.id: host.busy_from for host in self.hosts.values()}
        while True:
            if self.switch.pending and min(busy_from.values()) >= self._epoch_end:
                self._deliver()
                busy_from = {host.id: host.busy_from for host in self.hosts.values()}
            left = begin + steps - self.position
            if left <= 0:
                break
            traps = self.trace.written - recorded
            if stop_after_traps is not None and traps >= stop_after_traps:
                break
            turn = next((host for host, at in busy_from.items() if host >= turn and at < epoch_end), 0)
            if not turn:
                migration = self._next_migration()
                due = NEVER if migration is None else migration.progress.due_ns
                if migration is not None and min(busy_from.values()) >= due:
                    self._migration_event(migration)
                    turn, epoch_end = self._turn, self._epoch_end
                    busy_from = {host.id: host.busy_from for host in self.hosts.values()}
                    continue
                soonest, second, *_ = sorted((*busy_from.values(), NEVER, NEVER))
                if soonest >= NEVER:
                    break
                alone_until = min(second // EPOCH_NS * EPOCH_NS, soonest // EPOCH_NS * EPOCH_NS + LONE_EPOCH_NS)
                epoch_end = min(max(_end_of_epoch(soonest), alone_until), due)
                continue
            host = self.hosts[turn]
            host.position_offset = self.position - host.position
            self._cut = epoch_end
            done = host.run(left, None if stop_after_traps is None else stop_after_traps - traps, epoch_end)
            epoch_end = min(epoch_end, self._cut)
            busy_from[turn] = host.busy_from
            if done:
                self.position += done
                self._turn, self._epoch_end = turn, epoch_end
        return Ran(self.position - begin, self.trace.written - recorded, self.idle, self.time - began)

    # -- input ---------------------------------------------------------------------------------------
    def guest(self, guest: int) -> Guest:
        return self.hosts[self.homes[guest]].guests[guest]

    def receive(self, guest: int, data: bytes) -> None:
        """Bytes typed on a guest's console."""
        self._waken(self.homes[guest]).guests[guest].receive(data)
        self._settle()

    def power(self, guest: int, action: str) -> None:
        """on, off or reset, as `commands.GuestPower` says."""
        self._waken(self.homes[guest]).power(guest, action)
        self._settle()

    def _waken(self, host_id: int) -> Host:
        """A host that an input is for; no epoch for one host alone goes on beyond that."""
        self._epoch_end = min(self._epoch_end, _end_of_epoch(self.time))
        return self._advanced(self.hosts[host_id], self.time)

    @staticmethod
    def _advanced(host: Host, time: int) -> Host:
        """The host, whose clock shows `time` if it slept until then."""
        wakes = host.busy_from
        if wakes > host.time:
            host.advance(min(time, wakes))
        return host

    # -- network -------------------------------------------------------------------------------------
    def _transmit(self, guest: int, frame: bytes) -> None:
        host = self.hosts[self.homes[guest]]
        self.switch.send(host.active.clock, host.id, guest, frame)
        self._cut = min(self._cut, _end_of_epoch(host.active.clock))
        host.stop_at(self._cut)

    def _settle(self) -> None:
        """After an input: did it leave nothing to do before the epoch's end?"""
        if self.switch.pending and all(
            host.busy_from >= self._epoch_end for host in self.hosts.values()
        ):
            self._deliver()

    def _deliver(self) -> None:
        """The epoch is over."""
        for guest, frames in self.switch.forward():
            host = self._advanced(self.hosts[self.homes[guest]], self._epoch_end)
            host.guests[guest].arrive(frames)

    def _console(self, guest: int, data: bytes) -> None:
        self.consoles[guest].append(data)
        self._output(guest, data)

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        """Everything that decides what comes next, and what was recorded so far. Shares unchanged pages with
        this world.
        """
        return {
            "position": self.position,
            "turn": self._turn,
            "epoch_end": self._epoch_end,
            "hosts": {host.id: host.save() for host in self.hosts.values()},
            "consoles": {guest: console.save() for guest, console in self.consoles.items()},
            "switch": self.switch.save(),
            "homes": sorted(self.homes.items()),
            "migrations": [msgspec.to_builtins(progress) for progress in self.migrations.values()],
            "trace": self.trace.save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the state that `save` gave for a world of the same structure."""
        self.position = state["position"]
        self._turn, self._epoch_end = state["turn"], state["epoch_end"]
        self.homes = dict(state["homes"]) if "homes" in state else self.homes
        for host_id, saved in state["hosts"].items():
            host = self.hosts[host_id]
            host.arrange(saved["guests"], saved.get("staged", ()), lambda guest, host=host: self._blank(guest, host))  # type: ignore[misc]
        for host_id, saved in state["hosts"].items():
            self.hosts[host_id].load(saved)
        progresses = msgspec.convert(state.get("migrations", []), list[Progress])
        self.migrations = {progress.guest: progress for progress in progresses}
        self._moving = {progress.guest: self._resumed(progress) for progress in progresses if progress.active}
        self.consoles = {guest: Scrollback.load(chunks) for guest, chunks in state["consoles"].items()}
        self.switch.load(state["switch"])
        self.trace.load(state["trace"])

    def _blank(self, guest: int, host: Host) -> VmGuest:
        """A VM on a host that its state is about to be loaded into."""
        row = self._rows[guest]
        return VmGuest(host, guest, self._images(row.image), row.vcpus, row.memory_mib, row.arguments)

    def _resumed(self, progress: Progress) -> Migration:
        """A migration as saved."""
        guest, source, target = progress.guest, self.hosts[progress.source], self.hosts[progress.plan.host]
        here, there = self.guest(guest), (source if progress.phase == PULLING else target).staged[guest]
        assert isinstance(here, VmGuest)
        return Migration(progress, source, target, here, there, _end_of_epoch)


def _end_of_epoch(time: int) -> int:
    """Where the epoch of EPOCH_NS that `time` is in ends."""
    return (time // EPOCH_NS + 1) * EPOCH_NS
