"""Ballooning: a guest's own kernel gives pages away when it is asked, by somebody or by a host that overcommits, and the
host has their frames; whatever it lists, nobody else notices."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.commands import (
    ConsoleInput,
    GuestBalloon,
    GuestClone,
    GuestCreate,
    GuestMigrate,
    GuestPower,
    HostCreate,
    HostOvercommit,
    LabError,
    LabReset,
    LabUndo,
    MigrationMode,
)
from engine.devices.virtio.balloon import Balloon
from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.lab import Lab
from engine.machine.loader import RAM_BASE, inspect
from engine.machine.memory import PAGE
from engine.machine.tiers import Tier
from engine.trace.record import Action
from engine.trace.rings import Trace
from tests.engine.hypervisor.test_swapping import TECHNIQUES, accounts
from tests.support.labs import console

MS = 1_000_000
MIB = 256  # pages


class Machine:
    """A host with ringos guests at their prompts."""

    def __init__(self, technique: str, guests: int = 1, overcommit: bool = False, memory_mib: int = 64, tier: Tier = Tier.JIT):
        self.printed = {guest: bytearray() for guest in range(1, guests + 1)}
        self.host = Host(
            1, 1, memory_mib, Configuration.parse(technique), Trace(capacity=1 << 16),
            lambda guest, data: self.printed[guest].extend(data), tier=tier, overcommit=overcommit,
        )  # fmt: skip
        for guest in self.printed:
            self.host.add_guest(guest, inspect(load_image("ringos"), "ringos"), 1, 16, "")
        self.run(200)

    def run(self, milliseconds: int) -> None:
        self.host.run(1 << 40, until=self.host.time + milliseconds * MS)

    def type(self, guest: int, line: str, milliseconds: int = 1_000) -> None:
        self.host.guests[guest].receive(line.encode() + b"\r")
        self.run(milliseconds)

    def guest(self, number: int = 1) -> VmGuest:
        guest = self.host.guests[number]
        assert isinstance(guest, VmGuest)
        return guest

    def balloon(self, number: int = 1) -> Balloon:
        balloon = self.guest(number).board.balloon
        assert balloon is not None
        return balloon

    def check(self) -> None:
        rams = [guest.vm.ram for guest in self.host.guests.values() if isinstance(guest, VmGuest)]
        accounts(self.host.frames, rams)


@pytest.mark.parametrize("technique", TECHNIQUES[:3])
def test_a_kernel_gives_what_is_free_and_takes_it_back(technique: str) -> None:
    machine = Machine(technique)
    host, balloon = machine.host, machine.balloon()
    assert balloon.live
    machine.type(1, "fill 10")
    full = host.frames.used
    host.set_balloon(1, 8)
    machine.run(500)
    assert balloon.actual == 8 * MIB
    assert host.frames.used <= full - 8 * MIB + 8
    machine.check()
    machine.type(1, "fill 12")  # more than is left: it takes out what it needs
    assert machine.printed[1].count(b"MiB held") == 2
    assert 0 < balloon.actual < 8 * MIB
    host.set_balloon(1, 1)
    machine.run(500)
    assert balloon.actual == 1 * MIB
    host.set_balloon(1, 15)  # more than it has
    machine.run(500)
    assert balloon.actual < 15 * MIB
    machine.type(1, "work pagefault 50; work switch 5; crash illegal")
    host.set_balloon(1, 0)
    machine.run(500)
    assert balloon.actual == 0
    machine.type(1, "fill 12")
    assert machine.printed[1].count(b"MiB held") == 3
    assert machine.printed[1].count(b"checksum") == 2
    machine.check()
    records = host.trace.records(1, limit=1 << 16)
    told = records[np.isin(records["action"], (Action.BALLOON_INFLATE, Action.BALLOON_DEFLATE))]
    inflated = told[told["action"] == Action.BALLOON_INFLATE]
    assert int(inflated["a"].sum()) >= int(inflated["b"].sum()) >= 7 * MIB
    assert set(told["kind"]) == {4} or len(set(told["kind"])) == 1  # an access to the device's register
    assert len(set(told["path"])) <= 2


def test_a_host_asks_before_it_swaps() -> None:
    machine = Machine("hardware-assist", guests=3, overcommit=True, memory_mib=32)
    host = machine.host
    for guest in (1, 2):
        machine.type(guest, "fill 12")
    assert host.pages_swapped == 0
    assert not any(machine.balloon(guest).target for guest in (1, 2, 3))
    machine.type(3, "fill 8", 3_000)
    assert machine.printed[3].count(b"MiB held") == 1
    given = sum(machine.balloon(guest).actual for guest in (1, 2, 3))
    records = {guest: host.trace.records(guest, limit=1 << 16) for guest in (1, 2)}
    swapped = sum(int(found[found["action"] == Action.SWAP_OUT]["a"].sum()) for found in records.values())
    assert given > 2 * MIB
    assert swapped < given
    machine.check()
    host.remove_guest(3)
    assert [machine.balloon(guest).target for guest in (1, 2)] == [0, 0]
    machine.run(500)
    assert [machine.balloon(guest).actual for guest in (1, 2)] == [0, 0]


def test_no_tier_and_no_way_of_cutting_the_run_changes_anything() -> None:
    def run(technique: str, tier: Tier, pieces: bool) -> tuple[bytes, int]:
        chosen = random.Random(3)
        host = Host(1, 1, 32, Configuration.parse(technique), Trace(capacity=1 << 16), lambda _guest, _data: None, tier=tier,
                    overcommit=True)  # fmt: skip
        for guest in (1, 2):
            host.add_guest(guest, inspect(load_image("ringos"), "ringos"), 1, 8, "run=work pagefault 2000")
        host.frames.high = host.frames.low + 60
        for part in range(3):
            left = 40_000
            while left > 0:
                left -= host.run(min(left, chosen.randrange(1, 4_000) if pieces else left))
                if pieces and chosen.randrange(4) == 0:
                    host.load(host.save())
            host.set_balloon(1 + part % 2, (2, 5, 0)[part])
        records = np.concatenate([host.trace.records(guest, limit=1 << 16) for guest in (1, 2)])
        assert Action.BALLOON_INFLATE in records["action"]
        return records.tobytes(), host.time

    for technique in ("trap-and-emulate", "hardware-assist"):
        whole = run(technique, Tier.JIT, False)
        assert run(technique, Tier.JIT, True) == whole
        assert run(technique, Tier.REFERENCE, False) == whole


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_whatever_a_guest_lists_is_its_own_loss(technique: str) -> None:
    """Pages in use, twice, of tables and code, and such as are none, between any two instructions."""
    machine = Machine(technique, guests=2, overcommit=True, memory_mib=32)
    chosen = random.Random(technique)
    machine.guest().receive(b"work pagefault 100000\r")
    for _ in range(60):
        machine.host.run(chosen.randrange(1, 3_000))
        first = RAM_BASE >> 12
        listed = [chosen.choice((chosen.randrange(first, first + 16 * MIB), chosen.randrange(1 << 32))) for _ in range(30)]
        if chosen.randrange(6) == 0 and not machine.guest().ended:
            listed += list(machine.guest().vm.ram.map)[:: chosen.randrange(1, 40)]
        (machine.guest().inflated if chosen.randrange(3) else machine.guest().deflated)(listed)
        machine.guest()._moved = None
        machine.check()
    machine.host.guests[2].receive(b"fill 2; work syscall 10\r")
    machine.host.run(600_000)
    machine.check()
    machine.host.power(1, "off")
    machine.run(500)
    assert machine.printed[2].count(b"MiB held") == 1
    assert machine.printed[2].count(b"checksum") == 1
    machine.host.power(1, "reset")
    machine.run(500)
    machine.type(1, "work syscall 10")
    assert machine.printed[1].count(b"work syscall 10: 10") == 1
    machine.check()


def test_a_page_that_is_given_away_is_zeros_for_whoever_looks() -> None:
    for technique in TECHNIQUES:
        machine = Machine(technique)
        ram = machine.guest().vm.ram
        page = (RAM_BASE >> 12) + 2000
        ram.write(page << 12, b"secret")
        assert ram.give_up([page, page, 1, (RAM_BASE >> 12) + 16 * MIB]) == 1
        assert ram.read(page << 12, 8) == bytes(8)
        ram.log_dirty(True)
        ram.write(page << 12, b"again")
        assert page in ram.take_dirty()
        ram.swap_out(page)
        assert ram.give_up([page]) == 1
        assert page not in ram.clean
        ram.log_dirty(False)
        assert ram.memory.read_bytes(ram.frame(page) * PAGE, PAGE) == bytes(PAGE)
        machine.check()


# -- labs ----------------------------------------------------------------------------------------------
def _lab(hosts: int = 1) -> tuple[Lab, list[int], int]:
    lab = Lab.new("balloon")
    made = [lab.apply(HostCreate(technique="hardware-assist", memory_mib=64))["host"] for _ in range(hosts)]
    guest = lab.apply(GuestCreate(made[0], "ringos"))["guest"]
    lab.run(400_000)
    lab.apply(ConsoleInput(guest, b"fill 8\r"))
    lab.run(6_000_000)
    assert b"8 MiB held" in console(lab, guest)
    return lab, made, guest


def _actual(lab: Lab, guest: int) -> int:
    return lab.world.guest(guest).pages.ballooned


def test_it_is_a_setting_of_a_guest() -> None:
    lab, [host], guest = _lab()
    lab.apply(GuestBalloon(guest, 6))
    lab.run(400_000)
    assert _actual(lab, guest) == 6 * MIB
    assert lab.keyframe()["status"][str(guest)]["ballooned"] == 6 * MIB
    again = Lab.load(lab.save())
    assert _actual(again, guest) == 6 * MIB
    clone = lab.apply(GuestClone(guest))["guest"]
    lab.apply(ConsoleInput(clone, b"fill 9\r"))
    lab.run(6_000_000)
    assert b"9 MiB held" in console(lab, clone)
    lab.apply(GuestPower(guest, "reset"))
    lab.run(600_000)
    assert _actual(lab, guest) == 6 * MIB
    lab.apply(LabReset())
    lab.run(600_000)
    assert _actual(lab, guest) == 6 * MIB
    lab.apply(LabUndo())
    lab.apply(LabUndo())
    lab.run(600_000)
    assert _actual(lab, guest) == 0
    assert [row["balloon_mib"] for row in lab.document()["guests"]] == [0]
    assert host in lab.world.hosts


@pytest.mark.parametrize(
    ("stack", "image", "size", "key"),
    [
        ("kvm/hardware-assist", "ringos", 16, "balloon-too-large"),
        ("kvm/paravirtual", "ringos-pv", 1, "guest-without-balloon"),
        ("bare-metal", "ringos", 1, "guest-without-balloon"),
    ],
)
def test_what_cannot_be_is_refused(stack: str, image: str, size: int, key: str) -> None:
    lab = Lab.new("refused")
    configuration = Configuration.parse(stack)
    host = lab.apply(HostCreate(stack=configuration.stack, technique=configuration.technique))["host"]
    guest = lab.apply(GuestCreate(host, image))["guest"]
    with pytest.raises(LabError) as refusal:
        lab.apply(GuestBalloon(guest, size))
    assert refusal.value.problem.key == key


@pytest.mark.parametrize("mode", ["pre-copy", "post-copy", "stop-and-copy"])
def test_a_balloon_travels_with_its_guest(mode: MigrationMode) -> None:
    lab, [_, there], guest = _lab(hosts=2)
    lab.apply(HostOvercommit(there, True))
    lab.apply(GuestBalloon(guest, 6))
    lab.run(200_000)
    lab.apply(GuestMigrate(guest, there, mode=mode))
    lab.apply(GuestBalloon(guest, 7))
    lab.apply(ConsoleInput(guest, b"fill 10\r"))
    for _ in range(20):
        lab.run(500_000)
    target = lab.world.hosts[there]
    assert guest in target.guests
    assert b"10 MiB held" in console(lab, guest)
    lab.apply(GuestBalloon(guest, 0))
    lab.run(400_000)
    assert _actual(lab, guest) == 0
    accounts(target.frames, [guest.vm.ram for guest in target.guests.values() if isinstance(guest, VmGuest)])


def test_a_lab_that_was_saved_before_there_were_balloons_is_loaded() -> None:
    machine = Machine("hardware-assist")
    state = machine.guest().save()
    del state["board"]["devices"]["virtio-balloon"]
    again = Machine("hardware-assist")
    again.host.load(machine.host.save() | {"guests": {1: state}})
    again.type(1, "work syscall 10")
    assert b"work syscall 10: 10" in again.printed[1]
