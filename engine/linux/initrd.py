"""The initial RAM disk of a Linux machine: BusyBox, a shell on the console, the drivers of this board's
devices.

    kernel ─> /init = busybox init ─> /etc/inittab ─┬─ sysinit   /etc/rc: mounts, drivers, a greeting
                                                    └─ respawn   a shell that owns the console (job control)

The archive is not compressed: unpacking would cost the guest more instructions than copying. Only what is
rarely needed is packed. It is a function of its inputs, so the same packages give the same machine and the
same trace.

What the drivers are for is found out in the guest: /etc/rc offers the alias of every virtio device to
modprobe, so a machine without a disk does not spend time on one. A network card gets the address 10.0.x.y,
where x and y are the last two bytes of its hardware address: guests of a lab can reach each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.commands import LabError
from engine.linux import cpio, modules
from engine.linux.modules import Module

#: Drivers for this board's devices, and for what is usually on its disks; all else that they need follows.
WANTED_MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng")
RARE_MODULES = ("ext4",)
#: The first two of BusyBox's names for itself, as its table of them begins.
_TABLE_BEGINS = b"[\0[[\0a"
_APPLETS_LIMIT = 1000
_APPLET_NAME_LIMIT = 32
_FOLDERS = (
    "bin", "dev", "etc", "lib", "lib/modules", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr",
    "usr/bin", "usr/sbin", "var", "var/log",
)  # fmt: skip

_INITTAB = """\
::sysinit:/etc/rc
::respawn:-/bin/cttyhack /bin/sh -l
::ctrlaltdel:/sbin/reboot
"""

_RC = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
hostname ringside
ifconfig lo 127.0.0.1
modprobe -q virtio_mmio
cat /sys/bus/virtio/devices/*/modalias 2>/dev/null | while read -r alias; do modprobe -q "$alias"; done
for card in /sys/class/net/eth*; do
  [ -e "$card/address" ] || continue
  IFS=: read -r _ _ _ _ high low <"$card/address"
  ifconfig "${card##*/}" "10.0.$((0x$high)).$((0x$low))" netmask 255.255.0.0
done
memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
echo
echo "$(uname -sr) on $(nproc) CPU, ${memory} MiB, with BusyBox. The command poweroff ends the machine."
"""

_PROFILE = """\
export HOME=/root PATH=/sbin:/usr/sbin:/bin:/usr/bin TERM=${TERM:-xterm-256color} PS1='\\w # '
cd
"""


def applets(busybox: bytes) -> list[str]:
    """The names under which a BusyBox program can be called, from the table inside it (applet_tables.h).

    Raises LabError "busybox-unknown" when there is none.
    """
    at = busybox.find(_TABLE_BEGINS)
    names: list[str] = []
    while at >= 0 and len(names) < _APPLETS_LIMIT:
        end = busybox.find(b"\0", at, at + _APPLET_NAME_LIMIT)
        if end <= at:
            break
        names.append(busybox[at:end].decode("latin-1"))
        at = end + 1
    if "sh" not in names or "init" not in names:
        raise LabError(
            "busybox-unknown",
            "This is no BusyBox program with a shell and an init; Debian's busybox-static has both.",
        )
    return names


def build(busybox: bytes, release: str, drivers: Iterable[Module]) -> bytes:
    """The initial RAM disk of a kernel `release` (`uname -r`), as a cpio archive.

    `drivers`: needed ones before those that need them. Raises LabError "busybox-unknown".
    """
    drivers = list(drivers)
    home = f"lib/modules/{release}"
    members = [cpio.folder(name) for name in (*_FOLDERS, home)]
    # The kernel opens its console before devtmpfs is mounted.
    members.append(cpio.character_device("dev/console", 5, 1))
    members.append(cpio.character_device("dev/null", 1, 3))
    members.append(cpio.file("bin/busybox", busybox, executable=True))
    members += [cpio.link(f"bin/{name}", "busybox") for name in applets(busybox) if name != "busybox"]
    members += [
        cpio.link(f"sbin/{name}", "../bin/busybox") for name in ("init", "poweroff", "reboot", "modprobe")
    ]
    members += [
        cpio.link("init", "bin/busybox"),
        cpio.file("etc/inittab", _INITTAB.encode()),
        cpio.file("etc/rc", _RC.encode(), executable=True),
        cpio.file("etc/profile", _PROFILE.encode()),
        cpio.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n"),
        cpio.file("etc/group", b"root:x:0:\n"),
    ]
    members += [cpio.file(f"{home}/{name}", content) for name, content in modules.tables(drivers).items()]
    members += [cpio.file(f"{home}/{module.file_name}", module.content) for module in drivers]
    return cpio.pack(members)
