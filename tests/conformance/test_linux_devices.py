"""Debian's own drivers against our devices: two Linux machines with disks, on two hosts, on one network, and a ringos.

They boot side by side in one world; each is told what to do when its prompt comes. Everything that they read from
their disks is compared with what is on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re

import pytest

from engine.document import GuestRow, HostRow
from engine.guests import load_image
from engine.machine.loader import inspect
from engine.world import World
from tests.support import debian

SLICE_STEPS = 2_000_000
STEPS = 8_000_000_000
#: Guests 10 and 11 have the addresses 10.0.0.10 and 10.0.0.11, by their cards' (engine.linux.initrd).
FIRST, SECOND = 10, 11
RINGOS = 12
DISK = random.Random(11).randbytes(4 << 20)
OVERWRITTEN = 100 * 4096

COMMANDS = {
    FIRST: [
        "cat /sys/bus/virtio/devices/*/modalias",
        "dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum",
        "dd if=/dev/zero of=/dev/vda bs=4k count=100 conv=fsync 2>/dev/null; dd if=/dev/vda bs=4k count=101 | md5sum",
        "cat /sys/block/vda/serial; cat /sys/block/vda/queue/discard_max_bytes",
        "dd if=/dev/hwrng bs=16 count=2 2>/dev/null | md5sum",
        "ping -c 3 -W 2 10.0.0.11; ping -c 1 -W 2 -s 1400 10.0.0.11",
        "ping -c 3 -W 2 10.0.0.12; ping -c 1 -W 2 -s 1401 10.0.0.12",
        "echo from first | nc -w 5 10.0.0.11 99",
        "poweroff",
    ],
    SECOND: ["nc -l -p 99 -w 60 >/tmp/got; cat /tmp/got; ip neigh", "poweroff"],
}


@pytest.fixture(scope="module")
def shown() -> dict[int, str]:
    """What each machine printed from its first prompt on."""
    image, arguments = debian.image()
    image = dataclasses.replace(image, disk=DISK)
    printed = {FIRST: bytearray(), SECOND: bytearray()}
    ringos = bytearray()
    world = World.build(
        [
            *(HostRow(number, f"host-{number}", 0.0, 0.0, 1, debian.MEMORY_MIB, "bare-metal") for number in (1, 2)),
            HostRow(3, "host-3", 0.0, 0.0, 1, 64, "kvm", "paravirtual"),
        ],
        [
            *(
                GuestRow(guest, f"vm-{guest}", host, "debian", 1, debian.MEMORY_MIB, arguments)
                for host, guest in ((1, FIRST), (2, SECOND))
            ),
            GuestRow(RINGOS, "vm-12", 3, "ringos-pv", 1, 16, ""),
        ],
        lambda name: image if name == "debian" else inspect(load_image(name), name),
        lambda guest, data: printed.get(guest, ringos).extend(data),
    )
    waiting = {guest: list(commands) for guest, commands in COMMANDS.items()}
    seen = dict.fromkeys(printed, 0)
    prompt = debian.PROMPT.encode()
    while not all(world.guest(guest).ended for guest in printed):
        assert world.position < STEPS, {guest: bytes(text[-500:]) for guest, text in printed.items()}
        ran = world.run(SLICE_STEPS)
        for guest, text in printed.items():
            at = text.find(prompt, seen[guest])
            other_first = guest == FIRST and len(waiting[SECOND]) == len(COMMANDS[SECOND])
            if at >= 0 and waiting[guest] and not other_first:
                seen[guest] = at + len(prompt)
                command = waiting[guest].pop(0)
                world.receive(guest, command.encode() + b"\r")
                if "10.0.0.12" in command:
                    world.receive(RINGOS, b"ping 10.0.0.10 3\r")
                break
        else:
            assert ran.steps, {guest: bytes(text[-500:]) for guest, text in printed.items()}
    assert all(world.guest(guest).exit_status == 0 for guest in printed)
    return {
        guest: text[text.find(prompt) :].decode(errors="replace").replace("\r\n", "\n")
        for guest, text in {**printed, RINGOS: b"~ # " + ringos}.items()
    }


def test_every_driver_finds_its_device(shown: dict[int, str]) -> None:
    found = re.findall(r"virtio:d0000000(\d)v554D4551", shown[FIRST])
    assert sorted(found) == ["1", "2", "3", "4"]


def test_the_disk_is_what_it_should_be(shown: dict[int, str]) -> None:
    after = bytes(OVERWRITTEN) + DISK[OVERWRITTEN : OVERWRITTEN + 4096]
    assert hashlib.md5(DISK[: 1 << 20]).hexdigest() in shown[FIRST]
    assert hashlib.md5(after).hexdigest() in shown[FIRST]
    assert f"\nringside{4096 << 10}\n" in shown[FIRST].replace("ringside\n", "ringside")


def test_random_numbers_arrive_and_are_the_machine_s_own(shown: dict[int, str]) -> None:
    sums = re.findall(r"\n([0-9a-f]{32})  -", shown[FIRST])
    assert len(set(sums)) == 3
    assert hashlib.md5(bytes(32)).hexdigest() not in sums


def test_they_reach_each_other(shown: dict[int, str]) -> None:
    assert "1408 bytes from 10.0.0.11" in shown[FIRST]
    assert "\nfrom first\n" in shown[SECOND]
    assert shown[FIRST].count("3 packets transmitted, 3 packets received") == 2
    assert "1409 bytes from 10.0.0.12" in shown[FIRST]
    assert "10.0.0.10: 3 of 3 packets came back" in shown[RINGOS]
    assert "10.0.0.10 dev eth0 lladdr 02:52:53:00:00:0a" in shown[SECOND]
