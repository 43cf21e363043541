"""The physical address map: RAM and devices, as a hart and its page-table walker reach them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from engine.devices import AccessFault, Device
from engine.machine.memory import Memory


class Devices:
    """Finds the device at a physical address."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.all = sorted(devices, key=lambda device: device.base)
        self._bases = [device.base for device in self.all]
        self._latest: Device | None = None

    def at(self, address: int) -> Device:
        """Raises AccessFault where there is none."""
        latest = self._latest
        if latest is not None and 0 <= address - latest.base < latest.size:
            return latest
        index = bisect_right(self._bases, address) - 1
        if index >= 0:
            device = self.all[index]
            if address < device.base + device.size:
                self._latest = device
                return device
        raise AccessFault("bus", address, 0)

    def read(self, address: int, size: int) -> int:
        device = self.at(address)
        return device.read(address - device.base, size)

    def write(self, address: int, size: int, value: int) -> None:
        device = self.at(address)
        device.write(address - device.base, size, value & ((1 << (8 * size)) - 1))


class Bus:
    """RAM plus devices. Accesses stay within one page; everything raises AccessFault where nothing
    answers."""

    def __init__(self, memory: Memory, devices: Devices) -> None:
        self.memory = memory
        self.devices = devices

    def offset(self, address: int) -> int | None:
        """Offset into `memory` of a physical address that harts may cache; None: ask the bus each time."""
        offset = address - self.memory.base
        return offset if 0 <= offset < self.memory.size else None

    def is_ram(self, address: int) -> bool:
        """Only main memory supports atomics and reservations (PMA, section 3.6.3)."""
        return self.offset(address) is not None

    def read(self, address: int, size: int) -> int:
        offset = self.offset(address)
        return self.devices.read(address, size) if offset is None else self.memory.read(offset, size)

    def write(self, address: int, size: int, value: int) -> None:
        offset = self.offset(address)
        if offset is None:
            self.devices.write(address, size, value)
        else:
            self.memory.write(offset, size, value)

    def read_entry(self, address: int) -> int:
        """A page-table entry; from then on its page is known as a table."""
        offset = self.offset(address)
        if offset is None:
            raise AccessFault("page-table walker", address, 8)
        self.memory.use_as_table(offset)
        return self.memory.views[3][offset >> 3]

    def write_entry(self, address: int, entry: int) -> None:
        self.memory.set_entry(address - self.memory.base, entry)
