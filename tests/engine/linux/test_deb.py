"""Debian packages: what dpkg-deb makes is read, and what anybody breaks is refused."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.commands import LabError
from engine.linux import deb

FILES = {"usr/bin/busybox": b"\x7fELF" + bytes(range(256)) * 40, "boot/vmlinux-6.1": b"kernel", "etc/empty": b""}


def _package(folder: Path, compression: str) -> bytes:
    if shutil.which("dpkg-deb") is None:
        raise RuntimeError("dpkg-deb is missing. Install it: apt install dpkg")
    root = folder / "root"
    for path, content in {**FILES, "DEBIAN/control": b""}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "usr/bin/sh").symlink_to("busybox")
    (root / "DEBIAN/control").write_text(
        "Package: test\nVersion: 1\nArchitecture: riscv64\nMaintainer: nobody <n@example.org>\nDescription: test\n"
    )
    path = folder / "test.deb"
    subprocess.run(["dpkg-deb", f"-Z{compression}", "-b", root, path], check=True, capture_output=True)
    return path.read_bytes()


def _everything(_path: str) -> bool:
    return True


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _package(tmp_path_factory.mktemp("deb"), "xz")


@pytest.mark.parametrize("compression", ["xz", "zstd", "none"])
def test_what_dpkg_deb_makes_is_read(compression: str, tmp_path: Path) -> None:
    found = dict(deb.files(_package(tmp_path, compression), "test.deb", _everything))
    assert found == FILES


def test_only_what_is_wanted_is_read(package: bytes) -> None:
    assert list(deb.files(package, "test.deb", lambda path: path.startswith("boot/"))) == [
        ("boot/vmlinux-6.1", b"kernel")
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin"),
        (b"PK\3\4", "does not begin"),
        (b"!<arch>\n", "no data.tar"),
        (b"!<arch>\n" + b"x" * 60, "offset 8"),
        (b"!<arch>\n" + b"data.tar.lzma".ljust(48) + b"0".ljust(10) + b"`\n", "packed as"),
        (b"!<arch>\n" + b"data.tar.xz".ljust(48) + b"99".ljust(10) + b"`\n", "ends inside data.tar.xz"),
        (b"!<arch>\n" + b"data.tar.xz".ljust(48) + b"4".ljust(10) + b"`\nabcd", "test.deb"),
    ],
)
def test_what_is_no_package_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(LabError, match=why) as caught:
        list(deb.files(content, "test.deb", _everything))
    assert caught.value.problem.key == "package-damaged"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_raises_anything_but_a_refusal(package: bytes, data: st.DataObject) -> None:
    damaged = bytearray(package[: data.draw(st.integers(0, len(package)))])
    for _ in range(data.draw(st.integers(0, 6)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(LabError):
        list(deb.files(bytes(damaged), "test.deb", _everything))
