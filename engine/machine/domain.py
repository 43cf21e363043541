"""What a paravirtual guest has agreed with its hypervisor besides what its vCPU's registers say: the page that they
share, the roots it has pinned, and the back ends of its devices. The board's, so that it goes wherever the guest goes.

The layout of the shared page is in engine.hypervisor.hypercalls; here is only where its words are that devices touch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.devices.paravirtual.console import ConsoleRing

if TYPE_CHECKING:
    from engine.machine.board import Board


class Domain:
    """`raise_event(channel)`, the hypervisor's, makes an event pending."""

    raise_event: Callable[[int], None]

    def __init__(self, board: Board, console_event: int) -> None:
        self.shared: int | None = None  # the shared page's address
        self.pins: list[int] = []  # pages, in the order in which they were pinned
        self.console = ConsoleRing(board.dma, board.print_serial, lambda: self.raise_event(console_event))

    def save(self) -> dict[str, Any]:
        return {"shared": self.shared, "pins": list(self.pins), "console": self.console.save()}

    def load(self, state: dict[str, Any]) -> None:
        self.shared, self.pins = state["shared"], list(state["pins"])
        self.console.load(state["console"])
