"""virtio-balloon: a device that asks the guest for pages and gets their numbers, so that nobody needs frames for them.

Virtio 1.2, 5.5. The driver reads in the configuration how many pages the balloon should hold (`num_pages`), puts the
numbers of pages that it will not use into the first queue (inflate) or those that it wants back into the second
(deflate), and says how many it holds now (`actual`). What happens to a page is the owner's business: `inflated(pages)`.
A page that the guest touches while it is in the balloon is there again, with zeros; MUST_TELL_HOST is not offered, so
that telling is a courtesy; DEFLATE_ON_OOM is, so that a driver may take pages out when it has no others. None of the
numbers is trusted: a page outside the guest's RAM is nobody's.

`wished`: pages that somebody wants the balloon to hold; `asked`: that the host needs. The larger is what the guest is told.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.devices import GuestMemory, State
from engine.devices.virtio.mmio import CONFIG_CHANGED, VirtioDevice
from engine.devices.virtio.queue import Virtqueue

DEFLATE_ON_OOM = 1 << 2
QUEUE_SIZE = 128
INFLATE, DEFLATE = 0, 1
#: In one buffer; Linux sends 256 pages at a time.
MOST_PAGES = 4096
_WORD = 4
_ACTUAL = range(4, 8)


class Balloon(VirtioDevice):
    device_id = 5
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(
        self,
        index: int,
        memory: GuestMemory,
        set_line: Callable[[bool], None],
        inflated: Callable[[list[int]], None],
        deflated: Callable[[list[int]], None],
    ) -> None:
        super().__init__("virtio-balloon", index, memory, set_line, DEFLATE_ON_OOM)
        self._inflated, self._deflated = inflated, deflated
        self.wished = self.asked = self.actual = 0
        self._configure()

    @property
    def target(self) -> int:
        """Pages that the balloon should hold."""
        return max(self.wished, self.asked)

    def ask(self, wished: int, asked: int) -> None:
        """Change what the balloon should hold, and tell the driver."""
        before, self.wished, self.asked = self.target, wished, asked
        if self.target == before:
            return
        self.generation = self.generation + 1 & 0xFF
        self._configure()
        self.remind()

    def remind(self) -> None:
        """Tell the driver to look again: it may have pages by now that it had not before."""
        if self.live:
            self._interrupt(CONFIG_CHANGED)

    def _configure(self) -> None:
        self.config = self.target.to_bytes(_WORD, "little") + self.actual.to_bytes(_WORD, "little")

    def written(self, at: int, data: bytes) -> None:
        """Of the configuration the driver may write `actual` alone."""
        if at == _ACTUAL.start and len(data) == _WORD:
            self.actual = int.from_bytes(data, "little")
            self._configure()

    def work(self, index: int, queue: Virtqueue) -> None:
        for chain in queue.chains():
            listed = chain.read(MOST_PAGES * _WORD)
            pages = np.frombuffer(listed[: len(listed) // _WORD * _WORD], "<u4").tolist()
            (self._inflated if index == INFLATE else self._deflated)(pages)
            queue.give(chain, 0)

    def restart(self) -> None:
        self.actual = 0
        self._configure()

    def save(self) -> State:
        return super().save() | {"pages": [self.wished, self.asked, self.actual], "generation": self.generation}

    def load(self, state: State) -> None:
        super().load(state)
        self.wished, self.asked, self.actual = (number & 0xFFFFFFFF for number in state["pages"])
        self.generation = state["generation"]
        self._configure()
