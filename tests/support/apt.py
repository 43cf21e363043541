"""An apt of the tests' own: it knows two little packages made with dpkg-deb, needs no network, and can be told to be
slow or to fail. Put `folder` in front of PATH.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from engine import guests

#: A BusyBox by its table of applets only, and a kernel that prints a line.
BUSYBOX = b"\x7fELF...\0 [\0[[\0acpid\0cat\0init\0sh\0zcat\0\0more\0"
KERNEL = guests.load_image("hello")
RELEASE = "6.99+deb13-riscv64"

_APT_GET = """\
#!/bin/sh
here=$(dirname "$0")
case "$*" in
  *indextargets*) echo http://archive.invalid/debian ;;
  *--print-uris*) for deb in "$here"/*.deb; do echo "'http://a.invalid/x' x $(stat -c %s "$deb") SHA256:0"; done ;;
  *update*) [ ! -f "$here/unreachable" ] || { echo "E: Could not resolve archive.invalid" >&2; exit 100; }
    [ ! -f "$here/parts" ] || ! grep -q trixie "$(dirname "$APT_CONFIG")/sources.list" ||
      { echo "E: File has unexpected size. Mirror sync in progress?" >&2; exit 100; } ;;
  *download*) [ ! -f "$here/slow" ] || sleep 600; cp "$here"/*.deb . ;;
esac
"""
_APT_CACHE = f"#!/bin/sh\necho '  Depends: linux-image-{RELEASE}'\n"


@dataclass(frozen=True)
class Apt:
    folder: Path

    def tell(self, behaviour: str, on: bool) -> None:
        """ "slow": a download does not end; "unreachable": the lists cannot be read; "parts": those of trixie are not
        whole."""
        path = self.folder / behaviour
        path.touch() if on else path.unlink(missing_ok=True)

    @property
    def packages(self) -> list[Path]:
        return sorted(self.folder.glob("*.deb"))


def make_apt(folder: Path) -> Apt:
    if shutil.which("dpkg-deb") is None:
        raise RuntimeError("dpkg-deb is missing. Install it: apt install dpkg")
    for name, path, content in (
        ("linux-image", f"boot/vmlinux-{RELEASE}", KERNEL),
        ("busybox-static", "usr/bin/busybox", BUSYBOX),
    ):
        root = folder / "roots" / name
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(content)
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: riscv64\n"
            "Maintainer: nobody <nobody@example.org>\nDescription: for tests\n"
        )
        subprocess.run(["dpkg-deb", "-b", root, folder / f"{name}.deb"], check=True, capture_output=True)
    for name, script in (("apt-get", _APT_GET), ("apt-cache", _APT_CACHE)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return Apt(folder)
