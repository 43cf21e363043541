"""The board: QEMU's `virt` memory map around some harts, and an image put into its RAM.

    0x00100000 finisher   0x02000000 CLINT   0x0c000000 PLIC   0x10000000 UART   0x80000000 RAM
    0x10001000.. virtio-mmio: block, net, rng, console, a balloon if somebody gives the memory, empty slots

The same board is a bare-metal host's own (its harts are the host's) and a VM's (its harts are the vCPUs'
architectural state and its RAM is what the hypervisor gave it). An image linked at the start of RAM starts on
every hart in M mode; one linked 2 MiB above starts in S mode on hart 0 with built-in firmware below it. a0 is
the hart's id, a1 the device tree, and, if the image is firmware with a kernel above it, a2 says where that is
as OpenSBI's fw_dynamic expects (include/sbi/fw_dynamic.h; fw_jump, which knows, ignores it).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.devices import AccessFault, Device
from engine.devices.clint import Clint
from engine.devices.finisher import Finisher
from engine.devices.plic import Plic
from engine.devices.uart import Uart16550
from engine.devices.virtio.balloon import Balloon
from engine.devices.virtio.block import Block, Disk
from engine.devices.virtio.console import Console
from engine.devices.virtio.mmio import SLOTS, EmptySlot
from engine.devices.virtio.net import Net, mac_address
from engine.devices.virtio.rng import Rng
from engine.isa.table import isa_string
from engine.machine import fdt
from engine.machine.bus import Devices
from engine.machine.domain import Domain
from engine.machine.firmware import Firmware, prepare_supervisor
from engine.machine.hart import TICK_NS, Hart
from engine.machine.loader import RAM_BASE, Content, LoadedImage, check_fits
from engine.machine.state import NEVER
from engine.trace.record import Interrupt

DEVICE_TREE_ALIGN = 1 << 21
_TIMER_INTERRUPTS = (
    1 << Interrupt.MACHINE_TIMER | 1 << Interrupt.SUPERVISOR_TIMER | 1 << Interrupt.VIRTUAL_SUPERVISOR_TIMER
)
#: struct fw_dynamic_info: magic "OSBI", version, next address, its mode (1: S), options, preferred boot hart.
FIRMWARE_INFORMATION = struct.Struct("<6Q")
_OSBI, _VERSION, _SUPERVISOR_NEXT = 0x4942534F, 2, 1


def next_stage(entry: int) -> bytes:
    """What firmware finds at a2: the kernel's entry."""
    return FIRMWARE_INFORMATION.pack(_OSBI, _VERSION, entry, _SUPERVISOR_NEXT, 0, 0)


class Ram(Protocol):
    """A board's RAM by physical address. `read` and `write` take any stretch inside it."""

    size: int

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, data: Content) -> None: ...


class Owner(Protocol):
    """Whoever runs the board: told what leaves it."""

    def output(self, data: bytes) -> None: ...

    def transmit(self, frame: bytes) -> None:
        """The board's network card sends a frame."""
        ...

    def finish(self, status: int) -> None:
        """The guest ended by itself."""
        ...

    def reboot(self) -> None: ...

    def wake(self, hart: int) -> None:
        """Something changed that this hart may be waiting for."""
        ...

    def stolen(self, hart: int) -> int | None:
        """ns that the hart could have run and did not; None where nobody takes the machine away."""
        ...


class Giver(Protocol):
    """Whoever gives a board's RAM page by page, and can have pages back. Pages are physical address >> 12; any number may
    come."""

    def inflated(self, pages: list[int]) -> None:
        """The guest does not need the content of these pages."""
        ...

    def deflated(self, pages: list[int]) -> None:
        """It may use them again."""
        ...


@dataclass(frozen=True, slots=True)
class Fitting:
    """What differs from board to board: the address of its network card, which is also the key of its random
    numbers, and whether it has a disk.
    """

    mac: bytes = mac_address(0)
    disk: Disk | None = None


class Dma:
    """A board's RAM as devices reach it: checked."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram

    def holds(self, address: int, length: int) -> bool:
        return RAM_BASE <= address <= RAM_BASE + self._ram.size - length

    def _check(self, address: int, length: int) -> None:
        if not self.holds(address, length):
            raise AccessFault("dma", address, length)

    def read(self, address: int, length: int) -> bytes:
        self._check(address, length)
        return self._ram.read(address, length)

    def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self._ram.write(address, data)


class Board:
    """Devices around `harts`. `now()` is the board's own time in ns since it was switched on."""

    def __init__(
        self, hart_count: int, ram: Ram, now: Callable[[], int], owner: Owner, fitting: Fitting = Fitting(),
        giver: Giver | None = None,
    ) -> None:  # fmt: skip
        self.ram = ram
        self.owner = owner
        self.now = now
        self.harts: list[Hart] = []
        self.dma = Dma(ram)
        self.disk = fitting.disk
        self.clint = Clint(hart_count, lambda: now() // TICK_NS, self._clint_changed)
        self.plic = Plic(hart_count, self._plic_changed)
        self.uart = Uart16550(lambda level: self.plic.set_level(self.uart.irq, level), self.print_serial)
        self.finisher = Finisher(owner.finish, owner.reboot)
        devices: list[Device] = [self.clint, self.plic, self.uart, self.finisher, *self._slots(fitting, giver)]
        self.devices = Devices(devices)
        self.firmware: Firmware | None = None
        self.domain: Domain | None = None  # of a paravirtual guest
        self.tohost: int | None = None
        self._virtio_spoke = False

    def _slots(self, fitting: Fitting, giver: Giver | None) -> list[Device]:
        """The virtio slots, by their index: each is always the same device's, or empty."""
        dma = self.dma
        slots: list[Device] = [EmptySlot(index) for index in range(SLOTS)]
        if fitting.disk is not None:
            slots[0] = Block(0, dma, self._line(1), fitting.disk)
        slots[1] = self.net = Net(1, dma, self._line(2), fitting.mac, self.owner.transmit)
        slots[2] = Rng(2, dma, self._line(3), fitting.mac)
        slots[3] = self.console = Console(3, dma, self._line(4), self._print_virtio)
        self.balloon: Balloon | None = None
        if giver is not None:
            slots[4] = self.balloon = Balloon(4, dma, self._line(5), giver.inflated, giver.deflated)
        return slots

    def _line(self, source: int) -> Callable[[bool], None]:
        return lambda level: self.plic.set_level(source, level)

    # -- console -------------------------------------------------------------------------------------
    def print_serial(self, data: bytes) -> None:
        """The UART, or firmware in its place, prints."""
        self._virtio_spoke = False
        self.owner.output(data)

    def _print_virtio(self, data: bytes) -> None:
        self._virtio_spoke = True
        self.owner.output(data)

    def receive(self, data: bytes) -> int:
        """Bytes typed on the console; returns how many the guest's queue took.

        A guest may have two consoles. It is listening where it spoke last: that is where its prompt stands.
        """
        if self.domain is not None:
            return self.domain.console.receive(data)
        console = self.console if self._virtio_spoke and self.console.live else self.uart
        return console.receive(data)

    def arrive(self, frames: Sequence[bytes]) -> None:
        """Frames for the network card."""
        if self.domain is not None:
            self.domain.network.receive(frames)
        else:
            self.net.receive(frames)

    # -- start ---------------------------------------------------------------------------------------

    def attach(self, harts: Sequence[Hart]) -> None:
        """The harts that this board's interrupt lines go to, by their numbers."""
        self.harts = list(harts)

    def load_image(self, image: LoadedImage, arguments: str) -> None:
        """Copy the image and a device tree into zeroed RAM and set the harts to its entry. Raises LabError if
        it does not fit."""
        check_fits(image, self.ram.size)
        tree_at = self._place_tree(image, len(self._tree(arguments, (0, 0))))
        initrd_at = (tree_at - len(image.initrd)) & ~0xFFF
        tree = self._tree(arguments, (initrd_at, initrd_at + len(image.initrd)) if image.initrd else None)
        for segment in image.segments:
            self.ram.write(segment.address, segment.data)
        if image.initrd:
            self.ram.write(initrd_at, image.initrd)
        self.ram.write(tree_at, tree)
        information_at = tree_at + (len(tree) + 7 & ~7)
        if image.next_entry is not None:
            self.ram.write(information_at, next_stage(image.next_entry))
        self.tohost = image.tohost
        supervisor = image.start_mode == "S"
        if supervisor:
            self.firmware = Firmware(self)
        for hart in self.harts:
            hart.pc = image.entry
            hart.x[10], hart.x[11] = hart.number, tree_at
            if image.next_entry is not None:
                hart.x[12] = information_at
            if supervisor:
                prepare_supervisor(hart)
                hart.stopped = hart.number != 0

    def _tree(self, arguments: str, initrd: tuple[int, int] | None) -> bytes:
        isa = isa_string(bool(self.harts[0].hypervisor))
        return fdt.board_tree(
            len(self.harts), RAM_BASE, self.ram.size, arguments, isa, self.devices.all, initrd
        )

    def _place_tree(self, image: LoadedImage, tree: int) -> int:
        """As high as possible, 2 MiB aligned where that leaves it clear of the image (the kernel keeps its
        megapages). Below it goes the initial RAM disk, after it what firmware is told."""
        length = tree + FIRMWARE_INFORMATION.size + 8
        below = len(image.initrd) + 4096 if image.initrd else 0
        top = RAM_BASE + self.ram.size
        for align in (DEVICE_TREE_ALIGN, 4096):
            at = (top - length) // align * align
            if at - below >= image.end:
                return at
        # The image fills RAM to its end; the gap below an S-mode image is the firmware's own.
        if image.start_mode == "S":
            return RAM_BASE
        check_fits(image, self.ram.size - length - 4096)
        return (top - length) & ~0xFFF

    # -- interrupt lines -----------------------------------------------------------------------------
    def _clint_changed(self, number: int) -> None:
        hart = self.harts[number]
        hart.time_offset = self.clint.offset
        hart.set_line(Interrupt.MACHINE_SOFTWARE, self.clint.software(number))
        self.update_timer(number)
        self.owner.wake(number)

    def update_timer(self, number: int) -> None:
        """Bring MTIP in line with mtime and mtimecmp, STIP and VSTIP with theirs."""
        self.harts[number].set_line(Interrupt.MACHINE_TIMER, self.clint.timer(number))
        self.harts[number].update_timers()

    def timer_wakes(self, number: int) -> bool:
        """Would a timer end this hart's wfi?"""
        hart = self.harts[number]
        return not hart.stopped and bool(hart.mie & _TIMER_INTERRUPTS)

    def deadline(self, number: int) -> int:
        """Board time (ns) at which a timer line of the hart is to rise (that may have passed); NEVER if none
        will."""
        return min(self.machine_deadline(number), self.supervisor_deadline(number))

    def machine_deadline(self, number: int) -> int:
        """As `deadline`, of MTIP alone."""
        due = self.clint.deadline(number)
        if due is None or self.harts[number].lines >> Interrupt.MACHINE_TIMER & 1:
            return NEVER
        return min(due * TICK_NS, NEVER)

    def supervisor_deadline(self, number: int) -> int:
        """As `deadline`, of the hart's own comparators (Sstc)."""
        return min(self.clint.reached(self.harts[number].timer_due()) * TICK_NS, NEVER)

    def _plic_changed(self, context: int, level: bool) -> None:
        number, supervisor = divmod(context, 2)
        self.harts[number].set_line(
            Interrupt.SUPERVISOR_EXTERNAL if supervisor else Interrupt.MACHINE_EXTERNAL, level
        )
        self.owner.wake(number)

    def look_at_tohost(self) -> None:
        """RAM was written on tohost's page: a program under test reports there as it does to Spike."""
        if self.tohost is not None:
            value = int.from_bytes(self.ram.read(self.tohost, 8), "little")
            if value & 1:
                self.owner.finish(value >> 1 & 0xFFFF)

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        return {
            "devices": {device.name: device.save() for device in self.devices.all},
            "firmware": self.firmware.save() if self.firmware else None,
            "domain": self.domain.save() if self.domain else None,
            "tohost": self.tohost,
            "virtio_spoke": self._virtio_spoke,
        }

    def load(self, state: dict[str, Any]) -> None:
        for device in self.devices.all:
            if device.name in state["devices"] or device is not self.balloon:  # a lab may have been saved before there was one
                device.load(state["devices"][device.name])
        self.firmware = None
        if state["firmware"] is not None:
            self.firmware = Firmware(self)
            self.firmware.load(state["firmware"])
        if self.domain is not None:
            self.domain.load(state["domain"])
        self.tohost = state["tohost"]
        self._virtio_spoke = state["virtio_spoke"]
