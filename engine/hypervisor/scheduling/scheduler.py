"""What a scheduler is: the host asks it who should have a hart next, and for how long.

The host finds out who can run at all (a vCPU sleeps in wfi, its guest is off) and tells the scheduler of every
nanosecond that a vCPU had a hart. A scheduler's decisions follow from what it was told, in the order in which it was
told, and from nothing else: no clock, no chance, integers only. `ran` may be called with any division of the same
time into pieces; what else changes a scheduler happens only at steps of the host that no caller's budget moves.

A cap is the same in every scheduler: CPU bandwidth control as Linux has it (Documentation/scheduler/sched-bwc.rst). A
guest with a cap may run `cap` percent of one hart in each CAP_PERIOD_NS, all its vCPUs together; what it does not use is
lost, what it used too much (a step is not divisible) is taken from the next period.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from engine.machine.state import NEVER

#: (guest, number of its vCPU)
Key = tuple[int, int]

#: A guest's weight unless somebody chooses another: Xen's.
DEFAULT_WEIGHT = 256
#: A tenth of Linux' default cpu.max period: what a guest does in a lab is short.
CAP_PERIOD_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the host a guest is to have: `weight` against the other guests' weights while they want more than
    there is, and never more than `cap` percent of one hart (200: two harts; 0: no cap)."""

    weight: int = DEFAULT_WEIGHT
    cap: int = 0


DEFAULT_SHARE = Share()


@dataclass(slots=True)
class Allowance:
    """What a guest with a cap has left. `begin`: of the present period."""

    quota: int
    begin: int
    spent: int = 0

    def settle(self, now: int) -> None:
        """Begin the period that `now` is in."""
        periods = (now - self.begin) // CAP_PERIOD_NS
        if periods > 0:
            self.spent = max(0, self.spent - periods * self.quota)
            self.begin += periods * CAP_PERIOD_NS

    def held_until(self) -> int:
        """The clock from which the guest may run, 0 if it may now."""
        return 0 if self.spent < self.quota else self.begin + self.spent // self.quota * CAP_PERIOD_NS

    def lasts_until(self, now: int) -> int:
        """Until when a vCPU may run that runs from now on: its share is used up, or a new period begins."""
        return min(now + max(1, self.quota - self.spent), max(now + 1, self.begin + CAP_PERIOD_NS))


class Scheduler(ABC):
    """One host's. Times are the host's clock, ns."""

    def __init__(self, harts: int) -> None:
        self.harts = harts
        self.shares: dict[int, Share] = {}
        self.members: dict[int, list[Key]] = {}  # each guest's vCPUs
        self._allowances: dict[int, Allowance] = {}

    # -- who there is --------------------------------------------------------------------------------
    def admit(self, guest: int, vcpus: int, share: Share, now: int) -> None:
        """A guest came, asleep."""
        self.members[guest] = [(guest, number) for number in range(vcpus)]
        for key in self.members[guest]:
            self.enter(key)
        self.set_share(guest, share, now)

    def forget(self, guest: int) -> None:
        for key in self.members.pop(guest):
            self.slept(key)
            self.exit(key)
        del self.shares[guest]
        self._allowances.pop(guest, None)

    def set_share(self, guest: int, share: Share, now: int) -> None:
        """From now on the guest has this share."""
        self.shares[guest] = share
        self._allowances.pop(guest, None)
        if share.cap:
            self._allowances[guest] = Allowance(
                share.cap * CAP_PERIOD_NS // 100, now // CAP_PERIOD_NS * CAP_PERIOD_NS
            )

    @abstractmethod
    def enter(self, key: Key) -> None:
        """A vCPU came."""

    @abstractmethod
    def exit(self, key: Key) -> None:
        """A vCPU, asleep, is gone."""

    # -- caps ----------------------------------------------------------------------------------------
    def held_until(self, key: Key) -> int:
        """The clock from which its guest's cap lets this vCPU run; 0: it may. As of the latest `advance`."""
        allowance = self._allowances.get(key[0])
        return 0 if allowance is None else allowance.held_until()

    def lasts_until(self, key: Key, now: int) -> int:
        """Until when its guest's cap lets a vCPU run that is on a hart. Looked at again then."""
        allowance = self._allowances.get(key[0])
        return NEVER if allowance is None else allowance.lasts_until(now)

    # -- time ----------------------------------------------------------------------------------------
    def ran(self, key: Key, ns: int) -> None:
        """The vCPU had a hart for so long."""
        allowance = self._allowances.get(key[0])
        if allowance is not None:
            allowance.spent += ns

    def advance(self, now: int) -> None:
        """Bring everything that happens at certain times up to now."""
        for allowance in self._allowances.values():
            allowance.settle(now)

    # -- decisions -----------------------------------------------------------------------------------
    @abstractmethod
    def woke(self, key: Key) -> None:
        """A sleeping vCPU can run now."""

    @abstractmethod
    def slept(self, key: Key) -> None:
        """The vCPU cannot run now."""

    @abstractmethod
    def best(self, waiting: Collection[Key]) -> Key:
        """Who of those that can run and wait (there is one at least) should get a hart."""

    @abstractmethod
    def chosen(self, key: Key) -> None:
        """The vCPU gets a hart."""

    @abstractmethod
    def yield_at(self, running: Key, waiting: Key | None, since: int, now: int) -> int:
        """When a vCPU that has a hart `since` makes room for the best of those that wait. Later than now: look again
        then. `waiting` None: nobody waits now."""

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        return {
            "guests": [
                [guest, len(keys), self.shares[guest].weight, self.shares[guest].cap]
                for guest, keys in sorted(self.members.items())
            ],
            "allowances": [[guest, it.quota, it.begin, it.spent] for guest, it in sorted(self._allowances.items())],
        }

    def load(self, state: dict[str, Any]) -> None:
        """What `save` gave."""
        self.members = {guest: [(guest, n) for n in range(vcpus)] for guest, vcpus, _, _ in state["guests"]}
        self.shares = {guest: Share(weight, cap) for guest, _, weight, cap in state["guests"]}
        self._allowances = {guest: Allowance(*rest) for guest, *rest in state["allowances"]}
