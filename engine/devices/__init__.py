"""What a device is: a range of physical addresses with registers, one device-tree node and a snapshot.

One device, one file. A device knows nothing of the machine it sits in: it gets callbacks for what leaves it
(an interrupt line, console bytes, the end of the run) and RAM, and never imports `engine.machine`. It holds
no clock and draws no random number, so that the same accesses in the same order give the same state.

Offsets count from `base`; values are unsigned. A bus calls `read` and `write` with 1, 2, 4 or 8 bytes. An
offset or width which the real device refuses raises `AccessFault`; the hart turns it into a load or store
access fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: A snapshot: a map of plain values that msgpack can carry.
State = dict[str, Any]


class AccessFault(Exception):  # noqa: N818 (the architecture's name)
    """The device answers with a bus error: there is no register at this offset, or not for this width."""

    def __init__(self, device: str, offset: int, size: int) -> None:
        super().__init__(f"{device}: no {size}-byte access at offset {offset:#x}")


def check_access(device: str, offset: int, size: int, widths: tuple[int, ...], end: int) -> None:
    """Raise AccessFault unless the access is aligned, of one of `widths` bytes, and within 0..`end`."""
    if size not in widths or offset & (size - 1) or not 0 <= offset <= end - size:
        raise AccessFault(device, offset, size)


class GuestMemory(Protocol):
    """The board's RAM as a device reaches it, by guest physical address. Raises AccessFault for a stretch
    that is not wholly RAM; then nothing was written."""

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


@dataclass(frozen=True)
class Label:
    """Stands for the phandle of the node that carries this label (Devicetree specification, 2.3.3)."""

    name: str


#: A property: text, several texts, raw bytes, 32-bit cells (labels become phandles), or True without a value.
Property = str | bytes | bool | tuple[str, ...] | tuple["int | Label", ...]


@dataclass(frozen=True)
class Node:
    """A device-tree node. `name` carries the unit address (`serial@10000000`)."""

    name: str
    properties: Mapping[str, Property]
    children: tuple[Node, ...] = ()
    label: str | None = None


PLIC_LABEL = Label("plic")


def hart_interrupts(hart: int) -> Label:
    """The label of a hart's local interrupt controller node."""
    return Label(f"cpu{hart}_intc")


def registers(base: int, size: int) -> tuple[int, ...]:
    """The value of a `reg` property with two address and two size cells."""
    return (base >> 32, base & 0xFFFFFFFF, size >> 32, size & 0xFFFFFFFF)


class Device(Protocol):
    """A range of registers. `load` restores what `save` returned and calls nobody back."""

    name: str
    base: int
    size: int

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...

    def nodes(self) -> tuple[Node, ...]:
        """Its device-tree nodes: below /soc if they have a unit address, below the root if not."""
        ...

    def save(self) -> State: ...

    def load(self, state: State) -> None: ...
