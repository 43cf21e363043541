"""The fair-share scheduler, as Linux has had it since 2.6.23 (CFS), which runs the vCPUs of KVM as it runs any thread.

A vCPU's *virtual runtime* is the time that it ran, divided by its weight. Whoever has the least gets the hart next. It
keeps it for its weight's part of a period in which everybody who wants runs once: LATENCY_NS, or MIN_GRANULARITY_NS for
each if they are many. What sleeps does not save time up: it comes back with at most half a period's advantage over the
least of the others, and goes before the one that runs if that is WAKEUP_GRANULARITY_NS ahead of it.

A guest's weight is its cgroup's: in equal parts its vCPUs'. Caps are CPU bandwidth control, see scheduler.Allowance.

Source: Documentation/scheduler/sched-design-CFS.rst and kernel/sched/fair.c of Linux. Its defaults on a one-hart machine are 6,
0.75 and 1 ms; those here are a tenth, and 100 us, the least that Linux accepts, where a tenth would be less.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engine.hypervisor.scheduling.scheduler import DEFAULT_WEIGHT, Key, Scheduler, Share
from engine.machine.state import NEVER

LATENCY_NS = 600_000
MIN_GRANULARITY_NS = 100_000
WAKEUP_GRANULARITY_NS = 100_000


class FairShare(Scheduler):
    """`_base` + what it `_ran` since, by its weight, is a vCPU's virtual runtime: so that it is the same in however
    many pieces the time comes."""

    def __init__(self, harts: int) -> None:
        super().__init__(harts)
        self._base: dict[Key, int] = {}
        self._ran: dict[Key, int] = {}
        self._runnable: set[Key] = set()
        self._least = 0  # never goes back: what newcomers are measured by

    def enter(self, key: Key) -> None:
        self._base[key] = self._least
        self._ran[key] = 0

    def exit(self, key: Key) -> None:
        del self._base[key], self._ran[key]

    def set_share(self, guest: int, share: Share, now: int) -> None:
        if guest in self.shares:
            for key in self.members[guest]:
                self._base[key], self._ran[key] = self.virtual_runtime(key), 0
        super().set_share(guest, share, now)

    def virtual_runtime(self, key: Key) -> int:
        """ns that a vCPU of DEFAULT_WEIGHT would have run."""
        return self._base[key] + self._by_weight(key, self._ran[key])

    def _by_weight(self, key: Key, ns: int) -> int:
        return ns * DEFAULT_WEIGHT * len(self.members[key[0]]) // self.shares[key[0]].weight

    # -- time ----------------------------------------------------------------------------------------
    def ran(self, key: Key, ns: int) -> None:
        super().ran(key, ns)
        self._ran[key] += ns

    def advance(self, now: int) -> None:
        super().advance(now)
        if self._runnable:
            self._least = max(self._least, min(map(self.virtual_runtime, self._runnable)))

    # -- decisions -----------------------------------------------------------------------------------
    def woke(self, key: Key) -> None:
        if key not in self._runnable:
            self._runnable.add(key)
            self._base[key] = max(self.virtual_runtime(key), self._least - LATENCY_NS // 2)
            self._ran[key] = 0

    def slept(self, key: Key) -> None:
        self._runnable.discard(key)

    def best(self, waiting: Collection[Key]) -> Key:
        return min(waiting, key=lambda key: (self.virtual_runtime(key), key))

    def chosen(self, key: Key) -> None:
        """It leaves the queue by what it runs."""

    def yield_at(self, running: Key, waiting: Key | None, since: int, now: int) -> int:
        if waiting is None:
            return NEVER
        ahead = self.virtual_runtime(running) - self.virtual_runtime(waiting)
        if ahead > WAKEUP_GRANULARITY_NS:
            return since + MIN_GRANULARITY_NS
        end = since + self._slice(running)
        if ahead < 0:
            weight, parts = self.shares[running[0]].weight, len(self.members[running[0]])
            end = max(end, now + -ahead * weight // (DEFAULT_WEIGHT * parts) + 1)
        return end

    def _slice(self, key: Key) -> int:
        """Its part of a period."""
        period = max(LATENCY_NS, len(self._runnable) * MIN_GRANULARITY_NS // self.harts)
        weights = {guest: share.weight * 1024 // len(self.members[guest]) for guest, share in self.shares.items()}
        total = sum(weights[guest] for guest, _ in self._runnable) or 1
        return max(MIN_GRANULARITY_NS, period * self.harts * weights[key[0]] // total)

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        return super().save() | {
            "base": [[list(key), base, self._ran[key]] for key, base in sorted(self._base.items())],
            "runnable": sorted(map(list, self._runnable)),
            "least": self._least,
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._base = {(guest, number): base for (guest, number), base, _ in state["base"]}
        self._ran = {(guest, number): ran for (guest, number), _, ran in state["base"]}
        self._runnable = {(guest, number) for guest, number in state["runnable"]}
        self._least = state["least"]
