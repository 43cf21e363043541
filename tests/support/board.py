"""All devices of a board without a machine around them; the test is the hart."""

from __future__ import annotations

from engine.devices import Device
from engine.devices.clint import Clint
from engine.devices.finisher import Finisher
from engine.devices.plic import Plic
from engine.devices.uart import Uart16550
from engine.devices.virtio.mmio import SLOTS, EmptySlot


class Devices:
    """`events` has what left the devices, in order; `now` is the 10 MHz counter."""

    def __init__(self, harts: int = 1) -> None:
        self.now = 0
        self.events: list[tuple[object, ...]] = []
        self.output = bytearray()
        self.clint = Clint(harts, lambda: self.now, lambda hart: self.events.append(("clint", hart)))
        self.plic = Plic(harts, lambda context, level: self.events.append(("plic", context, level)))
        self.uart = Uart16550(self._uart_line, self.output.extend)
        self.finisher = Finisher(
            lambda status: self.events.append(("finish", status)), lambda: self.events.append(("reset",))
        )
        self.all: list[Device] = [
            self.clint, self.plic, self.uart, self.finisher, *(EmptySlot(index) for index in range(SLOTS)),
        ]  # fmt: skip

    def _uart_line(self, level: bool) -> None:
        self.events.append(("uart", level))
        self.plic.set_level(self.uart.irq, level)

    def _at(self, address: int) -> tuple[Device, int]:
        device = next(device for device in self.all if device.base <= address < device.base + device.size)
        return device, address - device.base

    def read(self, address: int, size: int) -> int:
        device, offset = self._at(address)
        return device.read(offset, size)

    def write(self, address: int, size: int, value: int) -> None:
        device, offset = self._at(address)
        device.write(offset, size, value)
