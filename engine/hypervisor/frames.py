"""Host physical memory by the page: who may have a frame. A frame holds zeros when it is handed out.

Guest RAM is promised when a VM is created and taken page by page on first use. What the hypervisor takes for
itself (shadow tables) comes only from what is not promised, so no guest's behaviour can take another's
memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.machine.memory import PAGE, Memory

_ZERO = bytes(PAGE)


class OutOfFramesError(Exception):
    """No frame is free."""


class Frames:
    """Frames `first`.. of a host's memory, by page number from the start of RAM. The latest freed is handed
    out first; where none was freed, the lowest that was never used."""

    def __init__(self, memory: Memory, first: int) -> None:
        self.memory = memory
        self.first = first
        self.total = memory.size // PAGE - first
        self._next = first
        self._free: list[int] = []
        self.promised = 0  # frames promised to guests and not yet taken
        self.reclaim: list[Callable[[], None]] = []  # caches that can give frames back

    @property
    def used(self) -> int:
        return self._next - self.first - len(self._free)

    def take_promised(self) -> int:
        """A zeroed frame for a guest to whom it was promised."""
        frame = self._take()
        self.promised -= 1
        return frame

    def take(self) -> int:
        """A zeroed frame for the hypervisor. Caches are emptied when none is left; raises OutOfFramesError if
        that does not help."""
        if self.total - self.used <= self.promised:
            for give in self.reclaim:
                give()
            self._free.sort()  # in which order the caches were made is not part of a snapshot
            if self.total - self.used <= self.promised:
                raise OutOfFramesError
        return self._take()

    def _take(self) -> int:
        if self._free:
            frame = self._free.pop()
            self.memory.write_bytes(frame * PAGE, _ZERO)
            return frame
        if self._next >= self.first + self.total:
            raise OutOfFramesError
        self._next += 1
        return self._next - 1

    def give_back(self, frame: int) -> None:
        self._free.append(frame)

    def save(self) -> dict[str, Any]:
        return {"next": self._next, "free": list(self._free), "promised": self.promised}

    def load(self, state: dict[str, Any]) -> None:
        self._next, self._free, self.promised = state["next"], list(state["free"]), state["promised"]
