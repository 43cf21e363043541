"""virtio-console: the guest's console without a register access for every byte.

Virtio 1.2, 5.3: one port, no size. Queue 0 takes what is typed, queue 1 has what the guest prints. What was
typed waits here until the guest offers a buffer, at most INPUT_BYTES of it, as in the UART's queue.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.devices import GuestMemory, State
from engine.devices.virtio.mmio import VirtioDevice
from engine.devices.virtio.queue import Virtqueue

RECEIVE, TRANSMIT = 0, 1
QUEUE_SIZE = 64
INPUT_BYTES = 4096
#: Of one printed buffer; a Linux driver prints up to 32 KiB at once.
OUTPUT_BYTES = 64 << 10


class Console(VirtioDevice):
    """`output(data)` gets what the guest prints."""

    device_id = 3
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(
        self,
        index: int,
        memory: GuestMemory,
        set_line: Callable[[bool], None],
        output: Callable[[bytes], None],
    ) -> None:
        super().__init__("virtio-console", index, memory, set_line)
        self._output = output
        self._input = b""

    def receive(self, data: bytes) -> int:
        """Bytes typed; returns how many there was room for."""
        taken = data[: INPUT_BYTES - len(self._input)]
        self._input += taken
        self.service(RECEIVE)
        return len(taken)

    def work(self, index: int, queue: Virtqueue) -> None:
        if index == TRANSMIT:
            for chain in queue.chains():
                self._output(chain.read(OUTPUT_BYTES))
                queue.give(chain, 0)
            return
        waiting = queue.waiting()
        while self._input and waiting:
            chain = queue.take()
            piece = self._input[: chain.room]
            chain.write(piece)
            self._input = self._input[len(piece) :]
            queue.give(chain, len(piece))
            waiting -= 1

    def restart(self) -> None:
        self._input = b""

    def save(self) -> State:
        return super().save() | {"input": self._input}

    def load(self, state: State) -> None:
        super().load(state)
        self._input = state["input"][:INPUT_BYTES]
