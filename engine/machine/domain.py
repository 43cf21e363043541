"""What a paravirtual guest has agreed with its hypervisor besides what its vCPU's registers say: the page that they
share, the roots it has pinned, and the back ends of its devices. The board's, so that it goes wherever the guest goes.

The layout of the shared page is in engine.hypervisor.hypercalls; here is only where its grants are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.devices.paravirtual.block import BlockRing
from engine.devices.paravirtual.console import ConsoleRing
from engine.devices.paravirtual.net import NetRings
from engine.devices.paravirtual.ring import GRANTS, PAGE, RequestRing

if TYPE_CHECKING:
    from engine.machine.board import Board

#: Of the shared page, where the grants begin: they are its second half.
GRANTS_AT = PAGE - 8 * GRANTS


class Domain:
    """`raise_event(channel)`, the hypervisor's, makes an event pending; the channels of console, disk and network."""

    raise_event: Callable[[int], None]

    def __init__(self, board: Board, console: int, block: int, network: int) -> None:
        self.shared: int | None = None  # the shared page's address
        self.pins: list[int] = []  # pages, in the order in which they were pinned
        self._board = board
        memory, disk = board.dma, board.disk
        self.console = ConsoleRing(memory, board.print_serial, lambda: self.raise_event(console))
        rings = [RequestRing(memory, self._granted) for _ in range(3)]
        self.block = BlockRing(rings[0], disk, lambda: self.raise_event(block))
        self.network = NetRings(rings[1], rings[2], board.owner.transmit, lambda: self.raise_event(network))
        self._rings = rings

    def _granted(self, number: int) -> int:
        if self.shared is None:
            return 0
        return int.from_bytes(self._board.ram.read(self.shared + GRANTS_AT + 8 * number, 8), "little")

    def save(self) -> dict[str, Any]:
        return {
            "shared": self.shared,
            "pins": list(self.pins),
            "console": self.console.save(),
            "rings": [ring.save() for ring in self._rings],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Raises ValueError for what no guest can have agreed to."""
        shared, pins = state["shared"], list(state["pins"])
        rings = [state["console"]["page"], *(ring["page"] for ring in state["rings"])]
        for address in (shared, *rings, *(page << 12 for page in pins)):
            if address is not None and (address % PAGE or not self._board.dma.holds(address, PAGE)):
                raise ValueError(f"a shared page at {address:#x}, where the guest has no page of its memory")
        if len(set(pins)) != len(pins):
            raise ValueError("a page-table root that is pinned twice")
        self.shared, self.pins = shared, pins
        self.console.load(state["console"])
        for ring, saved in zip(self._rings, state["rings"], strict=True):
            ring.load_state(saved)
