"""Clones: a copy that shares memory until somebody stores there, and of which nobody can tell that it does."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.commands import GuestClone, LabError, LabRedo, LabUndo
from engine.document import GuestRow, HostRow
from engine.guests import load_image
from engine.hypervisor.frames import Frames, OutOfFramesError
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.assembler import assemble
from engine.lab import Lab
from engine.machine.loader import RAM_BASE, inspect
from engine.machine.memory import PAGE, Memory
from engine.trace.record import Action
from engine.trace.rings import Trace
from engine.world import World
from tests.support.labs import console, guests_of, host_create, lab_of, run_to, type_line

TECHNIQUES = (
    "trap-and-emulate",
    "binary-translation",
    "hardware-assist",
    "hardware-assist+shadow-paging+no-vmid+no-direct-interrupts",
)
PROMPT_STEPS = 150_000
#: Stores a number to every page from the end of its image to the end of RAM, and counts the rounds at 0x8010_0000.
FILLER = """
.equ END, 0x80400000
_start: la   s0, last
        li   s1, 4096
        add  s0, s0, s1
        li   s2, END - 8192
round:  mv   t0, s0
page:   sd   t0, 0(t0)
        add  t0, t0, s1
        bltu t0, s2, page
        li   t1, 0x80100000
        ld   t2, 0(t1)
        addi t2, t2, 1
        sd   t2, 0(t1)
        j    round
last:
"""
LOCKS = """
_start: la   s0, word
loop:   lr.d t0, (s0)
        addi t0, t0, 1
        sc.d t1, t0, (s0)
        bnez t1, loop
        addi s1, s1, 1
        amoadd.d t2, s1, (s0)
        amoadd.d t2, s2, (s0)
        j    loop
.balign 4096
word:   .dword 0
"""


def _ringos(technique: str, host_mib: int = 128) -> tuple[Host, Trace, dict[int, bytearray]]:
    shown: dict[int, bytearray] = {}
    trace = Trace(capacity=1 << 15)

    def show(guest: int, data: bytes) -> None:
        shown.setdefault(guest, bytearray()).extend(data)

    host = Host(1, 1, host_mib, Configuration.parse(technique), trace, show)
    host.add_guest(1, inspect(load_image("ringos"), "ringos"), 1, 16, "")
    host.run(PROMPT_STEPS)
    assert bytes(shown[1]).endswith(b"ringos$ ")
    return host, trace, shown


def _program(technique: str, source: str, host_mib: int = 64) -> Host:
    host = Host(1, 1, host_mib, Configuration.parse(technique), Trace(), lambda _guest, _data: None)
    host.add_guest(1, inspect(assemble(source, "test").elf(), "test"), 1, 4, "")
    return host


def _vm(host: Host, guest: int) -> VmGuest:
    found = host.guests[guest]
    assert isinstance(found, VmGuest)
    return found


def _memory(host: Host, guest: int) -> dict[int, bytes]:
    ram = _vm(host, guest).vm.ram
    return {page: ram.read(page << 12, PAGE) for page in sorted(ram.map)}


def _accounts(host: Host) -> None:
    """Every promise can be kept, and every frame has exactly its guests."""
    frames = host.frames
    assert 0 <= frames.promised <= frames.total - frames.used
    holders: dict[int, int] = {}
    for guest in host.guests:
        ram = _vm(host, guest).vm.ram
        for page, frame in ram.map.items():
            holders[frame] = holders.get(frame, 0) + 1
            assert page in ram.shared or not frames.is_shared(frame)
    assert {frame: count - 1 for frame, count in holders.items() if count > 1} == dict(frames.save()["sharers"])
    sizes = sum(_vm(host, guest).vm.ram.size // PAGE for guest in host.guests)
    assert frames.promised + len(holders) == sizes


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_clone_works_as_its_original_and_both_keep_their_own_memory(technique: str) -> None:
    host, trace, shown = _ringos(technique)
    before, used = _memory(host, 1), host.frames.used
    host.clone_guest(1, 2)
    assert host.frames.used == used
    assert _memory(host, 1) == _memory(host, 2) == before
    host.guests[2].receive(b"work syscall 3; work pagefault 4; work switch 3\r")
    host.run(600_000)
    assert bytes(shown[2]).count(b"checksum") == 3
    assert _memory(host, 1) != _memory(host, 2)
    still = {page: content for page, content in _memory(host, 1).items() if content != before[page]}
    assert len(still) < 6  # its timer ticks on
    _accounts(host)
    host.guests[1].receive(b"work syscall 3; work pagefault 4; work switch 3\r")
    host.run(600_000)
    assert bytes(shown[1]).endswith(bytes(shown[2]))
    alone, _, said = _ringos(technique)
    alone.guests[1].receive(b"work syscall 3; work pagefault 4; work switch 3\r")
    alone.run(600_000)
    assert bytes(said[1]) == bytes(shown[1])
    actions = trace.records(2, limit=1 << 15)["action"].tolist()
    assert actions.count(Action.COPY_ON_WRITE) >= 2


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_copy_is_a_record_of_where_it_happened(technique: str) -> None:
    host, trace, _ = _ringos(technique)
    host.clone_guest(1, 2)
    host.guests[2].receive(b"ps; work pagefault 3\r")
    host.run(300_000)
    records = trace.records(2, limit=1 << 14)
    copies = records[records["action"] == Action.COPY_ON_WRITE]
    assert len(copies) > 2
    pages = [int(page) >> 12 for page in copies["a"]]
    assert len(pages) == len(set(pages))
    ram = _vm(host, 2).vm.ram
    for page, address in zip(pages, copies["b"], strict=True):
        assert ram.map[page] == (int(address) - RAM_BASE) >> 12
        assert ram.writable(page)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_last_one_left_writes_without_a_copy(technique: str) -> None:
    host = _program(technique, FILLER)
    host.run(20_000)
    host.clone_guest(1, 2)
    used = host.frames.used
    host.remove_guest(1)
    assert host.frames.used <= used
    held = host.frames.used
    host.run(20_000)
    assert _vm(host, 2).vm.ram.shared == {0x80200, 0x803FF}  # its code and its device tree, which it only reads
    assert host.frames.used - held < 20  # page tables only
    records = host.trace.records(2, limit=4096)
    assert Action.COPY_ON_WRITE not in records["action"].tolist()
    staged = "hardware-assist" in technique and "shadow" not in technique
    fill = Action.SECOND_STAGE_FILL if staged else Action.SHADOW_FILL
    assert fill in records["action"].tolist()
    _accounts(host)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_all_promises_are_kept_when_everybody_stores_everywhere(technique: str) -> None:
    host = _program(technique, FILLER, 32)
    host.run(10_000)
    clones = 1
    while host.fits(1, 4, machine_mode=False, paravirtual=None) is None:
        clones += 1
        host.clone_guest(1 + (clones > 3), clones)
        _accounts(host)
    assert clones >= 6
    for _ in range(10):
        host.run(40_000)
        _accounts(host)
    assert all(not guest.ended for guest in host.guests.values())
    counts = [int.from_bytes(_vm(host, guest).vm.ram.read(0x80100000, 8), "little") for guest in host.guests]
    assert min(counts) >= 2
    for guest in list(host.guests)[:-1]:
        host.remove_guest(guest)
        _accounts(host)
    host.remove_guest(clones)
    assert host.frames.promised == 0
    assert host.frames.used == 0


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_reservations_and_atomics_on_a_shared_page(technique: str) -> None:
    host = _program(technique, LOCKS)
    chance = random.Random(5)
    for clone in range(2, 8):
        host.run(chance.randrange(1, 3_000))
        host.clone_guest(chance.choice(list(host.guests)), clone)
    host.run(30_000)
    for guest in host.guests.values():
        x = guest.registers(0)["x"]
        rounds = x[9]
        word = int.from_bytes(_vm(host, guest.id).vm.ram.read(guest.registers(0)["x"][8], 8), "little")
        assert rounds > 100
        # A round adds 1 and its number; it may stand anywhere in its round.
        done = rounds * (rounds + 1) // 2 + rounds
        assert done - rounds <= word <= done + 1


@pytest.mark.parametrize("seed", range(3))
def test_frames_against_a_model(seed: int) -> None:
    """Random allocation, sharing, copying and release, with the content that each holder should see."""
    chance = random.Random(seed)
    size = 40
    memory = Memory(RAM_BASE, size * PAGE)
    frames = Frames(memory, 4)
    holders: list[list[int | bytes]] = []  # [frame, content]
    frames.promised = promised = frames.total
    for step in range(600):
        action = chance.randrange(4)
        if action == 0 and promised:
            frame, content = frames.take_promised(), step.to_bytes(8, "little")
            assert memory.read_bytes(frame * PAGE, PAGE) == bytes(PAGE)
            memory.write_bytes(frame * PAGE, content)
            holders.append([frame, content])
            promised -= 1
        elif action == 1 and holders and promised:
            frame, content = chance.choice(holders)
            frames.share(frame)  # type: ignore[arg-type]
            holders.append([frame, content])
        elif action == 2 and holders:
            holder = chance.choice(holders)
            if frames.is_shared(holder[0]) and frames.promised:  # type: ignore[arg-type]
                holder[0], holder[1] = frames.copy(holder[0]), step.to_bytes(8, "little")  # type: ignore[arg-type]
                memory.write_bytes(holder[0] * PAGE, holder[1])  # type: ignore[operator, arg-type]
        elif action == 3 and holders:
            frame, _ = holders.pop(chance.randrange(len(holders)))
            shared = frames.is_shared(frame)  # type: ignore[arg-type]
            frames.promised += shared  # this model gives a promise of its own, which the release takes back
            frames.give_back(frame)  # type: ignore[arg-type]
        promised = frames.promised
        again = Frames(memory, 4)
        again.load(frames.save())
        assert again.save() == frames.save()
        for frame, content in holders:
            assert memory.read_bytes(frame * PAGE, 8) == content  # type: ignore[operator]
        assert len({frame for frame, _ in holders}) == frames.used
    while frames.used < frames.total:
        frames.take_promised()
    with pytest.raises(OutOfFramesError):
        frames.take_promised()


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_world_with_clones_comes_back_the_same_at_any_moment(technique: str) -> None:
    image = inspect(load_image("ringos"), "ringos")
    chosen = Configuration.parse(technique)
    hosts = [HostRow(1, "host", 0.0, 0.0, 1, 128, chosen.stack, chosen.technique, chosen.switches)]
    guests = [GuestRow(number, f"vm-{number}", 1, "ringos", 1, 16, "run=demo") for number in (1, 2, 3)]

    def blank() -> World:
        return World.build(hosts, guests, lambda _name: image, lambda _guest, _data: None)

    world = World.build(hosts, guests[:1], lambda _name: image, lambda _guest, _data: None)
    world.run(60_000)
    world.clone_guest(guests[1], 1)
    world.run(20_000)
    world.clone_guest(guests[2], 2)
    chance = random.Random(3)
    for _ in range(4):
        world.run(chance.randrange(30_000))
        state, position = world.save(), world.position
        world.run(30_000)
        other = blank()
        other.load(state)
        other.run(world.position - position)
        assert other.trace.hash() == world.trace.hash()
        assert other.save() == world.save()


def test_a_clone_in_a_lab_is_undone_kept_and_goes_back_in_time() -> None:
    lab = lab_of(["run=demo"])
    [first] = guests_of(lab)
    lab.run(60_000)
    second = lab.apply(GuestClone(first))["guest"]
    assert console(lab, second) == console(lab, first)
    copy = Lab.load(lab.save())
    end = lab.position + 50_000
    for each in (lab, copy):
        run_to(each, end)
    assert lab.trace_hash() == copy.trace_hash()
    assert lab.document()["undo"] == "guest.clone"
    lab.apply(LabUndo())
    assert guests_of(lab) == [first]
    lab.apply(LabRedo())
    assert guests_of(lab) == [first, second]
    lab.run(100_000)
    states = lab.keyframe()["status"]
    assert [states[str(guest)]["failure"] for guest in (first, second)] == [None, None]


@pytest.mark.parametrize("technique", ["bare-metal", *TECHNIQUES])
def test_a_clone_on_another_host_and_of_bare_metal_is_a_copy(technique: str) -> None:
    lab = lab_of([""], configuration=technique)
    [first] = guests_of(lab)
    lab.run(PROMPT_STEPS)
    there = lab.apply(host_create(technique))["host"]
    second = lab.apply(GuestClone(first, host=there, name="twin"))["guest"]
    for guest in (first, second):
        type_line(lab, guest, "work syscall 3")
    lab.run(400_000)
    assert console(lab, second).endswith(b"ringos$ ")
    assert console(lab, first) == console(lab, second)
    if technique == "bare-metal":
        with pytest.raises(LabError, match="runs one system"):
            lab.apply(GuestClone(first))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_tohost_is_noticed_in_each_of_them(technique: str) -> None:
    source = """
    _start: addi s0, s0, 1
            li   t1, 5000
            bltu s0, t1, _start
            la   t0, tohost
            li   t2, 7
            sd   t2, 0(t0)
    here:   j    here
    .balign 4096
    .globl tohost
    tohost: .dword 0
    """
    host = _program(technique, source)
    for clone in (2, 3):
        host.run(3_000)
        host.clone_guest(1, clone)
    host.run(100_000)
    assert [guest.exit_status for guest in host.guests.values()] == [3, 3, 3]


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_cloning_is_quick_to_share_and_shares_everything(technique: str) -> None:
    host, _, _ = _ringos(technique, host_mib=1024)
    held = len(_vm(host, 1).vm.ram.map)
    used = host.frames.used
    for clone in range(2, 32):
        host.clone_guest(1, clone)
    assert host.frames.used == used
    assert len(np.unique([_vm(host, guest).vm.ram.map[0x80200] for guest in host.guests])) == 1
    assert len(_vm(host, 31).vm.ram.shared) == held
