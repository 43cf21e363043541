"""The device tree: against dtc, which we did not write, and against what QEMU tells its guests."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.devices import Label, Node
from engine.machine import fdt
from tests.support.board import Devices
from tests.support.qemu import INSTALL, QEMU

ISA = "rv64ima_zicsr_zifencei"
MIB = 1 << 20


def _blob(harts: int = 2, bootargs: str = "run=demo") -> bytes:
    return fdt.board_tree(harts, 0x80000000, 128 * MIB, bootargs, ISA, Devices(harts).all)


@pytest.fixture(scope="module")
def qemu_tree(tmp_path_factory: pytest.TempPathFactory) -> fdt.Node:
    path = tmp_path_factory.mktemp("qemu") / "virt.dtb"
    if shutil.which(QEMU) is None:
        raise RuntimeError(INSTALL)
    subprocess.run(
        [QEMU, "-machine", f"virt,dumpdtb={path}", "-smp", "2", "-m", "128M", "-display", "none"],
        check=True,
        capture_output=True,
    )
    return fdt.read(path.read_bytes())


def _dtc(*arguments: str, blob: bytes) -> str:
    if shutil.which("dtc") is None:
        raise RuntimeError("dtc is missing. Install it: apt install device-tree-compiler")
    run = subprocess.run(["dtc", *arguments], input=blob, capture_output=True, check=True)
    assert run.stderr == b"", run.stderr.decode()
    return run.stdout.decode()


def test_dtc_reads_the_tree_without_a_warning() -> None:
    source = _dtc("-I", "dtb", "-O", "dts", "-s", blob=_blob())
    assert 'bootargs = "run=demo"' in source
    assert "timebase-frequency = <0x989680>" in source


#: What a hart can do is another matter on this board, and QEMU 7.2 does not yet say it in the newer way.
CPU_OF_OURS = ("riscv,isa", "riscv,isa-base", "riscv,isa-extensions", "mmu-type")
#: Nodes whose properties must be QEMU's, and where ours may differ.
SAME_AS_QEMU = {
    "/memory@80000000": (),
    "/cpus": (),
    "/cpus/cpu@0": CPU_OF_OURS,
    "/cpus/cpu@1": CPU_OF_OURS,
    "/cpus/cpu@1/interrupt-controller": ("#address-cells",),
    "/soc": (),
    "/soc/serial@10000000": (),
    "/soc/plic@c000000": ("riscv,ndev",),
    "/soc/clint@2000000": (),
    "/soc/test@100000": (),
    "/soc/virtio_mmio@10001000": (),
    "/soc/virtio_mmio@10008000": (),
    "/poweroff": (),
    "/reboot": (),
}


def _described(root: fdt.Node, path: str, without: tuple[str, ...]) -> dict[str, object]:
    """A node's properties, with phandles replaced by the path of the node they name."""
    owners: dict[int, str] = {}

    def collect(node: fdt.Node, at: str) -> None:
        if "phandle" in node.properties:
            owners[fdt.cells(node.properties["phandle"])[0]] = at
        for child in node.children:
            collect(child, f"{at}/{child.name}")

    collect(root, "")
    node = fdt.find(root, path)
    assert node is not None, path
    found: dict[str, object] = {}
    for name, value in node.properties.items():
        if name in ("phandle", *without):
            continue
        if name in ("interrupt-parent", "regmap"):
            found[name] = owners[fdt.cells(value)[0]]
        elif name == "interrupts-extended":
            numbers = fdt.cells(value)
            found[name] = [
                (owners[number] if index % 2 == 0 else number) for index, number in enumerate(numbers)
            ]
        else:
            found[name] = value
    return found


@pytest.mark.parametrize("path", SAME_AS_QEMU)
def test_nodes_are_those_of_qemu(path: str, qemu_tree: fdt.Node) -> None:
    ours = fdt.read(_blob())
    without = SAME_AS_QEMU[path]
    assert _described(ours, path, without) == _described(qemu_tree, path, without)


def test_what_differs_from_qemu_is_what_the_board_has() -> None:
    tree = fdt.read(_blob())
    cpu = fdt.find(tree, "/cpus/cpu@0")
    assert cpu is not None
    assert fdt.texts(cpu.properties["riscv,isa"]) == (ISA,)
    assert fdt.texts(cpu.properties["riscv,isa-base"]) == ("rv64i",)
    assert fdt.texts(cpu.properties["riscv,isa-extensions"]) == ("i", "m", "a", "zicsr", "zifencei")
    assert fdt.texts(cpu.properties["mmu-type"]) == ("riscv,sv39",)


def test_chosen_and_initrd() -> None:
    blob = fdt.board_tree(
        1, 0x80000000, MIB, "console=ttyS0 한글", ISA, Devices().all, initrd=(0x84000000, 0x84001000)
    )
    chosen = fdt.find(fdt.read(blob), "/chosen")
    assert chosen is not None
    assert fdt.texts(chosen.properties["bootargs"]) == ("console=ttyS0 한글",)
    assert fdt.texts(chosen.properties["stdout-path"]) == ("/soc/serial@10000000",)
    assert fdt.cells(chosen.properties["linux,initrd-start"]) == (0, 0x84000000)
    assert fdt.cells(chosen.properties["linux,initrd-end"]) == (0, 0x84001000)


def test_bootargs_with_a_nul_are_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        _blob(bootargs="a\0b")


def test_labels_must_be_there_and_be_unique() -> None:
    with pytest.raises(ValueError, match="no node has the label plic"):
        fdt.build(Node("", {"interrupt-parent": (Label("plic"),)}))
    twice = (Node("a", {}, label="x"), Node("b", {}, label="x"))
    with pytest.raises(ValueError, match="two nodes have the label x"):
        fdt.build(Node("", {}, twice))


def test_find_misses() -> None:
    tree = fdt.read(_blob())
    assert fdt.find(tree, "/soc/nothing") is None
    assert fdt.find(tree, "/") is tree


def test_a_newer_blob_and_other_files_are_refused() -> None:
    blob = _blob()
    for damaged, why in (
        (b"", "0 bytes long"),
        (b"\x7fELF" + bytes(60), "magic"),
        (blob[:20] + struct.pack(">II", 99, 90) + blob[28:], "version 99"),
        (blob[:-20], "end after"),
    ):
        with pytest.raises(fdt.FdtError, match=why):
            fdt.read(damaged)


@given(st.data())
def test_no_damage_raises_anything_but_fdt_error(data: st.DataObject) -> None:
    blob = bytearray(_blob(1))
    for _ in range(data.draw(st.integers(1, 8))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        fdt.read(bytes(blob))
    except fdt.FdtError:
        return


def test_nesting_is_bounded() -> None:
    node = Node("leaf", {})
    for _ in range(100):
        node = Node("n", {}, (node,))
    with pytest.raises(fdt.FdtError, match="deeper than 64"):
        fdt.read(fdt.build(node))


def test_properties_of_every_kind_come_back() -> None:
    tree = Node(
        "",
        {"text": "one", "texts": ("one", "two"), "cells": (1, 0xFFFFFFFF), "bytes": b"\1\2\3", "flag": True},
        (Node("child", {}), Node("other@1", {"reg": (1,)})),
    )
    read = fdt.read(fdt.build(tree))
    assert fdt.texts(read.properties["texts"]) == ("one", "two")
    assert fdt.cells(read.properties["cells"]) == (1, 0xFFFFFFFF)
    assert read.properties["bytes"] == b"\1\2\3"
    assert read.properties["flag"] == b""
    assert [child.name for child in read.children] == ["child", "other@1"]
    with pytest.raises(fdt.FdtError, match="not a row of cells"):
        fdt.cells(read.properties["bytes"])
    with pytest.raises(fdt.FdtError, match="not text"):
        fdt.texts(read.properties["bytes"])
