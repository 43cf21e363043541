"""Sharing of equal pages: frames are saved, no guest can tell, and no guest ever sees what another stored."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.commands import (
    ConsoleInput,
    GuestCreate,
    GuestMigrate,
    GuestRemove,
    HostCreate,
    HostSharing,
    HostStack,
    LabError,
    LabStepBack,
    LabUndo,
    MigrationMode,
    TraceDetailQuery,
)
from engine.guests import load_image
from engine.hypervisor.frames import Frames
from engine.hypervisor.host import SCANNING, Host
from engine.hypervisor.page_sharing import SCAN_PAGES, SCAN_PERIOD_NS, PageScanner
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm import GuestRam
from engine.hypervisor.vm_guest import VmGuest
from engine.lab import Lab
from engine.machine.loader import RAM_BASE, inspect
from engine.machine.memory import PAGE, Memory
from engine.machine.tiers import Tier
from engine.trace.record import Action
from engine.trace.rings import Trace
from tests.support.labs import console
from tests.support.machine import program

TECHNIQUES = (
    "trap-and-emulate",
    "binary-translation",
    "hardware-assist",
    "hardware-assist+shadow-paging+no-vmid+no-direct-interrupts",
)
MS = 1_000_000
#: 64 pages that are equal in every guest, and one that counts. Each round of it reads them all and stores to one.
READER = """
.equ FIRST, 0x80300000
.equ PAGES, 64
_start: li   s0, FIRST
        li   s1, PAGES
        li   s2, 4096
        mv   t0, s0
        li   t1, 0
fill:   addi t2, t1, 1
        sd   t2, 0(t0)
        add  t0, t0, s2
        addi t1, t1, 1
        bltu t1, s1, fill
        li   s3, 0              # rounds
        li   s4, {every}
round:  addi s3, s3, 1
        mv   t0, s0
        li   t1, 0
check:  ld   t3, 0(t0)
        addi t2, t1, 1
        bne  t3, t2, wrong
        add  t0, t0, s2
        addi t1, t1, 1
        bltu t1, s1, check
        remu t4, s3, s4
        bnez t4, round
        remu t5, s3, s1         # store what is there, and something elsewhere in the page
        mul  t5, t5, s2
        add  t5, t5, s0
        sd   s3, 8(t5)
        j    round
wrong:  li   a0, 0x100000
        li   a1, 0x3333
        sw   a1, 0(a0)
        j    wrong
"""


def _host(technique: str, guests: int = 2, every: int = 1 << 40, tier: Tier = Tier.JIT, harts: int = 1) -> Host:
    host = Host(
        1, harts, 64, Configuration.parse(technique), Trace(capacity=1 << 16), lambda _guest, _data: None, tier=tier,
        share_pages=True,
    )  # fmt: skip
    for guest in range(1, guests + 1):
        host.add_guest(guest, inspect(program(READER.format(every=every)), "test"), 1, 4, "")
    return host


def _until(host: Host, clock: int) -> None:
    while host.time < clock and host.run(1 << 40, until=clock):
        pass


def _rams(host: Host) -> dict[int, GuestRam]:
    return {key: guest.vm.ram for key, guest in host.guests.items() if isinstance(guest, VmGuest)}


def accounts(frames: Frames, rams: list[GuestRam]) -> None:
    """Every promise can be kept, and every frame has exactly its pages."""
    holders: dict[int, int] = {}
    for ram in rams:
        for page, frame in ram.map.items():
            holders[frame] = holders.get(frame, 0) + 1
            assert page in ram.shared or not frames.is_shared(frame)
    assert {frame: count - 1 for frame, count in holders.items() if count > 1} == dict(frames.save()["sharers"])
    assert frames.promised + len(holders) == sum(ram.size // PAGE for ram in rams)
    assert 0 <= frames.promised <= frames.total - frames.used
    assert not holders.keys() & set(frames.save()["free"])


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_equal_pages_share_a_frame_until_somebody_stores_there(technique: str) -> None:
    host = _host(technique, every=50_000)
    _until(host, 150 * MS)
    assert host.frames.saved >= 50
    accounts(host.frames, [*_rams(host).values()])
    assert not any(guest.ended for guest in host.guests.values())
    records = np.concatenate([host.trace.records(guest, limit=1 << 16) for guest in (1, 2)])
    shares = records[records["action"] == Action.SHARE]
    assert int(shares["a"].sum()) >= 50
    assert 0 < int(shares["b"].sum()) <= int(shares["a"].sum())
    copies = records[records["action"] == Action.COPY_ON_WRITE]
    assert len(copies)
    assert set(copies["a"] >> 12 << 12) <= set(range(RAM_BASE + (3 << 20), RAM_BASE + (4 << 20), PAGE))
    preempted = records[(records["action"] == Action.PREEMPT) & (records["a"] == SCANNING)]
    assert len(preempted) >= 2
    assert all(int(time) >= SCAN_PERIOD_NS for time in preempted["time"])


def test_no_tier_and_no_way_of_cutting_the_run_changes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("page_sharing", "host"):  # the reference tier does not get far enough for the real period
        monkeypatch.setattr(f"engine.hypervisor.{module}.SCAN_PERIOD_NS", 20_000)
        monkeypatch.setattr(f"engine.hypervisor.{module}.PAGE_NS", 50)

    def run(technique: str, tier: Tier, pieces: bool, harts: int) -> tuple[bytes, int, int]:
        chosen = random.Random(7)
        host = _host(technique, every=3, tier=tier, harts=harts)
        left = 80_000
        while left > 0:
            left -= host.run(min(left, chosen.randrange(1, 4_000) if pieces else left))
            if pieces and chosen.randrange(4) == 0:
                host.load(host.save())
        assert host.frames.saved > 10
        accounts(host.frames, [*_rams(host).values()])
        records = [host.trace.records(guest, limit=1 << 16) for guest in (1, 2)]
        assert any(Action.COPY_ON_WRITE in found["action"] for found in records)
        return b"".join(found.tobytes() for found in records), host.time, host.frames.saved

    for technique in ("trap-and-emulate", "hardware-assist"):
        for harts in (1, 2):
            whole = run(technique, Tier.JIT, False, harts)
            assert run(technique, Tier.REFERENCE, False, harts) == whole
            assert run(technique, Tier.JIT, True, harts) == whole


def test_an_idle_host_is_scanned_to_the_end_and_comes_to_rest() -> None:
    host = Host(
        1, 1, 64, Configuration.parse("hardware-assist"), Trace(capacity=1 << 15), lambda _guest, _data: None,
        share_pages=True,
    )  # fmt: skip
    for guest in (1, 2):
        host.add_guest(guest, inspect(load_image("ringos"), "ringos"), 1, 16, "")
    host.run(1 << 40, until=1_000 * MS)
    assert host.frames.saved > 10
    accounts(host.frames, [*_rams(host).values()])
    saved, time = host.frames.saved, host.time
    host.guests[1].receive(b"work syscall 3\r")
    host.run(1 << 40, until=time + 1_000 * MS)
    assert host.frames.saved > 0
    assert host.frames.saved >= saved - 30


def test_a_paravirtual_guest_is_left_alone() -> None:
    host = Host(
        1, 1, 64, Configuration.parse("paravirtual"), Trace(), lambda _guest, _data: None, share_pages=True
    )
    for guest in (1, 2):
        host.add_guest(guest, inspect(load_image("ringos-pv"), "ringos-pv"), 1, 16, "")
    host.run(1 << 40, until=200 * MS)
    assert host.frames.saved == 0
    assert Action.PREEMPT not in host.trace.records(1, limit=4096)["action"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(0, 3), st.booleans()), max_size=60))
def test_every_page_is_what_its_own_guest_wrote(steps: list[tuple[int, int, int, bool]]) -> None:
    frames = Frames(Memory(RAM_BASE, 64 * PAGE), 0)
    rams = {guest: GuestRam(frames, 8 * PAGE) for guest in range(3)}
    written: dict[tuple[int, int], bytes] = {}
    scanner = PageScanner(0)
    for guest, page, value, scans in steps:
        content = bytes([value]) * PAGE
        rams[guest].write(RAM_BASE + page * PAGE, content)
        written[guest, page] = content
        if scans:
            for position in range(4):
                scanner.scan(rams, position)
        accounts(frames, [*rams.values()])
        for (owner, at), kept in written.items():
            assert rams[owner].read(RAM_BASE + at * PAGE, PAGE) == kept
    scanner.scan({}, 99)  # the table of hints begins anew
    for position in range(100, 108):
        scanner.scan(rams, position)
    assert frames.used == len(set(written.values()))
    rams[0].release()
    accounts(frames, [rams[1], rams[2]])
    for (owner, at), kept in written.items():
        assert not owner or rams[owner].read(RAM_BASE + at * PAGE, PAGE) == kept


def test_a_scan_is_of_one_guest_and_no_longer_than_it_says() -> None:
    frames = Frames(Memory(RAM_BASE, 1024 * PAGE), 0)
    rams = {guest: GuestRam(frames, 256 * PAGE) for guest in (3, 8)}
    for ram in rams.values():
        ram.write(RAM_BASE, bytes([7]) * PAGE * (SCAN_PAGES + 20))
    scanner = PageScanner(0)
    seen = [scanner.scan(rams, position)[:2] for position in range(5)]
    assert seen == [(3, SCAN_PAGES), (3, 20), (8, SCAN_PAGES), (8, 20), (3, SCAN_PAGES)]
    again = PageScanner(0)
    again.load(scanner.save())
    assert again.save() == scanner.save()


def test_sharing_is_a_setting_that_undo_takes_back_and_going_back_does_not_forget() -> None:
    lab = Lab.new("sharing")
    host = lab.apply(HostCreate(technique="hardware-assist"))["host"]
    guests = [lab.apply(GuestCreate(host, "ringos"))["guest"] for _ in range(2)]
    lab.apply(HostSharing(host, True))
    machine = lab.world.hosts[host]
    for _ in range(10):
        lab.run(100_000)
    assert machine.frames.saved
    again = Lab.load(lab.save())
    assert again.world.hosts[host].frames.saved == machine.frames.saved
    records = lab.world.trace.records(guests[1], limit=4096)
    last = records[records["action"] == Action.SHARE][-1]
    detail = lab.query(TraceDetailQuery(guests[1], int(last["sequence"])))
    assert set(detail["changed"]) <= {"mcycle", "time"}
    before = lab.trace_hash()
    lab.apply(LabStepBack())
    for _ in range(3):
        lab.run(100_000)
    assert lab.trace_hash() == before
    lab.apply(LabUndo())
    assert machine.scanner is None or lab.world.hosts[host].scanner is None
    bare = lab.apply(HostCreate(stack="bare-metal"))["host"]
    with pytest.raises(LabError) as refusal:
        lab.apply(HostSharing(bare, True))
    assert refusal.value.problem.key == "host-without-sharing"


@pytest.mark.parametrize("mode", ["pre-copy", "post-copy", "stop-and-copy"])
def test_a_guest_that_shares_is_carried_to_another_host_with_what_it_had(mode: MigrationMode) -> None:
    lab = Lab.new("away")
    here, there = (lab.apply(HostCreate(technique="hardware-assist"))["host"] for _ in range(2))
    guests = [lab.apply(GuestCreate(here, "ringos"))["guest"] for _ in range(3)]
    for host in (here, there):
        lab.apply(HostSharing(host, True))
    for _ in range(6):
        lab.run(100_000)
    source, target = lab.world.hosts[here], lab.world.hosts[there]
    assert source.frames.saved
    lab.apply(GuestMigrate(guests[0], there, mode=mode))
    for guest in guests:
        lab.apply(ConsoleInput(guest, b"work pagefault 5; work switch 5\r"))
    for _ in range(20):
        lab.run(100_000)
    assert guests[0] in target.guests
    assert not target.staged
    assert not source.staged
    for guest in guests:
        assert console(lab, guest).count(b"checksum") == 2
    accounts(source.frames, [*_rams(source).values()])
    accounts(target.frames, [*_rams(target).values()])
    lab.apply(GuestRemove(guests[1]))
    lab.apply(HostStack(here, "kvm", "trap-and-emulate", guests="carry"))
    machine = lab.world.hosts[here]
    assert machine.scanner is not None
    lab.apply(ConsoleInput(guests[2], b"work pagefault 5\r"))
    for _ in range(10):
        lab.run(100_000)
    assert console(lab, guests[2]).count(b"checksum") == 3
    accounts(machine.frames, [*_rams(machine).values()])


def test_a_clone_of_a_guest_that_shares_with_itself() -> None:
    host = _host("hardware-assist", guests=1)
    ram = _rams(host)[1]
    ram.write(RAM_BASE + (1 << 20), bytes([5]) * PAGE * 8)
    _until(host, 120 * MS)
    assert host.frames.saved >= 7
    host.clone_guest(1, 2)
    accounts(host.frames, [*_rams(host).values()])
    again = Host(
        1, 1, 64, Configuration.parse("hardware-assist"), Trace(), lambda _guest, _data: None, share_pages=True
    )
    for guest in (1, 2):
        again.add_guest(guest, inspect(program(READER.format(every=1 << 40)), "test"), 1, 4, "")
    again.load(host.save())
    _rams(again)[2].write(RAM_BASE + (1 << 20) + PAGE, b"mine")
    assert _rams(again)[1].read(RAM_BASE + (1 << 20), 8 * PAGE) == bytes([5]) * PAGE * 8
    host.remove_guest(1)
    accounts(host.frames, [*_rams(host).values()])
    _until(host, 200 * MS)
    assert not host.guests[2].ended
