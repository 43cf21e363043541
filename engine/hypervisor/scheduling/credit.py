"""The credit scheduler, as Xen has it.

Every ACCOUNTING_NS the time of all harts is handed out as credits (here 1 credit is 1 ns), to each guest that wants a
hart by its weight, in equal parts to its vCPUs; whoever runs pays for what it runs. A vCPU with credits is UNDER, one
without is OVER; UNDER goes first, equals take turns of SLICE_NS. What woke up with credits left is BOOST until it gets
a hart: it goes before UNDER, so that a guest which only answers interrupts answers at once, but nobody is interrupted
before RATE_LIMIT_NS. A guest that cannot use its part (it has fewer vCPUs than that) leaves it to the others; a vCPU that
saves more than one accounting's worth no longer takes part until it runs again, and keeps half. So unused time is never
lost, and nobody can save it up.

Source: L. Cherkasova, D. Gupta, A. Vahdat: Comparison of the Three CPU Schedulers in Xen, SIGMETRICS PER 35(2), 2007;
Xen's credit scheduler documentation (slice 30 ms, of which three ticks; sched_credit_tslice_ms and
sched_ratelimit_us can be set to 1 ms and 100 us, as here). Parking at the cap: see scheduler.Allowance.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engine.hypervisor.scheduling.scheduler import Key, Scheduler
from engine.machine.state import NEVER

SLICE_NS = 1_000_000
ACCOUNTING_NS = 3 * SLICE_NS
TICK_NS = SLICE_NS // 3
RATE_LIMIT_NS = 100_000
BOOST, UNDER, OVER = range(3)


class Credit(Scheduler):
    """`_queue` is in the order in which its members last got a hart: the longest ago first."""

    def __init__(self, harts: int) -> None:
        super().__init__(harts)
        self.credits: dict[Key, int] = {}
        self._queue: list[Key] = []
        self._boosted: set[Key] = set()
        self._active: set[Key] = set()
        self._accounting = ACCOUNTING_NS  # when the next one is due

    def enter(self, key: Key) -> None:
        self.credits[key] = 0
        self._queue.append(key)

    def exit(self, key: Key) -> None:
        del self.credits[key]
        self._queue.remove(key)
        self._active.discard(key)

    def priority(self, key: Key) -> int:
        if self.credits[key] < 0:
            return OVER
        return BOOST if key in self._boosted else UNDER

    # -- time ----------------------------------------------------------------------------------------
    def ran(self, key: Key, ns: int) -> None:
        super().ran(key, ns)
        self.credits[key] -= ns
        self._active.add(key)

    def advance(self, now: int) -> None:
        super().advance(now)
        while self._accounting <= now and self._active:
            self._account()
            self._accounting += ACCOUNTING_NS
        if self._accounting <= now:
            self._accounting += (now - self._accounting) // ACCOUNTING_NS * ACCOUNTING_NS + ACCOUNTING_NS

    def _account(self) -> None:
        """Hand out one period's credits."""
        wanting: dict[int, list[Key]] = {}
        for key in sorted(self._active):
            wanting.setdefault(key[0], []).append(key)
        left, parts = self.harts * ACCOUNTING_NS, dict.fromkeys(wanting, 0)
        sharing = set(wanting)
        while sharing:
            weights = sum(self.shares[guest].weight for guest in sharing)
            full = {
                guest for guest in sharing
                if left * self.shares[guest].weight >= len(wanting[guest]) * ACCOUNTING_NS * weights
            }  # fmt: skip
            for guest in full or sharing:
                parts[guest] = (
                    len(wanting[guest]) * ACCOUNTING_NS if full else left * self.shares[guest].weight // weights
                )
            left -= sum(parts[guest] for guest in full)
            sharing = sharing - full if full else set()
        for guest, keys in wanting.items():
            for key in keys:
                credit = max(self.credits[key] + parts[guest] // len(keys), -ACCOUNTING_NS)
                if credit > ACCOUNTING_NS:
                    credit //= 2
                    self._active.discard(key)
                self.credits[key] = credit

    # -- decisions -----------------------------------------------------------------------------------
    def woke(self, key: Key) -> None:
        self._active.add(key)
        self._boosted.add(key)

    def slept(self, key: Key) -> None:
        self._boosted.discard(key)

    def best(self, waiting: Collection[Key]) -> Key:
        return min((key for key in self._queue if key in waiting), key=self.priority)

    def chosen(self, key: Key) -> None:
        self._boosted.discard(key)
        self._queue.remove(key)
        self._queue.append(key)

    def yield_at(self, running: Key, waiting: Key | None, since: int, now: int) -> int:
        if waiting is None:
            return now + TICK_NS if len(self._queue) > 1 else NEVER
        mine, theirs = self.priority(running), self.priority(waiting)
        if theirs < mine:
            return since + RATE_LIMIT_NS
        return since + SLICE_NS if theirs == mine else now + TICK_NS

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        return super().save() | {
            "credits": [[list(key), credit] for key, credit in sorted(self.credits.items())],
            "queue": [list(key) for key in self._queue],
            "boosted": sorted(map(list, self._boosted)),
            "active": sorted(map(list, self._active)),
            "accounting": self._accounting,
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.credits = {(guest, number): credit for (guest, number), credit in state["credits"]}
        self._queue = [(guest, number) for guest, number in state["queue"]]
        self._boosted = {(guest, number) for guest, number in state["boosted"]}
        self._active = {(guest, number) for guest, number in state["active"]}
        self._accounting = state["accounting"]
