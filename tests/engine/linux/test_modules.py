"""Kernel modules: what a compiler put into them is what is read; depmod's tables follow."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.commands import LabError
from engine.linux import modules

COMPILER = "riscv64-linux-gnu-gcc"


def _module(folder: Path, name: str, depends: str, *aliases: str) -> bytes:
    """A relocatable file with .modinfo, as linux/module.h makes it."""
    if shutil.which(COMPILER) is None:
        raise RuntimeError(f"{COMPILER} is missing. Install it: apt install gcc-riscv64-linux-gnu")
    rows = ["license=GPL", f"depends={depends}", *(f"alias={alias}" for alias in aliases), f"name={name}"]
    source = "".join(
        f'static const char row{index}[] __attribute__((section(".modinfo"), used)) = "{row}";\n'
        for index, row in enumerate(rows)
    )
    path = folder / f"{name}.ko"
    subprocess.run([COMPILER, "-x", "c", "-c", "-o", path, "-"], input=source.encode(), check=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bytes]]:
    """A little /lib/modules; one module is not packed."""
    folder = tmp_path_factory.mktemp("modules")
    made = {
        "kernel/fs/ext4/ext4.ko": _module(folder, "ext4", "jbd2,crc16", "fs-ext4", "fs-ext3"),
        "kernel/fs/jbd2/jbd2.ko.xz": lzma.compress(_module(folder, "jbd2", "")),
        "kernel/lib/crc16.ko.xz": lzma.compress(_module(folder, "crc16", "")),
        "kernel/drivers/virtio-rng.ko.xz": lzma.compress(_module(folder, "virtio-rng", "", "virtio:d00000004v*")),
    }
    return {modules.module_name(path): (path, content) for path, content in made.items()}


def test_a_module_says_what_it_needs_and_drives(packed: dict[str, tuple[str, bytes]]) -> None:
    ext4 = modules.read(*packed["ext4"])
    assert (ext4.name, ext4.depends, ext4.aliases) == ("ext4", ("jbd2", "crc16"), ("fs-ext4", "fs-ext3"))
    assert modules.read(*packed["virtio_rng"]).name == "virtio_rng"


def test_the_needed_ones_come_first_and_the_built_in_ones_not_at_all(packed: dict[str, tuple[str, bytes]]) -> None:
    found = modules.closure(["virtio_rng", "ext4", "virtio_blk"], packed)
    assert [module.name for module in found] == ["virtio_rng", "jbd2", "crc16", "ext4"]
    assert modules.tables(found) == {
        "modules.dep": b"virtio_rng.ko:\njbd2.ko:\ncrc16.ko:\next4.ko: crc16.ko jbd2.ko\n",
        "modules.alias": b"alias virtio:d00000004v* virtio_rng\nalias fs-ext4 ext4\nalias fs-ext3 ext4\n",
    }


def test_a_circle_is_refused(tmp_path: Path) -> None:
    packed = {name: (f"{name}.ko", _module(tmp_path, name, other)) for name, other in (("a", "b"), ("b", "a"))}
    with pytest.raises(LabError, match="it needs itself"):
        modules.closure(["a"], packed)


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("a.ko", b"", "cut short"),
        ("a.ko", bytes(64), "no 64-bit ELF file"),
        ("a.ko.xz", b"not xz", "a cannot be used"),
    ],
)
def test_what_is_no_module_is_refused(path: str, content: bytes, why: str) -> None:
    with pytest.raises(LabError, match=why):
        modules.read(path, content)


def test_modprobe_reads_its_rows_from_the_end(tmp_path: Path) -> None:
    depends = {"d": "", "c": "d", "b": "d,c", "a": "c,b"}
    packed = {name: (f"{name}.ko", _module(tmp_path, name, others)) for name, others in depends.items()}
    rows = modules.tables(modules.closure(["a"], packed))["modules.dep"].decode().splitlines()
    for row in rows:
        name, *others = row.replace(".ko", "").replace(":", "").split(" ")
        loaded: list[str] = []
        for other in [*reversed(others), name]:
            assert set(filter(None, depends[other].split(","))) <= set(loaded), row
            loaded.append(other)


def test_what_is_rarely_wanted_stays_packed(packed: dict[str, tuple[str, bytes]]) -> None:
    found = {module.name: module for module in modules.closure(["crc16"], packed, ["ext4"])}
    assert list(found) == ["crc16", "jbd2", "ext4"]
    assert found["jbd2"].content == packed["jbd2"][1]
    assert found["crc16"].content == lzma.decompress(packed["crc16"][1])
    rows = modules.tables(found.values())["modules.dep"]
    assert rows == b"crc16.ko:\njbd2.ko.xz:\next4.ko: jbd2.ko.xz crc16.ko\n"
