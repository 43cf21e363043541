"""The initial RAM disk, read back by a reader written from the format's description alone; that Linux itself takes
it is proved in tests/conformance/test_linux.py.
"""

from __future__ import annotations

import stat

import pytest

from engine.commands import LabError
from engine.linux import cpio, initrd
from engine.linux.modules import Module

BUSYBOX = b"\x7fELF...\0 [\0[[\0acpid\0cat\0init\0sh\0zcat\0\0more\0"
DRIVERS = [
    Module("virtio_mmio", b"one", (), ("of:N*T*Cvirtio,mmioC*",)),
    Module("net", b"three", ("virtio_mmio",), ()),
]


def _members(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """name -> (mode, content, device), by the "newc" format of buffer-format.rst."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, check = fields
        assert (uid, gid, mtime, check) == (0, 0, 0, 0)
        name = archive[at + 110 : at + 109 + name_size].decode()
        assert archive[at + 109 + name_size] == 0
        at = (at + 110 + name_size + 3) & ~3
        content = archive[at : at + size]
        at = (at + size + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(archive)
            return found
        found[name] = mode, content, (major, minor)


def test_everything_that_goes_in_comes_out() -> None:
    members = [
        cpio.folder("bin"),
        cpio.file("bin/a", b"12345", executable=True),
        cpio.file("b", b""),
        cpio.link("c", "bin/a"),
        cpio.character_device("console", 5, 1),
    ]
    assert _members(cpio.pack(members)) == {
        "bin": (0o040755, b"", (0, 0)),
        "bin/a": (0o100755, b"12345", (0, 0)),
        "b": (0o100644, b"", (0, 0)),
        "c": (0o120777, b"bin/a", (0, 0)),
        "console": (0o020600, b"", (5, 1)),
    }


def test_busybox_names_itself() -> None:
    assert initrd.applets(BUSYBOX) == ["[", "[[", "acpid", "cat", "init", "sh", "zcat"]


@pytest.mark.parametrize("program", [b"", b"\x7fELF no table", b"[\0[[\0acpid\0", b"[\0[[\0a" + b"x" * 100])
def test_what_is_no_busybox_is_refused(program: bytes) -> None:
    with pytest.raises(LabError, match="no BusyBox"):
        initrd.applets(program)


def test_a_disk_has_an_init_a_console_every_applet_and_the_drivers() -> None:
    archive = initrd.build(BUSYBOX, "6.12-riscv64", DRIVERS)
    members = _members(archive)
    assert archive == initrd.build(BUSYBOX, "6.12-riscv64", DRIVERS)
    assert members["bin/busybox"][1] == BUSYBOX
    assert members["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert members["init"][1] == b"bin/busybox"
    assert {members[f"bin/{name}"][1] for name in initrd.applets(BUSYBOX)} == {b"busybox"}
    home = "lib/modules/6.12-riscv64"
    assert members[f"{home}/net.ko"][1] == b"three"
    assert members[f"{home}/modules.dep"][1] == b"virtio_mmio.ko:\nnet.ko: virtio_mmio.ko\n"
    names = list(members)
    for name in names:
        folder = name.rpartition("/")[0]
        assert not folder or names.index(folder) < names.index(name), f"{name} comes before its folder"
