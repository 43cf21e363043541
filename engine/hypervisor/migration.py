"""Live migration: a VM goes to another host while it runs, over a link whose time is modelled and whose bytes are not.

    pre-copy       ▓▓▓▓▓▓▓▓▓▓▓▓ every page  ▓▓▓▓▓ what was stored to meanwhile  ▓▓ ... ║stop: ▓ the rest, vCPUs║ goes on
    post-copy      ║stop: vCPUs║ goes on there; a page comes when it is needed, the rest behind it   ▓▓▓▓▓▓▓▓▓▓▓▓▓
    stop-and-copy  ║stop: ▓▓▓▓▓▓▓▓▓▓▓▓ every page, vCPUs║ goes on

One VM object on each host: until the switch the target's is *staged* (room, and the pages that have come); with the
switch it gets the right to run, and the source's has none from the same moment on. So there is one running copy at
any time, and until the switch giving up means letting the source go on.

Pages are copied when a round takes them from the dirty log (`GuestRam.take_dirty`) and are counted as arrived when
the link has had the time for them: whoever could tell the difference has no right to run before. What they take:
PAGE_BYTES each, at so many bits a ns. Events fall on ends of the lab's epochs (engine.world), when no host is inside
a step; each is one step of the lab, so the same commands give the same migration, from any checkpoint. The VM's clock
stands still while it is stopped, as QEMU's does for RISC-V (target/riscv/kvm.c, kvm_riscv_vm_state_change).

When pre-copy stops (Clark et al., "Live Migration of Virtual Machines", NSDI 2005, sections 3.2 and 5.2; Xen's
xc_domain_save: 29 rounds): the rest is so small that it fits into `downtime_ns`; the guest dirties pages no slower
than the link takes them, so that another round gains nothing; or `max_rounds`.

A post-copy switch cannot be taken back: what runs has stored to the target's pages (Hines, Deshpande, Gopalan,
"Post-copy live migration of virtual machines", 2009). Before the source goes, it gives what it still has (`settle`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from engine.commands import MigrationMode, TechniqueId
from engine.hypervisor.frames import OutOfFramesError
from engine.hypervisor.host import Host
from engine.hypervisor.vm_guest import VmGuest
from engine.machine.memory import PAGE

#: A page on the link: its content, and the 8 bytes of address and flags that QEMU sends before it (migration/ram.c).
PAGE_BYTES = PAGE + 8
#: How long the source pushes absent pages before it looks what was fetched meanwhile.
PUSH_NS = 500_000
#: From a request for a page to its first byte; no host hears of another sooner (engine.world).
ROUND_TRIP_NS = 50_000
MAX_ROUNDS_KEPT = 128
#: Techniques that map all that a guest's tables name before it runs: with a page absent there is nothing to map, and
#: fetching them all first would be stop-and-copy.
WITHOUT_POST_COPY: frozenset[TechniqueId] = frozenset({"paravirtual"})

#: Phases. Until the switch: COPYING while the VM runs, STOPPED while it does not. After it: PULLING until all is there.
COPYING, STOPPED, PULLING, DONE, CANCELLED, FAILED = "copying", "stopped", "pulling", "done", "cancelled", "failed"


class Plan(Struct, frozen=True):
    """Where to and how. `link_gbit`: bits a ns."""

    host: int
    mode: MigrationMode
    max_rounds: int
    downtime_ns: int
    link_gbit: int

    def link_ns(self, size: int) -> int:
        """What the link needs for so many bytes, at least 1."""
        return max(1, -(-size * 8 // self.link_gbit))


class Round(Struct):
    """A stretch in which the link was busy. `dirtied`: pages stored to meanwhile; None: nobody could store."""

    begin_ns: int
    end_ns: int
    pages: int
    bytes: int
    dirtied: int | None = None


class Progress(Struct):
    """All that a migration knows, as plain data. `due_ns`: lab time of its next event. `reason`: why it stopped the
    VM, or why it failed."""

    guest: int
    source: int
    plan: Plan
    begin_ns: int
    phase: str = COPYING
    due_ns: int = 0
    rounds: list[Round] = []
    round_count: int = 0
    bytes: int = 0
    pages: int = 0
    fetched: int = 0
    reason: str = ""
    stopped_ns: int = 0
    downtime_ns: int = 0
    end_ns: int = 0

    @property
    def active(self) -> bool:
        return self.phase in (COPYING, STOPPED, PULLING)


class Migration:
    """One VM on its way. `there` is the VM on the other host: until the switch the target's, after it the source's."""

    def __init__(
        self, progress: Progress, source: Host, target: Host, here: VmGuest, there: VmGuest, end_of_epoch: Callable[[int], int]
    ) -> None:
        self.progress = progress
        self._source, self._target = source, target
        self._here, self._there = here, there
        self._end_of_epoch = end_of_epoch
        if progress.phase == PULLING:
            here.vm.ram.leave_at(there.vm.ram, here.vm.ram.absent, self._fetch_ns)

    @classmethod
    def begin(
        cls, guest: VmGuest, source: Host, target: Host, plan: Plan, now: int, end_of_epoch: Callable[[int], int]
    ) -> Migration:
        """Start at lab time `now`. Raises LabError when the target cannot take the guest."""
        there = target.stage(
            guest.id, guest.image, guest.vcpu_count, guest.memory_mib, guest.arguments, guest.machine_mode
        )
        self = cls(Progress(guest.id, source.id, plan, now), source, target, guest, there, end_of_epoch)
        guest.vm.ram.log_dirty(True)
        try:
            if plan.mode == "pre-copy":
                self._send_round(now)
            else:
                self._stop(now, plan.mode)
        except OutOfFramesError:
            self._give_up(now, FAILED, "out-of-memory")
        return self

    @property
    def _fetch_ns(self) -> int:
        """What a vCPU waits for a page that it needs."""
        return ROUND_TRIP_NS + self.progress.plan.link_ns(PAGE_BYTES)

    # -- events --------------------------------------------------------------------------------------
    def event(self) -> None:
        """What is due at `progress.due_ns`."""
        progress, now = self.progress, self.progress.due_ns
        if progress.phase == PULLING:
            self._push(now)
            return
        problem = self._broken()
        try:
            if problem:
                self._give_up(now, FAILED, problem)
            elif progress.phase == STOPPED:
                self._switch(now)
            else:
                self._end_round(now)
        except OutOfFramesError:
            self._give_up(now, FAILED, "out-of-memory")

    def _broken(self) -> str:
        """Why there is nothing to migrate any more; "": there is."""
        if self._here.ended:
            return "guest-ended"
        return "" if self._here.vm.ram.logging else "guest-restarted"

    def _end_round(self, now: int) -> None:
        progress, plan, dirty = self.progress, self.progress.plan, self._here.vm.ram.dirty
        last = progress.rounds[-1]
        last.dirtied = dirty
        if plan.link_ns(dirty * PAGE_BYTES) <= plan.downtime_ns:
            self._stop(now, "few-left")
        elif progress.round_count > 1 and dirty >= last.pages:
            self._stop(now, "dirty-rate")
        elif progress.round_count >= plan.max_rounds:
            self._stop(now, "rounds")
        else:
            self._send_round(now)

    def _send_round(self, now: int) -> None:
        pages = self._here.vm.ram.take_dirty()
        self._here.vm.ram.copy_to(self._there.vm.ram, pages)
        self._occupy(now, len(pages), len(pages) * PAGE_BYTES)

    def _occupy(self, now: int, pages: int, size: int) -> None:
        """The link is busy with so many bytes from now on."""
        progress = self.progress
        progress.due_ns = self._end_of_epoch(now + progress.plan.link_ns(size))
        progress.rounds.append(Round(now, progress.due_ns, pages, size))
        del progress.rounds[:-MAX_ROUNDS_KEPT]
        progress.round_count += 1
        progress.pages += pages
        progress.bytes += size

    def _stop(self, now: int, reason: str) -> None:
        """Stop the VM and send what has to be there before it goes on."""
        progress, ram = self.progress, self._here.vm.ram
        self._here.pause()
        progress.phase, progress.reason, progress.stopped_ns = STOPPED, reason, now
        pages = [] if progress.plan.mode == "post-copy" else ram.take_dirty(running=False)
        ram.copy_to(self._there.vm.ram, pages)
        self._occupy(now, len(pages), len(pages) * PAGE_BYTES + self._state_bytes())

    def _state_bytes(self) -> int:
        """Of everything but the memory: vCPUs, devices, what the disk has that its image has not."""
        return len(msgspec.msgpack.encode(self._here.portable()))

    def _switch(self, now: int) -> None:
        """The right to run passes over, with what input has changed since the VM was stopped."""
        progress, here, there = self.progress, self._here, self._there
        post_copy = progress.plan.mode == "post-copy"
        if post_copy:
            there.vm.ram.leave_at(here.vm.ram, here.vm.ram.present, self._fetch_ns)
        else:
            late = here.vm.ram.take_dirty(running=False)
            here.vm.ram.copy_to(there.vm.ram, late)
            self._arrived(len(late))
        state = here.portable()
        self._source.send_off(here.id)
        self._target.welcome(here.id, state)
        progress.downtime_ns = now - progress.stopped_ns
        self._here, self._there = there, here
        if post_copy:
            progress.phase = PULLING
            self._next_push(now)
        else:
            self._complete(now)

    def _complete(self, now: int) -> None:
        self._source.unstage(self.progress.guest)
        self.progress.phase, self.progress.end_ns = DONE, now

    # -- post-copy -----------------------------------------------------------------------------------
    def _push(self, now: int) -> None:
        """The link has brought the next absent pages. A guest that started anew needs none."""
        progress, ram = self.progress, self._here.vm.ram
        if ram.origin is not None:
            fetched, last = self._count_fetched(), progress.rounds[-1]
            room = progress.plan.link_gbit * (now - last.begin_ns) // 8 // PAGE_BYTES
            pushed = self._bring(max(1, room - fetched))
            last.pages = pushed + fetched
            last.bytes = last.pages * PAGE_BYTES
        if ram.origin is not None and ram.absent:
            self._next_push(now)
        else:
            ram.leave_at(None)
            self._complete(now)

    def _bring(self, limit: int | None = None) -> int:
        """Push so many absent pages, lowest first. How many there were."""
        ram = self._here.vm.ram
        pages = sorted(ram.absent)[:limit]
        ram.fetch(pages)
        self._arrived(len(pages))
        return len(pages)

    def _arrived(self, pages: int) -> None:
        self.progress.pages += pages
        self.progress.bytes += pages * PAGE_BYTES

    def _next_push(self, now: int) -> None:
        progress = self.progress
        left = len(self._here.vm.ram.absent) * PAGE_BYTES
        progress.due_ns = self._end_of_epoch(now + min(PUSH_NS, progress.plan.link_ns(left)))
        progress.rounds.append(Round(now, progress.due_ns, 0, 0))
        del progress.rounds[:-MAX_ROUNDS_KEPT]
        progress.round_count += 1

    def _count_fetched(self) -> int:
        """The pages that were fetched since the last time."""
        fetched = self._here.vm.ram.fetched - self.progress.fetched
        self.progress.fetched += fetched
        self._arrived(fetched)
        return fetched

    # -- ending it -----------------------------------------------------------------------------------
    def cancel(self, now: int) -> None:
        """The source goes on. There is no way back after the switch."""
        assert self.progress.phase != PULLING
        self._give_up(now, CANCELLED, "")

    def settle(self, now: int, reason: str) -> None:
        """End it at once, because a host or the guest is about to change: back to the source, or, after the switch,
        with all that was left there."""
        if self.progress.phase != PULLING:
            self._give_up(now, FAILED, reason)
            return
        ram = self._here.vm.ram
        if ram.origin is not None:
            self._count_fetched()
            self._bring()
            ram.leave_at(None)
        self._complete(now)

    def _give_up(self, now: int, phase: str, reason: str) -> None:
        self._target.unstage(self.progress.guest)
        self._here.vm.ram.log_dirty(False)
        if self._here.paused is not None:
            self._here.resume()
            self.progress.downtime_ns = now - self.progress.stopped_ns
        self.progress.phase, self.progress.end_ns = phase, now
        if reason:
            self.progress.reason = reason
