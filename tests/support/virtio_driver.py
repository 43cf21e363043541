"""A virtio driver, written from the specification and not from the devices: the other half of their tests.

It works through register accesses and guest memory alone, so the same script drives our devices and, through
qtest, QEMU's. Virtio 1.2: initialisation 3.1.1 and 4.2.3.1, split queues 2.7.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.devices import AccessFault

RAM = 0x80000000
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64
F_INDIRECT, F_EVENT_IDX, F_VERSION_1 = 28, 29, 32
NEXT, WRITE, INDIRECT = 1, 2, 4


class Machine(Protocol):
    """Registers and memory by physical address."""

    def read(self, address: int, size: int) -> int: ...

    def write(self, address: int, size: int, value: int) -> None: ...

    def load(self, address: int, length: int) -> bytes: ...

    def store(self, address: int, data: bytes) -> None: ...


class Ram:
    """`size` bytes at RAM, as a device sees them; counts what devices do with it."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.content = bytearray(size)
        self.accesses = 0
        self.moved = 0

    def _offset(self, address: int, length: int) -> int:
        self.accesses += 1
        self.moved += length
        if address < RAM or address + length > RAM + len(self.content):
            raise AccessFault("ram", address, length)
        return address - RAM

    def read(self, address: int, length: int) -> bytes:
        at = self._offset(address, length)
        return bytes(self.content[at : at + length])

    def write(self, address: int, data: bytes) -> None:
        at = self._offset(address, len(data))
        self.content[at : at + len(data)] = data


class RegisterBlock(Protocol):
    base: int

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Bench:
    """Our device on a bench: `make(memory, set_line)` builds it. `line` is its interrupt."""

    def __init__(
        self, make: Callable[[Ram, Callable[[bool], None]], RegisterBlock], ram: int = 1 << 20
    ) -> None:
        self.ram = Ram(ram)
        self.line = False
        self.edges = 0
        self.device = make(self.ram, self._set_line)

    def _set_line(self, level: bool) -> None:
        self.edges += level and not self.line
        self.line = level

    def read(self, address: int, size: int) -> int:
        return self.device.read(address - self.device.base, size)

    def write(self, address: int, size: int, value: int) -> None:
        self.device.write(address - self.device.base, size, value)

    def load(self, address: int, length: int) -> bytes:
        return bytes(self.ram.content[address - RAM : address - RAM + length])

    def store(self, address: int, data: bytes) -> None:
        self.ram.content[address - RAM : address - RAM + len(data)] = data


@dataclass
class Queue:
    """The driver's side of one queue in guest memory."""

    machine: Machine
    index: int
    size: int
    base: int
    available: int = 0
    used: int = 0
    free: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = list(range(self.size))
        self.descriptors = self.base
        self.driver = self.base + 16 * self.size
        self.device = (self.driver + 6 + 2 * self.size + 3) & ~3
        self.end = (self.device + 6 + 8 * self.size + 15) & ~15

    def describe(self, at: int, address: int, length: int, flags: int, following: int = 0) -> None:
        self.machine.store(at, struct.pack("<QIHH", address, length, flags, following))

    def offer(self, parts: Sequence[tuple[int, int, bool]], table: int | None = None) -> int:
        """Make a buffer of (address, length, device writes) available; returns its head. `table`: where to
        put an indirect table."""
        if table is not None:
            for number, (address, length, writes) in enumerate(parts):
                last = number == len(parts) - 1
                flags = (WRITE if writes else 0) | (0 if last else NEXT)
                self.describe(table + 16 * number, address, length, flags, 0 if last else number + 1)
            head = self.free.pop(0)
            self.describe(self.descriptors + 16 * head, table, 16 * len(parts), INDIRECT)
        else:
            chain = [self.free.pop(0) for _ in parts]
            for number, (address, length, writes) in enumerate(parts):
                last = number == len(parts) - 1
                flags = (WRITE if writes else 0) | (0 if last else NEXT)
                following = 0 if last else chain[number + 1]
                self.describe(self.descriptors + 16 * chain[number], address, length, flags, following)
            head = chain[0]
        self.publish(head)
        return head

    def publish(self, head: int) -> None:
        slot = self.driver + 4 + 2 * (self.available % self.size)
        self.machine.store(slot, struct.pack("<H", head))
        self.available = (self.available + 1) & 0xFFFF
        self.machine.store(self.driver + 2, struct.pack("<H", self.available))

    def collect(self) -> list[tuple[int, int]]:
        """(head, bytes written) of the buffers that came back since the last call."""
        (index,) = struct.unpack("<H", self.machine.load(self.device + 2, 2))
        done = []
        while self.used != index:
            entry = self.machine.load(self.device + 4 + 8 * (self.used % self.size), 8)
            done.append(struct.unpack("<II", entry))
            self.used = (self.used + 1) & 0xFFFF
        return done

    def recycle(self, head: int, parts: int, indirect: bool = False) -> None:
        """The descriptors of a returned buffer are free again."""
        for _ in range(1 if indirect else parts):
            (following,) = struct.unpack("<H", self.machine.load(self.descriptors + 16 * head + 14, 2))
            self.free.append(head)
            head = following


class Driver:
    """Brings a device up. `base`: its registers. Queues lie from `memory` on."""

    def __init__(self, machine: Machine, base: int, memory: int = RAM) -> None:
        self.machine = machine
        self.base = base
        self.memory = memory
        self.queues: list[Queue] = []

    def get(self, offset: int) -> int:
        return self.machine.read(self.base + offset, 4)

    def set(self, offset: int, value: int) -> None:
        self.machine.write(self.base + offset, 4, value)

    def config(self, offset: int, size: int) -> int:
        return self.machine.read(self.base + 0x100 + offset, size)

    @property
    def status(self) -> int:
        return self.get(0x70)

    def features(self) -> int:
        self.set(0x14, 0)
        low = self.get(0x10)
        self.set(0x14, 1)
        return low | self.get(0x10) << 32

    def negotiate(self, accepted: int) -> bool:
        """Steps 1 to 6; does the device agree?"""
        self.set(0x70, 0)
        assert self.status == 0
        self.set(0x70, ACKNOWLEDGE)
        self.set(0x70, ACKNOWLEDGE | DRIVER)
        for half in (0, 1):
            self.set(0x24, half)
            self.set(0x20, accepted >> 32 * half & 0xFFFFFFFF)
        self.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        return bool(self.status & FEATURES_OK)

    def add_queue(self, index: int, size: int | None = None) -> Queue:
        self.set(0x30, index)
        assert self.get(0x44) == 0
        largest = self.get(0x34)
        assert largest, f"there is no queue {index}"
        queue = Queue(self.machine, index, size or largest, self.memory)
        self.memory = queue.end
        self.machine.store(queue.base, bytes(queue.end - queue.base))
        self.set(0x38, queue.size)
        for offset, area in ((0x80, queue.descriptors), (0x90, queue.driver), (0xA0, queue.device)):
            self.set(offset, area & 0xFFFFFFFF)
            self.set(offset + 4, area >> 32)
        self.set(0x44, 1)
        self.queues.append(queue)
        return queue

    def start(self, features: int, sizes: Sequence[int | None]) -> None:
        """From reset to DRIVER_OK, with VERSION_1, `features`, and queues of these sizes (None: the
        largest)."""
        assert self.negotiate(features | 1 << F_VERSION_1)
        for index, size in enumerate(sizes):
            self.add_queue(index, size)
        self.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)

    def kick(self, queue: int = 0) -> None:
        self.set(0x50, queue)

    def acknowledge(self) -> int:
        """What the interrupt was about; it is over then."""
        causes = self.get(0x60)
        self.set(0x64, causes)
        return causes

    def room(self, size: int) -> int:
        """An address for a buffer."""
        at = self.memory
        self.memory = (at + size + 15) & ~15
        return at
