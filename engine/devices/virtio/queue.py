"""Split virtqueues: three areas in guest memory through which driver and device hand buffers to each other.

    the driver writes   descriptor table   size x { address u64, length u32, flags u16, next u16 }
                        available ring     flags u16, index u16, size x head u16, used_event u16
    the device writes   used ring          flags u16, index u16, size x { head u32, length u32 },
                                           avail_event u16

Virtio 1.2, 2.7. The driver is not trusted: every index and length is checked where it is used, and a chain
ends after as many descriptors as the largest queue has. Reads and writes outside RAM raise AccessFault;
everything else that the specification forbids raises DriverError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.devices import GuestMemory

NEXT, WRITE, INDIRECT = 1, 2, 4
NO_INTERRUPT = 1
_DESCRIPTOR = struct.Struct("<QIHH")
_USED = struct.Struct("<II")

#: (address, length) of a buffer in guest memory
Part = tuple[int, int]


class DriverError(Exception):
    """The driver broke a rule of the specification; says which."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A buffer that the driver made available: parts that the device may read, then parts that it may
    write."""

    memory: GuestMemory
    head: int
    readable: list[Part]
    writable: list[Part]

    @property
    def room(self) -> int:
        """How many bytes the device may write."""
        return sum(length for _, length in self.writable)

    def read(self, limit: int) -> bytes:
        """Everything readable. Raises DriverError if that is more than `limit` bytes."""
        if sum(length for _, length in self.readable) > limit:
            raise DriverError(f"a buffer of more than {limit} bytes")
        return b"".join(self.memory.read(address, length) for address, length in self.readable)

    def write(self, data: bytes, at: int = 0) -> None:
        """Put `data` into the writable parts from their byte `at` on. Raises DriverError if it does not
        fit."""
        done = 0
        for address, length in self.writable:
            if at < length:
                piece = data[done : done + length - at]
                if piece:
                    self.memory.write(address + at, piece)
                    done += len(piece)
                at = 0
            else:
                at -= length
        if done < len(data):
            raise DriverError(f"{len(data)} bytes do not fit into a buffer")


class Virtqueue:
    """The device's side of one queue. `event_index`, `indirect`: features as negotiated."""

    def __init__(self, memory: GuestMemory, maximum: int) -> None:
        self.memory = memory
        self.maximum = maximum
        self.event_index = self.indirect = False
        self.reset()

    def reset(self) -> None:
        self.size = self.maximum
        self.descriptors = self.driver = self.device = 0
        self.ready = False
        self._next_available = self._next_used = 0

    def start(self) -> None:
        """The driver made the queue ready: it begins at index 0 of both rings."""
        self.ready = True
        self._next_available = self._next_used = 0

    # -- available ring ------------------------------------------------------------------------------
    def chains(self) -> Iterator[Chain]:
        """Take what is available now; what the driver adds meanwhile is for the next notification."""
        for _ in range(self.waiting()):
            yield self.take()

    def waiting(self) -> int:
        """How many buffers are available."""
        count = (self._word(self.driver + 2) - self._next_available) & 0xFFFF
        if count > self.size:
            raise DriverError(f"{count} buffers in a queue of {self.size}")
        return count

    def take(self) -> Chain:
        """The next available buffer; there must be one."""
        slot = self._next_available % self.size
        chain = self._chain(self._word(self.driver + 4 + 2 * slot))
        self._next_available = (self._next_available + 1) & 0xFFFF
        return chain

    def put_back(self) -> None:
        """The buffer taken last is available again."""
        self._next_available = (self._next_available - 1) & 0xFFFF

    def _chain(self, head: int) -> Chain:
        readable: list[Part] = []
        writable: list[Part] = []
        table, count, index, inside = self.descriptors, self.size, head, False
        left = self.maximum
        while True:
            if index >= count:
                raise DriverError(f"descriptor {index} of {count}")
            raw = self.memory.read(table + _DESCRIPTOR.size * index, _DESCRIPTOR.size)
            address, length, flags, index = _DESCRIPTOR.unpack(raw)
            if flags & INDIRECT:
                if not self.indirect or inside or flags & NEXT:
                    raise DriverError("an indirect descriptor where none may be")
                if not length or length % _DESCRIPTOR.size:
                    raise DriverError(f"an indirect table of {length} bytes")
                table, count, index, inside = address, length // _DESCRIPTOR.size, 0, True
                continue
            if flags & WRITE:
                writable.append((address, length))
            elif writable:
                raise DriverError("a readable part after a writable one")
            else:
                readable.append((address, length))
            if not flags & NEXT:
                return Chain(self.memory, head, readable, writable)
            left -= 1
            if not left:
                raise DriverError(f"a chain of more than {self.maximum} descriptors")

    # -- used ring -----------------------------------------------------------------------------------
    def give(self, chain: Chain, written: int) -> None:
        """Return a buffer into which the device wrote `written` bytes."""
        slot = self.device + 4 + _USED.size * (self._next_used % self.size)
        self.memory.write(slot, _USED.pack(chain.head, written))
        self._next_used = (self._next_used + 1) & 0xFFFF
        self.memory.write(self.device + 2, self._next_used.to_bytes(2, "little"))

    @property
    def given(self) -> int:
        """Buffers returned so far, modulo 2**16."""
        return self._next_used

    def settle(self, given_before: int) -> bool:
        """At the end of a piece of work: say which buffer the device wants to hear of next (2.7.10), and
        answer whether the driver wants to hear of those returned since `given_before` (2.7.7)."""
        given = (self._next_used - given_before) & 0xFFFF
        if not self.event_index:
            return given > 0 and not self._word(self.driver) & NO_INTERRUPT
        at = self.device + 4 + _USED.size * self.size
        self.memory.write(at, self._next_available.to_bytes(2, "little"))
        event = self._word(self.driver + 4 + 2 * self.size)
        return (self._next_used - event - 1) & 0xFFFF < given

    def _word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 2), "little")

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "areas": [self.descriptors, self.driver, self.device],
            "ready": self.ready,
            "next": [self._next_available, self._next_used],
        }

    def load(self, state: dict[str, Any]) -> None:
        if not self.allows(state["size"]):
            raise ValueError(f"a virtqueue of {state['size']}")
        self.size, self.ready = state["size"], state["ready"]
        self.descriptors, self.driver, self.device = state["areas"]
        self._next_available, self._next_used = (index & 0xFFFF for index in state["next"])

    def allows(self, size: int) -> bool:
        """May the queue have this size?"""
        return 0 < size <= self.maximum and not size & (size - 1)
