"""Overcommitted memory and swapping by the host: guests that need more than there is run as if it were there, from any
checkpoint and on any tier; every promise is accounted for; and what cannot be is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.commands import (
    ConsoleInput,
    GuestCreate,
    GuestMigrate,
    GuestMove,
    GuestRemove,
    GuestShare,
    HostCreate,
    HostOvercommit,
    HostSharing,
    HostStack,
    LabError,
    LabRedo,
    LabStepBack,
    LabUndo,
    MemoryQuery,
    MigrationMode,
    WalkQuery,
)
from engine.guests import load_image
from engine.hypervisor.frames import Frames, OutOfFramesError
from engine.hypervisor.host import Host
from engine.hypervisor.page_sharing import PageScanner
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.swapping import BATCH, READ_NS, WRITE_NS, Pager
from engine.hypervisor.vm import GuestRam
from engine.hypervisor.vm_guest import VmGuest
from engine.lab import Lab, Limits
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
FIRST = RAM_BASE + (4 << 20)
#: Counts in each of so many pages, in rounds; finds its count wrong: fails. What it stores depends on page and round.
HOG = """
.equ FIRST, 0x80400000
_start: li   s0, FIRST
        li   s1, {pages}
        li   s2, 4096
        li   s3, 0
round:  mv   t0, s0
        li   t1, 0
check:  ld   t3, 0(t0)
        add  t4, t1, s3
        beqz s3, store
        bne  t3, t4, wrong
store:  addi t4, t4, 1
        sd   t4, 0(t0)
        add  t0, t0, s2
        addi t1, t1, 1
        bltu t1, s1, check
        addi s3, s3, 1
        li   t5, {rounds}
        bltu s3, t5, round
        li   a1, 0x5555
        j    end
wrong:  li   a1, 0x3333
end:    li   a0, 0x100000
        sw   a1, 0(a0)
        j    end
"""


def _host(technique: str, tier: Tier = Tier.JIT, harts: int = 1, share_pages: bool = False) -> Host:
    return Host(
        1, harts, 16, Configuration.parse(technique), Trace(capacity=1 << 16), lambda _guest, _data: None, tier=tier,
        share_pages=share_pages, overcommit=True,
    )  # fmt: skip


def _hogs(host: Host, pages: int, rounds: int, guests: int = 2, memory_mib: int = 12) -> None:
    for guest in range(1, guests + 1):
        code = program(HOG.format(pages=pages, rounds=rounds))
        host.add_guest(guest, inspect(code, "test"), 1, memory_mib, "")


def _leave_frames(host: Host, count: int) -> None:
    """As if most of the host's memory were something else's, and nothing spared."""
    host.frames.high = host.frames.low + count
    host.frames._spare, host.frames._spares = [], 0


def _by(pager: Pager, rams: dict[int, GuestRam]) -> Callable[[int | None], None]:
    def evict(keep: int | None) -> None:
        pager.evict(rams, keep)

    return evict


def _rams(host: Host) -> dict[int, GuestRam]:
    both = [*host.guests.values(), *host.staged.values()]
    return {guest.id: guest.vm.ram for guest in both if isinstance(guest, VmGuest)}


def accounts(frames: Frames, rams: list[GuestRam]) -> None:
    """Every page is in one place, every frame has exactly its pages, and the hypervisor has what is kept for it."""
    state = frames.save()
    holders: dict[int, int] = {}
    for ram in rams:
        for page, frame in ram.map.items():
            holders[frame] = holders.get(frame, 0) + 1
            assert page in ram.shared or not frames.is_shared(frame)
            assert page not in ram.swapped
        assert ram.away == len(ram.swapped) + len(ram.absent)
        assert ram.clean <= set(ram.present)
    assert {frame: count - 1 for frame, count in holders.items() if count > 1} == dict(state["sharers"])
    assert frames.promised + len(holders) == sum(ram.size // PAGE for ram in rams)
    free, kept, own = set(state["free"]), set(state["kept"]), frames._own
    assert len(free) == len(state["free"]) == frames.recycled
    never = set(range(frames.low, frames.high))
    everything = [free, kept, set(state["spare"]), never, holders.keys()]
    assert sum(map(len, everything)) == len(set().union(*everything)) <= frames.total - own
    if frames.overcommitted:
        assert own + len(kept) >= state["reserved"][0]
        assert len(state["spare"]) <= state["reserved"][1]
    else:
        assert frames.promised <= frames.total - frames.used


def _tables_lead_to_what_is_there(host: Host) -> None:
    """No second-stage leaf or shadow leaf leads to a frame that is not its guest's."""
    owned = [{*ram.map.values()} for ram in _rams(host).values()]
    for frames, guest in zip(owned, host.guests.values(), strict=True):
        assert isinstance(guest, VmGuest)
        ram = guest.vm.ram
        for page in ram.swapped:
            assert not ram.unmap(page)
        assert len(frames) == len(ram.map)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_guests_that_need_more_than_there_is_run_as_if_it_were_there(technique: str) -> None:
    host = _host(technique)
    _hogs(host, pages=1600, rounds=4)
    host.run(1 << 40)
    assert [guest.exit_status for guest in host.guests.values()] == [0, 0]
    assert host.pages_swapped > 0
    accounts(host.frames, [*_rams(host).values()])
    _tables_lead_to_what_is_there(host)
    for ram in _rams(host).values():
        for index in range(1600):
            assert int.from_bytes(ram.read(FIRST + index * PAGE, 8), "little") == index + 4
    records = np.concatenate([host.trace.records(guest, limit=1 << 16) for guest in (1, 2)])
    out, back = (records[records["action"] == action] for action in (Action.SWAP_OUT, Action.SWAP_IN))
    by_itself = int(out["a"].sum()) - len(back) - host.pages_swapped  # what the VMM needed to go on
    assert 0 <= by_itself <= (2 if technique == "binary-translation" else 0)
    assert set(out["a"]) <= set(range(1, BATCH + 1))
    assert set(back["a"] >> 12) <= set(range(RAM_BASE >> 12, (RAM_BASE >> 12) + 3072))
    assert host.time > len(back) * READ_NS + int(out["a"].sum()) * WRITE_NS
    assert len(set(records["position"])) == len(records)


@pytest.mark.parametrize("technique", ["trap-and-emulate", "hardware-assist"])
@pytest.mark.parametrize("harts", [1, 2])
def test_no_tier_and_no_way_of_cutting_the_run_changes_anything(technique: str, harts: int) -> None:
    def run(tier: Tier, pieces: bool) -> tuple[bytes, int, dict[str, Any]]:
        chosen = random.Random(7)
        host = _host(technique, tier, harts)
        _leave_frames(host, 100)
        _hogs(host, pages=110, rounds=1000)
        left = 20_000
        while left > 0:
            left -= host.run(min(left, chosen.randrange(1, 2_000) if pieces else left))
            if pieces and chosen.randrange(4) == 0:
                host.load(host.save())
        assert host.pages_swapped
        accounts(host.frames, [*_rams(host).values()])
        records = b"".join(host.trace.records(guest, limit=1 << 16).tobytes() for guest in (1, 2))
        return records, host.time, host.pager.save() | host.frames.save()

    whole = run(Tier.JIT, False)
    assert run(Tier.REFERENCE, False) == whole
    assert run(Tier.JIT, True) == whole


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_guest_cannot_tell_when_its_pages_go(technique: str) -> None:
    """ringos at work while pages of it go at random, between any two instructions, beside a guest that is left alone."""
    commands = b"work pagefault 12; work switch 4; work syscall 9; crash illegal; crash load\rwork timer 3\r"

    def run(evicts: bool) -> tuple[bytes, int]:
        chosen = random.Random(technique)
        printed = bytearray()
        host = Host(
            1, 1, 64, Configuration.parse(technique), Trace(), lambda _guest, data: printed.extend(data), overcommit=True
        )
        host.add_guest(1, inspect(load_image("ringos"), "ringos"), 1, 16, "")
        host.run(400_000, until=50_000_000)
        host.guests[1].receive(commands)
        went = 0
        for _ in range(400):
            if not host.run(chosen.randrange(1, 1_500) if evicts else 4_000):
                break
            ram = _rams(host)[1]
            pages = list(ram.map) if evicts else []
            for page in chosen.sample(pages, min(len(pages), chosen.choice((1, 8, 200)))):
                if chosen.random() < 0.2:
                    ram.unmap(page)
                elif page != ram.watched:
                    ram.swap_out(page)
                    went += 1
            if evicts and chosen.randrange(40) == 0:
                host.load(host.save())
                accounts(host.frames, [*_rams(host).values()])
        host.run(40_000_000, until=host.time + 3_000_000_000)
        assert not host.guests[1].ended
        return bytes(printed), went

    plain, _ = run(evicts=False)
    assert plain.count(b"checksum") == 4
    found, went = run(evicts=True)
    assert went > 1000
    assert found == plain


def test_a_reservation_does_not_outlive_the_page_in_its_frame() -> None:
    host = _host("hardware-assist", harts=2)
    _hogs(host, pages=1600, rounds=1, guests=1)
    host.run(20_000)
    ram, hart = _rams(host)[1], host.harts[1]
    where = {RAM_BASE + frame * PAGE + 8: page for page, frame in ram.map.items()}
    held = 0
    for address, page in where.items():
        if page in ram.map:
            hart.reservation = address
            host._evict(None)
            assert (hart.reservation == address) == (page in ram.map)
            held += page in ram.map
    assert 0 < held < len(where)


def test_two_vcpus_of_one_guest_and_guests_that_share_pages() -> None:
    printed: dict[int, bytearray] = {1: bytearray(), 2: bytearray(), 3: bytearray()}
    host = Host(
        1, 2, 64, Configuration.parse("hardware-assist"), Trace(), lambda guest, data: printed[guest].extend(data),
        share_pages=True, overcommit=True,
    )  # fmt: skip
    for guest in (1, 2):
        host.add_guest(guest, inspect(load_image("ringos"), "ringos"), 2, 16, "")
    host.run(1 << 40, until=300_000_000)
    assert host.frames.saved
    host.clone_guest(1, 3)
    _leave_frames(host, 2)
    for guest in (1, 2, 3):
        host.guests[guest].receive(b"work pagefault 40; work switch 5\r")
    host.run(1 << 40, until=host.time + 600_000_000)
    assert host.pages_swapped
    accounts(host.frames, [*_rams(host).values()])
    assert [printed[guest].count(b"checksum") for guest in (1, 2, 3)] == [2, 2, 2]
    host.remove_guest(1)
    host.power(2, "reset")
    host.run(1 << 40, until=host.time + 300_000_000)
    accounts(host.frames, [*_rams(host).values()])
    assert printed[2].count(b"ringos:") == 2


def test_frames_that_are_all_shared_can_go_too() -> None:
    frames = Frames(Memory(RAM_BASE, 64 * PAGE), 0)
    rams = {guest: GuestRam(frames, 64 * PAGE) for guest in (1, 2)}
    pager = Pager()
    frames.reserve(8)
    frames.evict = _by(pager, rams)
    for page in range(56):
        rams[1].write(RAM_BASE + page * PAGE, bytes([page + 1]) * PAGE)
    rams[1].share_with(rams[2])
    rams[2].write(RAM_BASE, b"mine")
    accounts(frames, [*rams.values()])
    assert rams[1].read(RAM_BASE, 5) == bytes([1]) * 5
    assert rams[2].read(RAM_BASE, 5) == b"mine\1"
    assert all(rams[2].read(RAM_BASE + page * PAGE, 1) == bytes([page + 1]) for page in range(1, 56))
    assert pager.written == {1: BATCH, 2: BATCH}
    with pytest.raises(OutOfFramesError):
        Pager().evict({}, None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "write", "read", "share", "log", "take", "clone", "scan", "end"]),
                  st.integers(0, 3), st.integers(0, 15), st.integers(0, 3)),
        max_size=80,
    )
)  # fmt: skip
def test_every_page_is_what_its_own_guest_wrote(steps: list[tuple[str, int, int, int]]) -> None:
    """Any mixture of stores, sharing, dirty logs and clones on 24 frames for up to 64 pages; a copy by the log is true."""
    frames = Frames(Memory(RAM_BASE, 32 * PAGE), 0)
    rams = {guest: GuestRam(frames, 16 * PAGE) for guest in range(3)}
    pager, scanner = Pager(), PageScanner(0)
    frames.reserve(8)
    frames.evict = _by(pager, rams)
    written: dict[int, dict[int, bytes]] = {guest: {} for guest in range(4)}
    copied: dict[int, dict[int, bytes]] = {}
    for position, (what, guest, page, value) in enumerate(steps):
        ram = rams.get(guest)
        if what == "clone" and guest == 3 and 3 not in rams:
            rams[3] = GuestRam(frames, 16 * PAGE)
            rams[0].share_with(rams[3])
            written[3] = dict(written[0])
        if ram is None:
            continue
        if what == "write":
            written[guest][page] = bytes([value]) * PAGE
            ram.write(RAM_BASE + page * PAGE, written[guest][page])
        elif what == "read":
            ram.frame((RAM_BASE >> 12) + page)
        elif what == "share":
            for turn in range(4):
                scanner.scan(rams, 10 * position + turn)
        elif what == "log":
            ram.log_dirty(not ram.logging)
            copied[guest] = {}
        elif what == "take" and ram.logging:
            for taken in ram.take_dirty():
                copied[guest][taken - (RAM_BASE >> 12)] = ram.read(taken << 12, PAGE)
            assert not ram.dirty
            assert {page: content for page, content in copied[guest].items() if any(content)} == {
                page: content for page, content in written[guest].items() if any(content)
            }
        accounts(frames, [*rams.values()])
        for owner, kept in written.items():
            for at, content in kept.items():
                assert rams[owner].read(RAM_BASE + at * PAGE, PAGE) == content


def test_what_is_kept_for_the_hypervisor_is_not_the_guests() -> None:
    frames = Frames(Memory(RAM_BASE, 64 * PAGE), 4)
    own = [frames.take() for _ in range(3)]
    ram = GuestRam(frames, 128 * PAGE - 3 * PAGE)
    frames.reserve(10)
    frames.evict = _by(Pager(), {1: ram})
    for page in range(100):
        ram.write(RAM_BASE + page * PAGE, bytes([page]))
    assert len(ram.map) <= 50
    row = frames.take_row(4)
    assert row % 4 == 0
    taken = [frames.take() for _ in range(3)]
    with pytest.raises(OutOfFramesError):
        frames.take()
    accounts(frames, [ram])
    for frame in (*own, *taken, *range(row, row + 4)):
        frames.give_back_own(frame)
    accounts(frames, [ram])
    assert len(frames.save()["kept"]) == 10
    assert not any(frames.memory.read_bytes(frames.take() * PAGE, PAGE).strip(b"\0") for _ in range(10))
    again = Frames(Memory(RAM_BASE, 64 * PAGE), 4)
    again.load(frames.save())
    assert again.save() == frames.save()


# -- labs ----------------------------------------------------------------------------------------------
def _lab(technique: str = "hardware-assist", hosts: int = 1, overcommit: bool = True) -> tuple[Lab, list[int]]:
    lab = Lab.new("over")
    made = [
        lab.apply(HostCreate(technique=technique, memory_mib=24))["host"] for _ in range(hosts)  # type: ignore[arg-type]
    ]
    if overcommit:
        for host in made:
            lab.apply(HostOvercommit(host, True))
    return lab, made


def _crowd(lab: Lab, host: int, count: int = 3) -> list[int]:
    """Guests of 12 MiB, more than there is, and hardly a frame left for what they do."""
    machine = lab.world.hosts[host]
    guests = [lab.apply(GuestCreate(host, "ringos", memory_mib=12))["guest"] for _ in range(count)]
    _leave_frames(machine, 10)
    lab.apply(GuestShare(guests[0], weight=300))  # a change of structure: going back begins here
    lab.run(count * 400_000)
    return guests


def _refused(lab: Lab, command: Any) -> str:
    with pytest.raises(LabError) as refusal:
        lab.apply(command)
    return refusal.value.problem.key


def test_it_is_a_setting_that_says_what_it_cannot() -> None:
    lab, [host] = _lab(overcommit=False)
    assert _refused(lab, GuestCreate(host, "ringos", memory_mib=24)) == "host-memory"
    lab.apply(HostOvercommit(host, True))
    assert lab.world.hosts[host].free_mib == 24 + 24 - 2 - 2
    guests = [lab.apply(GuestCreate(host, "ringos", memory_mib=20))["guest"] for _ in range(2)]
    assert _refused(lab, GuestCreate(host, "ringos", memory_mib=8)) == "host-memory-and-swap"
    assert _refused(lab, HostOvercommit(host, False)) == "host-overcommitted"
    lab.apply(LabUndo())
    lab.apply(HostOvercommit(host, False))
    assert not lab.world.hosts[host].frames.overcommitted
    lab.apply(LabUndo())
    assert lab.world.hosts[host].overcommits
    assert [row["overcommit"] for row in lab.document()["hosts"]] == [True]
    lab.apply(LabRedo())
    assert not lab.world.hosts[host].overcommits
    assert guests[0] in lab.world.hosts[host].guests
    bare = lab.apply(HostCreate(stack="bare-metal"))["host"]
    assert _refused(lab, HostOvercommit(bare, True)) == "host-without-overcommit"
    aware = lab.apply(HostCreate(technique="paravirtual"))["host"]
    assert _refused(lab, HostOvercommit(aware, True)) == "overcommit-names-frames"


def test_the_swap_device_is_of_the_memory_that_a_lab_may_have() -> None:
    lab = Lab.new("small", Limits(memory_mib=48))
    host = lab.apply(HostCreate(memory_mib=32))["host"]
    assert _refused(lab, HostOvercommit(host, True)) == "lab-limit-memory"
    lab = Lab.new("enough", Limits(memory_mib=64))
    host = lab.apply(HostCreate(memory_mib=32))["host"]
    lab.apply(HostOvercommit(host, True))
    assert _refused(lab, HostCreate(memory_mib=16)) == "lab-limit-memory"


@pytest.mark.parametrize("technique", TECHNIQUES[:3])
def test_looking_changes_nothing_and_going_back_does_not_forget(technique: str) -> None:
    lab, [host] = _lab(technique)
    guests = _crowd(lab, host)
    for guest in guests:
        lab.apply(ConsoleInput(guest, b"work pagefault 20; work syscall 5\r"))
    for _ in range(12):
        lab.run(100_000)
    machine = lab.world.hosts[host]
    assert machine.pages_swapped
    before = lab.trace_hash(), lab.position, machine.pages_swapped, lab.save()
    for guest in guests:
        for page in list(_rams(machine)[guest].swapped)[:20]:
            lab.query(MemoryQuery(guest, page << 12, 64, physical=True))
            lab.query(WalkQuery(guest, page << 12))
    assert (lab.trace_hash(), lab.position, machine.pages_swapped, lab.save()) == before
    again = Lab.load(lab.save())
    assert again.world.hosts[host].pages_swapped == machine.pages_swapped
    lab.apply(LabStepBack())
    lab.run(before[1] - lab.position)
    assert lab.trace_hash() == before[0]
    for each in (lab, again):
        for guest in guests:
            each.apply(ConsoleInput(guest, b"work pagefault 20\r"))
        each.run(200_000)
    assert again.trace_hash() == lab.trace_hash()
    accounts(lab.world.hosts[host].frames, [*_rams(lab.world.hosts[host]).values()])


@pytest.mark.parametrize("mode", ["pre-copy", "post-copy", "stop-and-copy"])
def test_guests_migrate_between_hosts_that_swap(mode: MigrationMode) -> None:
    lab, [here, there] = _lab(hosts=2)
    guests = [*_crowd(lab, here, 2), *_crowd(lab, there, 2)]
    source, target = lab.world.hosts[here], lab.world.hosts[there]
    for guest in guests:
        lab.apply(ConsoleInput(guest, b"work pagefault 30\r"))
    lab.run(500_000)
    assert source.pages_swapped
    assert target.pages_swapped
    lab.apply(GuestMigrate(guests[0], there, mode=mode))
    for guest in guests:
        lab.apply(ConsoleInput(guest, b"work pagefault 30; work switch 5\r"))
    for _ in range(40):
        lab.run(100_000)
        for host in (source, target):
            accounts(host.frames, [*_rams(host).values()])
    assert guests[0] in target.guests
    assert not source.staged
    assert not target.staged
    assert [console(lab, guest).count(b"checksum") for guest in guests] == [3, 3, 3, 3]
    lab.apply(GuestMove(guests[0], here))
    lab.apply(GuestRemove(guests[1]))
    lab.apply(LabUndo())
    lab.apply(HostStack(here, "kvm", "trap-and-emulate", guests="carry"))
    for guest in guests:
        lab.apply(ConsoleInput(guest, b"work pagefault 30\r"))
    for _ in range(10):
        lab.run(100_000)
    assert [console(lab, guest).count(b"checksum") for guest in guests] == [4, 4, 4, 4]
    lab.apply(HostSharing(here, True))
    lab.run(300_000)
    accounts(lab.world.hosts[here].frames, [*_rams(lab.world.hosts[here]).values()])
    assert _refused(lab, HostStack(here, "xen", "paravirtual", guests="carry")) in ("needs-paravirtual-kernel", "host-memory")


def test_all_comes_back_when_it_is_switched_off() -> None:
    lab, [host] = _lab()
    guests = _crowd(lab, host, 2)
    machine = lab.world.hosts[host]
    for guest in guests:
        lab.apply(ConsoleInput(guest, b"work pagefault 30\r"))
    lab.run(600_000)
    assert machine.pages_swapped
    lab.apply(GuestRemove(guests[0]))
    machine.frames.high = machine.frames.low + 4096
    content = {page: _rams(machine)[guests[1]].read(page << 12, PAGE) for page in _rams(machine)[guests[1]].present}
    lab.apply(HostOvercommit(host, False))
    assert machine.pages_swapped == 0
    ram = _rams(machine)[guests[1]]
    assert {page: ram.read(page << 12, PAGE) for page in ram.present} == content
    lab.apply(ConsoleInput(guests[1], b"work pagefault 30\r"))
    lab.run(300_000)
    assert console(lab, guests[1]).count(b"checksum") == 2


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_an_attacker_who_takes_everything_ends_nobody_else(technique: str) -> None:
    """It touches all that it was promised, for ever, with tables or code in any page, beside one who works."""
    printed = bytearray()
    host = Host(
        1, 1, 16, Configuration.parse(technique), Trace(), lambda _guest, data: printed.extend(data), overcommit=True
    )
    _hogs(host, pages=2000, rounds=1 << 30, guests=1)
    host.add_guest(2, inspect(load_image("ringos"), "ringos"), 1, 8, "")
    host.run(400_000)
    host.guests[2].receive(b"work pagefault 20; work syscall 20\r")
    host.run(3_000_000)
    assert printed.count(b"checksum") == 2
    assert not host.guests[2].ended
    accounts(host.frames, [*_rams(host).values()])


@pytest.mark.parametrize("damage", [{1: bytes(PAGE)}, {RAM_BASE >> 12: b"short"}, {RAM_BASE >> 12: bytes(2 * PAGE)}])
def test_a_saved_page_that_is_none_is_found(damage: dict[int, bytes]) -> None:
    ram = GuestRam(Frames(Memory(RAM_BASE, 32 * PAGE), 0), 16 * PAGE)
    with pytest.raises(ValueError, match="swap"):
        ram.load(ram.save() | {"swapped": damage})
