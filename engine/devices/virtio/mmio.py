"""virtio-mmio: eight slots of registers, empty ones and the transport of a device.

    0x000  magic "virt"       0x030  queue select        0x080  descriptor table, 64 bits
    0x004  version 2          0x034  its largest size    0x090  available ring
    0x008  device id          0x038  its size            0x0a0  used ring
    0x00c  vendor "QEMU"      0x044  ready               0x0ac  shared memory: none
    0x010  device features    0x050  notify              0x0fc  configuration generation
    0x014  their half         0x060  interrupt status    0x100  configuration of the device type
    0x020  driver features    0x064  acknowledge
    0x024  their half         0x070  device status

Virtio 1.2, 4.2.2; the legacy interface is not offered, so a driver must accept VERSION_1. In an empty slot
the device id is 0 and nothing else is there. QEMU's `virt` has its slots at 0x10001000 with interrupts 1 to
8, and says version 1 there unless it runs with `-global virtio-mmio.force-legacy=false`. As there, control
registers are 4 bytes wide and other accesses to them do nothing, except that an empty slot gives the low
bytes; a load of 8 bytes is two of 4; the block is 0x200 bytes long.

What a driver may not do and cannot do harm by is ignored: a size that is not a power of two, a change to a
queue in use, features after FEATURES_OK, a queue that does not exist, a notification before DRIVER_OK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from engine.devices import PLIC_LABEL, AccessFault, GuestMemory, Node, State, check_access, registers
from engine.devices.virtio.queue import DriverError, Virtqueue

SLOTS = 8
MAGIC = 0x74726976
VERSION = 2
VENDOR = 0x554D4551
CONFIG = 0x100
REGISTERS_END = 0x200
#: What a driver reads in every slot.
_IDENTITY = {0x0: MAGIC, 0x4: VERSION, 0xC: VENDOR}
#: There is no shared memory region: its length and base read as all ones (4.2.2.1).
_SHARED_MEMORY = range(0xB0, 0xC0, 4)

DRIVER_OK, FEATURES_OK, NEEDS_RESET = 4, 8, 0x40
#: Status bits that a driver sets: ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED.
_DRIVER_STATUS = 0x8F
_LIVE = DRIVER_OK | FEATURES_OK
USED_BUFFER, CONFIG_CHANGED = 1, 2

INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 28, 1 << 29, 1 << 32


class Slot:
    """Where slot `index` (0..7) of a board is, and its interrupt."""

    def __init__(self, name: str, index: int) -> None:
        if not 0 <= index < SLOTS:
            raise ValueError(f"virtio slots are 0 to {SLOTS - 1}, not {index}")
        self.name = name
        self.size = 0x1000
        self.base = 0x10001000 + index * self.size
        self.irq = index + 1

    def nodes(self) -> tuple[Node, ...]:
        return (
            Node(
                f"virtio_mmio@{self.base:x}",
                {
                    "compatible": "virtio,mmio",
                    "reg": registers(self.base, self.size),
                    "interrupts": (self.irq,),
                    "interrupt-parent": (PLIC_LABEL,),
                },
            ),
        )


class EmptySlot(Slot):
    """No device. Writes do nothing; it has no state."""

    def __init__(self, index: int) -> None:
        super().__init__(f"virtio{index}", index)

    def read(self, offset: int, size: int) -> int:
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)
        value = _IDENTITY.get(offset, 0) | _IDENTITY.get(offset + 4, 0) << 32
        return value & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)

    def save(self) -> State:
        return {}

    def load(self, state: State) -> None:
        if state:
            raise ValueError("an empty virtio slot has no state")


class VirtioDevice(Slot):
    """The transport. A device type derives from it: it says what it is, and `work`s on its queues.

    `set_line(level)` drives the slot's interrupt.
    """

    device_id: ClassVar[int]  # virtio 1.2, chapter 5
    queue_sizes: ClassVar[tuple[int, ...]]  # the largest size of each queue

    def __init__(
        self,
        name: str,
        index: int,
        memory: GuestMemory,
        set_line: Callable[[bool], None],
        features: int = 0,
        config: bytes = b"",
    ) -> None:
        super().__init__(name, index)
        self.features = features | VERSION_1 | INDIRECT_DESC | EVENT_IDX
        self.config = config
        self.generation = 0  # of `config`, one byte
        self._set_line = set_line
        self.queues = [Virtqueue(memory, size) for size in self.queue_sizes]
        self.status = self._interrupts = self._accepted = 0
        self._device_half = self._driver_half = self._selected = 0

    def work(self, index: int, queue: Virtqueue) -> None:
        """Do what can be done with queue `index`. Raises DriverError, AccessFault."""
        raise NotImplementedError

    def written(self, at: int, data: bytes) -> None:
        """The driver stored to the configuration."""

    def restart(self) -> None:
        """The driver reset the device: forget what belongs to its last life."""

    # -- for device types ----------------------------------------------------------------------------
    @property
    def live(self) -> bool:
        """May the device use its queues?"""
        return self.status & (_LIVE | NEEDS_RESET) == _LIVE

    def accepted(self, feature: int) -> bool:
        return bool(self._accepted & feature)

    def service(self, index: int) -> None:
        """Work on a queue if the driver runs it, and tell the driver as it wishes."""
        queue = self.queues[index]
        if not self.live or not queue.ready:
            return
        before = queue.given
        try:
            self.work(index, queue)
            if queue.settle(before):
                self._interrupt(USED_BUFFER)
        except (DriverError, AccessFault):
            self.status |= NEEDS_RESET
            self._interrupt(CONFIG_CHANGED)

    def _interrupt(self, bit: int) -> None:
        self._interrupts |= bit
        self._set_line(True)

    # -- registers -----------------------------------------------------------------------------------
    def read(self, offset: int, size: int) -> int:
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)
        if offset >= CONFIG:
            at = offset - CONFIG
            return int.from_bytes(self.config[at : at + size], "little")
        if size == 8:
            return self._read(offset) | self._read(offset + 4) << 32
        return self._read(offset) if size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)
        if offset >= CONFIG:
            self.written(offset - CONFIG, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
            return
        if size < 4:
            return
        self._write(offset, value & 0xFFFFFFFF)
        if size == 8:
            self._write(offset + 4, value >> 32)

    def _read(self, offset: int) -> int:
        if offset in _IDENTITY:
            return _IDENTITY[offset]
        if offset in _SHARED_MEMORY:
            return 0xFFFFFFFF
        queue = self._queue()
        match offset:
            case 0x8:
                return self.device_id
            case 0x10:
                return self.features >> 32 * self._device_half & 0xFFFFFFFF if self._device_half < 2 else 0
            case 0x34:
                return queue.maximum if queue else 0
            case 0x44:
                return int(queue.ready) if queue else 0
            case 0x60:
                return self._interrupts
            case 0x70:
                return self.status
            case 0xFC:
                return self.generation
        return 0

    def _write(self, offset: int, value: int) -> None:
        match offset:
            case 0x14:
                self._device_half = value
            case 0x20:
                if self._driver_half < 2 and not self.status & FEATURES_OK:
                    shift = 32 * self._driver_half
                    self._accepted = self._accepted & ~(0xFFFFFFFF << shift) | value << shift
            case 0x24:
                self._driver_half = value
            case 0x30:
                self._selected = value
            case 0x50:
                if value < len(self.queues):
                    self.service(value)
            case 0x64:
                self._interrupts &= ~value
                if not self._interrupts:
                    self._set_line(False)
            case 0x70:
                self._set_status(value)
            case _:
                queue = self._queue()
                if queue is not None:
                    _configure(queue, offset, value)

    def _queue(self) -> Virtqueue | None:
        return self.queues[self._selected] if self._selected < len(self.queues) else None

    def _set_status(self, value: int) -> None:
        if value == 0:
            self._reset()
            return
        value &= _DRIVER_STATUS
        if value & ~self.status & FEATURES_OK and (
            self._accepted & ~self.features or not self._accepted & VERSION_1
        ):
            value &= ~FEATURES_OK
        self.status |= value
        self._tell_queues()

    def _reset(self) -> None:
        for queue in self.queues:
            queue.reset()
        self.status = self._interrupts = self._accepted = 0
        self._device_half = self._driver_half = self._selected = 0
        self._tell_queues()
        self.restart()
        self._set_line(False)

    def _tell_queues(self) -> None:
        for queue in self.queues:
            queue.event_index, queue.indirect = self.accepted(EVENT_IDX), self.accepted(INDIRECT_DESC)

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> State:
        return {
            "status": self.status,
            "interrupts": self._interrupts,
            "accepted": self._accepted,
            "selected": [self._device_half, self._driver_half, self._selected],
            "queues": [queue.save() for queue in self.queues],
        }

    def load(self, state: State) -> None:
        self.status, self._interrupts, self._accepted = (
            state["status"], state["interrupts"], state["accepted"],
        )  # fmt: skip
        self._device_half, self._driver_half, self._selected = state["selected"]
        for queue, saved in zip(self.queues, state["queues"], strict=True):
            queue.load(saved)
        self._tell_queues()


def _configure(queue: Virtqueue, offset: int, value: int) -> None:
    """A write to a register of the selected queue. A ready queue can only be stopped."""
    if offset == 0x44:
        if value & 1 and not queue.ready:
            queue.start()
        elif not value & 1:
            queue.ready = False
    elif queue.ready:
        return
    elif offset == 0x38:
        if queue.allows(value):
            queue.size = value
    elif offset in _AREAS:
        area, shift = _AREAS[offset]
        old = getattr(queue, area)
        setattr(queue, area, old & ~(0xFFFFFFFF << shift) | value << shift)


#: The halves of the areas' addresses.
_AREAS = {
    at + half: (area, 8 * half)
    for at, area in ((0x80, "descriptors"), (0x90, "driver"), (0xA0, "device"))
    for half in (0, 4)
}
