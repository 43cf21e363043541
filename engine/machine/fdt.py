"""Flattened device tree: how a kernel learns what board it is on. A builder, a reader, and the board's own
tree.

Devicetree specification 0.4, chapter 5. A blob is a header, a memory reservation map, a structure block of
tokens and a strings block with the property names, all big-endian. Labels (`engine.devices.Label`) become
phandles, numbered in the order in which the tree defines them. The nodes follow QEMU's `virt`, so that
kernels written for it find what they look for.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence

from engine.devices import Device, Label, Node, Property, hart_interrupts, registers
from engine.devices.clint import TICKS_PER_SECOND
from engine.devices.uart import Uart16550

MAGIC = 0xD00DFEED
VERSION = 17
LAST_COMPATIBLE_VERSION = 16
HEADER = struct.Struct(">10I")
BEGIN_NODE, END_NODE, PROP, NOP, END = 1, 2, 3, 4, 9
DEPTH_LIMIT = 64
RNG_SEED = hashlib.sha512(b"ringside").digest()


class FdtError(ValueError):
    """A blob that is not a device tree; says at which offset and why."""


def build(root: Node) -> bytes:
    """The blob of a tree. Raises ValueError for a label that no node carries or that two nodes carry."""
    phandles: dict[str, int] = {}
    for node in _walk(root):
        if node.label is not None:
            if node.label in phandles:
                raise ValueError(f"two nodes have the label {node.label}")
            phandles[node.label] = len(phandles) + 1
    strings = bytearray()
    offsets: dict[str, int] = {}
    structure = bytearray()

    def put(name: str, value: bytes) -> None:
        if name not in offsets:
            offsets[name] = len(strings)
            strings.extend(name.encode("ascii") + b"\0")
        structure.extend(struct.pack(">3I", PROP, len(value), offsets[name]) + _padded(value))

    def emit(node: Node) -> None:
        structure.extend(struct.pack(">I", BEGIN_NODE) + _padded(node.name.encode("ascii") + b"\0"))
        for name, value in node.properties.items():
            put(name, _encode(value, phandles))
        if node.label is not None:
            put("phandle", struct.pack(">I", phandles[node.label]))
        for child in node.children:
            emit(child)
        structure.extend(struct.pack(">I", END_NODE))

    emit(root)
    structure += struct.pack(">I", END)
    reservations = bytes(16)
    at_structure = HEADER.size + len(reservations)
    at_strings = at_structure + len(structure)
    header = HEADER.pack(
        MAGIC,
        at_strings + len(strings),
        at_structure,
        at_strings,
        HEADER.size,
        VERSION,
        LAST_COMPATIBLE_VERSION,
        0,
        len(strings),
        len(structure),
    )
    return header + reservations + bytes(structure) + bytes(strings)


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _encode(value: Property, phandles: dict[str, int]) -> bytes:
    if value is True:
        return b""
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return b"".join(_encode_item(item, phandles) for item in value)
    raise ValueError("a property without a value is True; leave it out instead of False")


def _encode_item(item: str | int | Label, phandles: dict[str, int]) -> bytes:
    if isinstance(item, str):
        return item.encode() + b"\0"
    if isinstance(item, Label):
        if item.name not in phandles:
            raise ValueError(f"no node has the label {item.name}")
        item = phandles[item.name]
    return struct.pack(">I", item)


def read(blob: bytes) -> Node:
    """The tree in a blob, every property as raw bytes. Raises FdtError.

    Properties keep their order; `cells` and `texts` interpret their values.
    """
    if len(blob) < HEADER.size:
        raise FdtError(f"a device tree has a header of {HEADER.size} bytes; this is {len(blob)} bytes long")
    magic, total, at_structure, at_strings, _, version, compatible, _, strings_size, structure_size = (
        HEADER.unpack_from(blob)
    )
    if magic != MAGIC:
        raise FdtError(f"the magic at offset 0 is {magic:#010x}, not {MAGIC:#010x}")
    if compatible > VERSION or version < LAST_COMPATIBLE_VERSION:
        raise FdtError(f"version {version} (compatible with {compatible}) cannot be read; 16 and 17 can")
    if total > len(blob) or at_structure + structure_size > total or at_strings + strings_size > total:
        raise FdtError(f"the blocks end after the blob's {len(blob)} bytes")
    strings = blob[at_strings : at_strings + strings_size]
    return _Reader(blob[at_structure : at_structure + structure_size], strings).tree()


class _Reader:
    """Walks the structure block."""

    def __init__(self, structure: bytes, strings: bytes) -> None:
        self._structure = structure
        self._strings = strings
        self._at = 0

    def tree(self) -> Node:
        if self._token() != BEGIN_NODE:
            raise FdtError("the structure block does not begin with a node")
        root = self._node(1)
        if self._token() != END:
            raise FdtError(f"no end token after the root node, at {self._at - 4:#x}")
        return root

    def _word(self) -> int:
        if self._at + 4 > len(self._structure):
            raise FdtError(f"the structure block ends in the middle, at {self._at:#x}")
        (word,) = struct.unpack_from(">I", self._structure, self._at)
        self._at += 4
        return int(word)

    def _token(self) -> int:
        while (token := self._word()) == NOP:
            pass
        return token

    @staticmethod
    def _text(data: bytes, at: int) -> bytes:
        end = data.find(b"\0", at)
        if at > len(data) or end < 0:
            raise FdtError(f"a name at {at:#x} has no end")
        return data[at:end]

    def _node(self, depth: int) -> Node:
        if depth > DEPTH_LIMIT:
            raise FdtError(f"nodes nest deeper than {DEPTH_LIMIT}")
        name = self._text(self._structure, self._at)
        self._at += (len(name) + 4) & ~3
        properties: dict[str, Property] = {}
        children: list[Node] = []
        while (token := self._token()) != END_NODE:
            if token == BEGIN_NODE:
                children.append(self._node(depth + 1))
            elif token == PROP:
                size, at_name = self._word(), self._word()
                if self._at + size > len(self._structure):
                    raise FdtError(f"a property at {self._at - 12:#x} is longer than the structure block")
                key = self._text(self._strings, at_name).decode("latin-1")
                properties[key] = self._structure[self._at : self._at + size]
                self._at += (size + 3) & ~3
            else:
                raise FdtError(f"unknown token {token} at {self._at - 4:#x}")
        return Node(name.decode("latin-1"), properties, tuple(children))


def find(root: Node, path: str) -> Node | None:
    """The node at `/soc/serial@10000000`, or None."""
    node = root
    for name in filter(None, path.split("/")):
        match = next((child for child in node.children if child.name == name), None)
        if match is None:
            return None
        node = match
    return node


def cells(value: Property) -> tuple[int, ...]:
    """A raw property as 32-bit cells."""
    if not isinstance(value, bytes) or len(value) % 4:
        raise FdtError(f"{value!r} is not a row of cells")
    return struct.unpack(f">{len(value) // 4}I", value)


def texts(value: Property) -> tuple[str, ...]:
    """A raw property as its texts."""
    if not isinstance(value, bytes) or not value.endswith(b"\0"):
        raise FdtError(f"{value!r} is not text")
    return tuple(value[:-1].decode().split("\0"))


def board_tree(
    harts: int,
    ram_base: int,
    ram_size: int,
    bootargs: str,
    isa: str,
    devices: Sequence[Device],
    initrd: tuple[int, int] | None = None,
) -> bytes:
    """The device tree of a board: `harts` harts of `isa` (`rv64ima_zicsr_zifencei`) with Sv39, RAM and
    devices.

    `initrd` is the first address and the one after the last. `rng-seed` is what a kernel seeds its random
    numbers with; here it is the same each time, so that a run can be repeated. Raises ValueError if bootargs
    hold a NUL.
    """
    if "\0" in bootargs:
        raise ValueError("bootargs cannot contain a NUL character")
    chosen: dict[str, Property] = {"bootargs": bootargs, "rng-seed": RNG_SEED}
    uart = next((device for device in devices if isinstance(device, Uart16550)), None)
    if uart is not None:
        chosen["stdout-path"] = f"/soc/{uart.nodes()[0].name}"
    if initrd is not None:
        for name, address in zip(("linux,initrd-start", "linux,initrd-end"), initrd, strict=True):
            chosen[name] = (address >> 32, address & 0xFFFFFFFF)
    nodes = [node for device in sorted(devices, key=lambda device: device.base) for node in device.nodes()]
    root = Node(
        "",
        {
            "#address-cells": (2,),
            "#size-cells": (2,),
            "compatible": "riscv-virtio",
            "model": "riscv-virtio,ringside",
        },
        (
            Node("chosen", chosen),
            Node(f"memory@{ram_base:x}", {"device_type": "memory", "reg": registers(ram_base, ram_size)}),
            Node(
                "cpus",
                {
                    "#address-cells": (1,),
                    "#size-cells": (0,),
                    "timebase-frequency": (TICKS_PER_SECOND,),
                },
                tuple(_cpu(hart, isa) for hart in range(harts)),
            ),
            Node(
                "soc",
                {
                    "#address-cells": (2,),
                    "#size-cells": (2,),
                    "compatible": "simple-bus",
                    "ranges": True,
                },
                tuple(node for node in nodes if "@" in node.name),
            ),
            *(node for node in nodes if "@" not in node.name),
        ),
    )
    return build(root)


def isa_extensions(isa: str) -> tuple[str, ...]:
    """The extensions in `rv64ima_zicsr` one by one: ("i", "m", "a", "zicsr")."""
    letters, *names = isa.removeprefix("rv64").split("_")
    return (*letters, *names)


def _cpu(hart: int, isa: str) -> Node:
    return Node(
        f"cpu@{hart:x}",
        {
            "device_type": "cpu",
            "reg": (hart,),
            "status": "okay",
            "compatible": "riscv",
            "riscv,isa": isa,
            "riscv,isa-base": isa[:5],
            "riscv,isa-extensions": isa_extensions(isa),
            "mmu-type": "riscv,sv39",
        },
        (
            Node(
                "interrupt-controller",
                {
                    "compatible": "riscv,cpu-intc",
                    "interrupt-controller": True,
                    "#interrupt-cells": (1,),
                    "#address-cells": (0,),
                },
                label=hart_interrupts(hart).name,
            ),
        ),
    )
