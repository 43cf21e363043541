"""virtio-rng: an entropy device whose bytes are reproducible, and therefore no entropy at all.

Virtio 1.2, 5.4. A lab run twice must give the same trace, so the bytes never come from the host: block i is
SHA-256(key || i), i as 64 bits little-endian, with a key that differs from guest to guest; whatever of a
block a buffer does not take is thrown away. Key and i are the whole state and part of every snapshot. Whoever
knows the key knows every byte: keys made in a guest protect nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from engine.devices import GuestMemory, State
from engine.devices.virtio.mmio import VirtioDevice
from engine.devices.virtio.queue import Virtqueue

QUEUE_SIZE = 8
#: Into one buffer. "The device MUST place one or more random bytes into the buffer", not fill it (5.4.6.2).
MOST_BYTES = 4096
BLOCK = hashlib.sha256().digest_size


class Rng(VirtioDevice):
    device_id = 4
    queue_sizes = (QUEUE_SIZE,)

    def __init__(
        self, index: int, memory: GuestMemory, set_line: Callable[[bool], None], key: bytes
    ) -> None:
        super().__init__("virtio-rng", index, memory, set_line)
        self._key = key
        self._block = 0

    def work(self, index: int, queue: Virtqueue) -> None:  # noqa: ARG002
        for chain in queue.chains():
            length = min(chain.room, MOST_BYTES)
            blocks = [self._next_block() for _ in range(-(-length // BLOCK))]
            chain.write(b"".join(blocks)[:length])
            queue.give(chain, length)

    def _next_block(self) -> bytes:
        block = hashlib.sha256(self._key + self._block.to_bytes(8, "little")).digest()
        self._block = (self._block + 1) & (1 << 64) - 1
        return block

    def save(self) -> State:
        return super().save() | {"key": self._key, "block": self._block}

    def load(self, state: State) -> None:
        super().load(state)
        self._key, self._block = bytes(state["key"]), state["block"]
