"""Modelled costs of crossing from one level to another: figures of real silicon, each with its source.

Ringside's harts take a trap in one step. What it costs a real processor to leave a guest and to come back is
added to the host's clock from this table, and every record carries the sum for its path, apart from the
instructions that were executed.

A profile is one machine that somebody measured. Where KVM and Xen were measured on it apart, a stack is charged the
figures of the one whose exits go where its own go: KVM's if they enter a host's kernel (`hosted`), else Xen's. The
figures are those of a processor's own virtualization hardware. Techniques that do without it are charged the same, so
that they differ here by what they do and not by whose table was asked.

What nobody published is a row too, with the published one that stands in for it, and its note says so. `verified`: was
the figure compared with the publication's text? Deliveries by hardware and calls inside one level are not modelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

from msgspec import Struct

from engine.commands import CrossingId, Cycles, ProfileId, StackId
from engine.hypervisor.stacks import HYPERVISORS, STACKS, Configuration, Exit, switches_worlds
from engine.trace.record import PATH_IDS, Level, Path, outward

_GUEST = (Level.USER, Level.KERNEL_DEPRIVILEGED, Level.KERNEL)
_BELOW = (Level.HYPERVISOR, Level.HOST_KERNEL)
_USER_SPACE = (Level.DEVICE_MODEL, Level.VMM)


def _legs() -> Iterator[tuple[tuple[Level, Level], CrossingId]]:
    for below in _BELOW:
        for guest in _GUEST:
            yield (guest, below), "exit"
            yield (below, guest), "entry"
    for kernel in (*_BELOW, Level.DRIVER_DOMAIN):
        for process in _USER_SPACE:
            yield (kernel, process), "to-user-space"
            yield (process, kernel), "from-user-space"
    yield (Level.HYPERVISOR, Level.DRIVER_DOMAIN), "to-driver-domain"
    yield (Level.DRIVER_DOMAIN, Level.HYPERVISOR), "from-driver-domain"
    yield (Level.HYPERVISOR, Level.HOST_KERNEL), "to-host-os"
    yield (Level.HOST_KERNEL, Level.HYPERVISOR), "from-host-os"


#: Which crossing each leg of a path is; other legs cost nothing.
CROSSINGS: dict[tuple[Level, Level], CrossingId] = dict(_legs())

_ADAMS = (
    "K. Adams, O. Agesen: A Comparison of Software and Hardware Techniques for x86 Virtualization, ASPLOS 2006, "
    "table 1 (2.66 GHz Core 2 Duo): {}"
)
_DALL = (
    "C. Dall, S.-W. Li, J. T. Lim, J. Nieh, G. Koloventzos: ARM Virtualization: Performance and Architectural "
    "Implications, ISCA 2016, table 2 ({}): {}"
)
_LKML = (
    "linux-kernel mailing list, December 2020, lkml.iu.edu/hypermail/linux/kernel/2012.2/00527.html: from the KVM_RUN "
    "ioctl to VMRUN on an AMD processor"
)
#: How a row's cycles follow from its source, if not directly; the page has a sentence for each.
Note = Literal["half", "less-exit", "less-entry", "as-exit", "as-entry", "other-processor"]


@dataclass(frozen=True)
class Cost:
    """A crossing takes `cycles` cycles; one cycle is charged as one nanosecond. `hosted`: of stacks that are or are
    not; None: of all."""

    profile: ProfileId
    crossing: CrossingId
    cycles: int
    source: str
    note: Note | None = None
    hosted: bool | None = None
    verified: bool = False

    @property
    def stacks(self) -> tuple[StackId, ...]:
        """The stacks that it is charged to."""
        return tuple(name for name in HYPERVISORS if self.hosted in (None, STACKS[name].hosted))


def _measured_by_dall(
    profile: ProfileId, machine: str, kvm_hypercall: int, xen_hypercall: int, xen_out: int, xen_in: int
) -> Iterator[Cost]:
    """A hypercall is an exit and an entry; Xen's latencies of input and output are an exit (an entry) and what it
    takes to reach (to come from) the driver domain."""
    for hosted, name, hypercall in ((True, "KVM", kvm_hypercall), (False, "Xen", xen_hypercall)):
        source = _DALL.format(machine, f"hypercall, {name}, {hypercall:,} cycles")
        yield Cost(profile, "exit", hypercall // 2, source, "half", hosted)
        yield Cost(profile, "entry", hypercall // 2, source, "half", hosted)
    half = xen_hypercall // 2
    there = _DALL.format(machine, f"I/O latency out, Xen, {xen_out:,} cycles")
    back = _DALL.format(machine, f"I/O latency in, Xen, {xen_in:,} cycles")
    yield Cost(profile, "to-driver-domain", xen_out - half, there, "less-exit")
    yield Cost(profile, "from-driver-domain", xen_in - half, back, "less-entry")
    switch = _DALL.format(machine, f"hypercall, KVM, {kvm_hypercall:,} cycles")
    yield Cost(profile, "to-host-os", kvm_hypercall // 2, switch, "as-exit")
    yield Cost(profile, "from-host-os", kvm_hypercall // 2, switch, "as-entry")


_EXIT, _ENTRY = _ADAMS.format("page fault VM exit"), _ADAMS.format("VM entry")
COSTS: tuple[Cost, ...] = (
    Cost("adams-agesen-2006", "exit", 1186, _EXIT),
    Cost("adams-agesen-2006", "entry", 937, _ENTRY),
    Cost("adams-agesen-2006", "to-driver-domain", 937, _ENTRY, "as-entry"),
    Cost("adams-agesen-2006", "from-driver-domain", 1186, _EXIT, "as-exit"),
    Cost("adams-agesen-2006", "to-host-os", 1186, _EXIT, "as-exit"),
    Cost("adams-agesen-2006", "from-host-os", 937, _ENTRY, "as-entry"),
    *_measured_by_dall("dall-arm-2016", "ARM, HP m400, 2.4 GHz", 6_500, 376, 16_491, 15_650),
    *_measured_by_dall("dall-x86-2016", "x86, 2.1 GHz Xeon E5-2450", 1_300, 1_228, 11_262, 10_050),
    *(
        Cost(profile, crossing, 576, _LKML, "other-processor", verified=True)
        for profile in get_args(ProfileId)
        for crossing in ("to-user-space", "from-user-space")
    ),
)
_ROWS = {(cost.profile, stack, cost.crossing): cost for cost in COSTS for stack in cost.stacks}
assert len(_ROWS) == len(get_args(ProfileId)) * len(HYPERVISORS) * len(get_args(CrossingId)), "a row is missing or twice"


class Costs(Struct, frozen=True):
    """What a lab's switches cost: a profile, and cycles that somebody put in place of its own."""

    profile: ProfileId = "adams-agesen-2006"
    overrides: dict[CrossingId, Cycles] = {}

    def of(self, stack: StackId, crossing: CrossingId) -> int:
        """Cycles of a crossing on a stack with a hypervisor."""
        return self.overrides.get(crossing, _ROWS[self.profile, stack, crossing].cycles)


DEFAULT_COSTS = Costs()


def table(profile: ProfileId) -> list[dict[str, Any]]:
    """A profile's rows as `CostsQuery` gives them."""
    return [
        {
            "crossing": row.crossing, "stacks": list(row.stacks), "cycles": row.cycles, "source": row.source,
            "note": row.note, "verified": row.verified,
        }
        for row in COSTS
        if row.profile == profile
    ]  # fmt: skip


class Leg(NamedTuple):
    """A modelled crossing of a path. `overridden`: somebody put `cycles` in place of the source's."""

    begin: Level
    end: Level
    cycles: int
    row: Cost
    overridden: bool


class Way(NamedTuple):
    """A path by its id, what its crossings cost in cycles, and where it ends. by_hardware: nobody handles the exit.
    between_worlds: see stacks.switches_worlds."""

    path: int
    cycles: int
    end: Level
    by_hardware: bool
    between_worlds: bool


class _Ways(dict[tuple[Exit, Level, Level | None], Way]):
    """The way of an exit, by its kind, where it began, and where execution resumes (None: nowhere); found once for each."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def __missing__(self, key: tuple[Exit, Level, Level | None]) -> Way:
        kind, origin, to = key
        route = self._routes.configuration.route(kind)
        path = (origin, *outward(route)) if to is None else (origin, *route, to)
        cycles = sum(leg.cycles for leg in self._routes.legs(path))
        way = self[key] = Way(PATH_IDS[path], cycles, path[-1], path[1] == Level.HARDWARE, switches_worlds(path))
        return way


class Routes:
    """Paths of exits on one host, and what they cost there."""

    def __init__(self, configuration: Configuration, costs: Costs) -> None:
        self.configuration = configuration
        self.costs = costs
        self.ways = _Ways(self)

    def legs(self, path: Path) -> list[Leg]:
        """The modelled crossings of a path, in order."""
        costs, stack = self.costs, self.configuration.stack
        return [
            Leg(*leg, costs.of(stack, crossing), _ROWS[costs.profile, stack, crossing], crossing in costs.overrides)
            for leg in pairwise(path)
            if stack in HYPERVISORS and (crossing := CROSSINGS.get(leg)) is not None
        ]

    def packed(self, kind: Exit, kernel: Level) -> int:
        """For native code, of guests whose kernel runs at the level `kernel`: cycles in the lowest 32 bits, above
        them the path ids from user to user, from user to kernel, from kernel to user, and within the kernel."""
        ends = [(origin, to) for origin in (Level.USER, kernel) for to in (Level.USER, kernel)]
        found = [self.ways[kind, origin, to] for origin, to in ends]
        [cycles] = {way.cycles for way in found}
        return sum(way.path << 32 + 8 * index for index, way in enumerate(found)) | cycles
