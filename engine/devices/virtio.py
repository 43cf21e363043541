"""virtio-mmio: the transport, here as an empty slot. A driver reads device id 0 and looks no further.

    0x000  magic "virt"     0x004  version 2     0x008  device id 0     0x00c  vendor "QEMU"

Virtio 1.2, 4.2.2; "a device id of 0 means that there is no device". QEMU's `virt` has eight such slots from
0x10001000 with interrupts 1 to 8, and says version 1 there unless it runs with `-global
virtio-mmio.force-legacy=false`. As there, a narrower load gets the low bytes of the register at exactly its
offset, and the block is 0x200 bytes long.
"""

from __future__ import annotations

from engine.devices import PLIC_LABEL, Node, State, check_access, registers

SLOTS = 8
MAGIC = 0x74726976
VERSION = 2
VENDOR = 0x554D4551
REGISTERS_END = 0x200
_REGISTERS = {0x0: MAGIC, 0x4: VERSION, 0xC: VENDOR}


class EmptySlot:
    """Slot `index` (0..7) of the board. Writes do nothing; it has no state."""

    def __init__(self, index: int, first_base: int = 0x10001000) -> None:
        if not 0 <= index < SLOTS:
            raise ValueError(f"virtio slots are 0 to {SLOTS - 1}, not {index}")
        self.name = f"virtio{index}"
        self.size = 0x1000
        self.base = first_base + index * self.size
        self.irq = index + 1

    def read(self, offset: int, size: int) -> int:
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)
        value = _REGISTERS.get(offset, 0) | _REGISTERS.get(offset + 4, 0) << 32
        return value & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)

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

    def save(self) -> State:
        return {}

    def load(self, state: State) -> None:
        if state:
            raise ValueError("an empty virtio slot has no state")
