"""Modelled costs of crossing from one level to another: figures of real silicon, each with its source.

Ringside's harts take a trap in one step. What it costs a real processor to leave a guest and to come back is
added to the host's clock from this table, and every record carries the sum for its path, apart from the
instructions that were executed.

The cited figures are those of a processor's own virtualization hardware. Techniques that do without it are charged
the same, so that stacks differ here by what they do and not by whose table was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from engine.trace.record import PATH_IDS, PATHS, Level

_SOURCE = (
    "K. Adams, O. Agesen: A Comparison of Software and Hardware Techniques for x86 Virtualization, "
    "ASPLOS 2006, table 1 (2.66 GHz Core 2 Duo): {}"
)


@dataclass(frozen=True)
class Cost:
    """Crossing path[0] -> path[1] takes `cycles` cycles; one cycle is charged as one nanosecond."""

    path: tuple[Level, Level]
    cycles: int
    source: str


_EXIT, _ENTRY = _SOURCE.format("page fault VM exit"), _SOURCE.format("VM entry")
COSTS: tuple[Cost, ...] = tuple(
    Cost(path, cycles, source)
    for guest in (Level.USER, Level.KERNEL_DEPRIVILEGED, Level.KERNEL)
    for path, cycles, source in (
        ((guest, Level.HYPERVISOR), 1186, _EXIT),
        ((Level.HYPERVISOR, guest), 937, _ENTRY),
    )
)
_BY_CROSSING = {cost.path: cost for cost in COSTS}


def crossings(path: tuple[Level, ...]) -> list[Cost]:
    """The modelled crossings of a path, in order. Deliveries by hardware and calls inside one level are not
    modelled."""
    legs = pairwise(path)
    return [_BY_CROSSING[leg] for leg in legs if leg in _BY_CROSSING]


#: Modelled cycles of every path, by path id.
PATH_CYCLES: tuple[int, ...] = tuple(sum(cost.cycles for cost in crossings(path)) for path in PATHS)


@cache
def exit_path(origin: Level, device: bool, to: Level | None) -> tuple[int, int]:
    """The path id of an exit and what its crossings cost, in cycles. device: a device model took part; to: where
    execution resumes, None where it does not."""
    path: tuple[Level, ...] = (origin, Level.HYPERVISOR)
    if to is not None:
        path += (Level.DEVICE_MODEL, Level.HYPERVISOR, to) if device else (to,)
    return PATH_IDS[path], PATH_CYCLES[PATH_IDS[path]]
