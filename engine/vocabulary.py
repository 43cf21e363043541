"""Every name that the page needs to say what a record means, gathered from the tables that own them.

The trace's schema names its own enumerations; the operands of its actions are numbers of other tables (CSRs,
SBI calls, device registers), which sit above it in the layers. So that no number is typed a second time in
JavaScript, a keyframe carries them all.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from engine.compare import GUESTS, WORKLOADS
from engine.devices.virtio.block import Disk
from engine.hypervisor.hypercalls import Event, Number
from engine.hypervisor.scheduling import SCHEDULERS
from engine.hypervisor.stacks import GENERATIONS, STACKS, SWITCHES
from engine.isa.csrs import CSRS
from engine.isa.table import REGISTERS
from engine.machine import sbi
from engine.machine.board import Board, Fitting
from engine.trace import record


class _Nowhere:
    """A board's surroundings when only its memory map is wanted: no RAM, nobody to tell."""

    size = 0

    def read(self, address: int, length: int) -> bytes:
        raise IndexError(f"there is no RAM for {length} bytes at {address:#x}")

    def write(self, address: int, data: bytes | memoryview) -> None: ...

    def output(self, data: bytes) -> None: ...

    def transmit(self, frame: bytes) -> None: ...

    def finish(self, status: int) -> None: ...

    def reboot(self) -> None: ...

    def wake(self, hart: int) -> None: ...

    def stolen(self, hart: int) -> None: ...

    def inflated(self, pages: list[int]) -> None: ...

    def deflated(self, pages: list[int]) -> None: ...


@cache
def vocabulary() -> dict[str, Any]:
    """`record.schema()` and, beside it:

    registers: [32 names of x0..x31]; csrs: {"384": "satp"}; devices: [[name, base, size]] of the board;
    sbi: {"<extension id>": {"name": "TIME", "functions": {"<id>": "set_timer"}}}; hypercalls: {"4": "pin"}; events, by
    their bits: {"0": "timer"}. Keys are decimal numbers.
    stacks: {id: {"type": 1, 2 or None, "techniques": [id], "scheduler": id or None}}, the first technique being its
    usual one; schedulers: [id];
    switches: {id: {"stacks": [id], "techniques": [id]}}: where each means something. generations: [[id]], the switches
    of each generation of hardware assist.
    workloads: {"guests": [image, the builds of their kernel], "counts": {name: how often, usually}, "disk": [those that
    need one]}.
    """
    calls: dict[str, dict[str, Any]] = {}
    for row in sbi.TABLE:
        extension = calls.setdefault(str(row.extension.value), {"name": row.extension.name, "functions": {}})
        extension["functions"][str(row.function)] = row.name.removeprefix("sbi_")
    board = Board(1, _Nowhere(), lambda: 0, _Nowhere(), Fitting(disk=Disk(b"")), giver=_Nowhere())
    return {
        **record.schema(),
        "registers": list(REGISTERS),
        "csrs": {str(number): row.name for number, row in CSRS.items()},
        "sbi": calls,
        "stacks": {
            name: {
                "type": stack.hypervisor_type,
                "techniques": list(stack.techniques),
                "scheduler": stack.scheduler if stack.techniques else None,
            }
            for name, stack in STACKS.items()
        },
        "schedulers": list(SCHEDULERS),
        "switches": {
            name: {"stacks": list(switch.stacks), "techniques": list(switch.techniques)}
            for name, switch in SWITCHES.items()
        },
        "workloads": {
            "guests": list(GUESTS),
            "counts": {name: row.count for name, row in WORKLOADS.items()},
            "disk": [name for name, row in WORKLOADS.items() if row.disk],
        },
        "generations": [list(generation) for generation in GENERATIONS],
        "hypercalls": {str(number.value): number.name.lower() for number in Number},
        "events": {str(event.value): event.name.lower() for event in Event},
        "devices": [[device.name, device.base, device.size] for device in board.devices.all],
    }
