"""Live migration in a lab: nothing is lost, nothing runs twice, and the same commands give the same migration."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.commands import (
    AnyCommand,
    ConsoleInput,
    FitsQuery,
    GuestClone,
    GuestCreate,
    GuestMigrate,
    GuestMigrateCancel,
    GuestMove,
    GuestPower,
    GuestRemove,
    GuestSet,
    HostCreate,
    HostRemove,
    HostStack,
    ImageAssemble,
    LabError,
    LabLink,
    LabRedo,
    LabReset,
    LabSeek,
    LabUndo,
    SnapshotTake,
)
from engine.debugger import Debugger, Stop, poke
from engine.hypervisor.frames import OutOfFramesError
from engine.hypervisor.guest import FAILED, OFF, RUNNING, STOPPED
from engine.hypervisor.migration import PAGE_BYTES, PULLING, Progress
from engine.hypervisor.vm import GuestRam
from engine.hypervisor.vm_guest import TECHNIQUES, VmGuest
from engine.lab import Lab, Limits
from engine.machine.memory import PAGE
from engine.machine.tiers import Tier
from engine.trace.record import Action
from tests.support.labs import console, host_create, run_to, type_line

MODES = ("pre-copy", "post-copy", "stop-and-copy")
CHATTER = (Path(__file__).parents[1] / "support" / "chatter.s").read_text()
SOURCE, TARGET, GUEST = 1, 2, 3
#: ringos is at work by then.
BOOTED = 60_000
#: Stores to every page of its RAM in turn, for ever.
DIRTIER = """
.equ BEGIN, 0x80240000
.equ END, 0x80400000
_start: li   s0, BEGIN
        li   s1, 4096
        li   s2, END
round:  mv   t0, s0
page:   addi s3, s3, 1
        sd   s3, 0(t0)
        add  t0, t0, s1
        bltu t0, s2, page
        j    round
"""
#: Reads the clock for ever; ends with status 1 when it went back.
CLOCK = """
_start: csrr t0, time
again:  csrr t1, time
        bltu t1, t0, back
        mv   t0, t1
        addi s1, s1, 1
        j    again
back:   li   a0, 0x100000
        li   a1, 0x13333
        sw   a1, 0(a0)
hang:   j    hang
"""


def lab_with(
    source: str, target: str, arguments: str = "run=work pagefault 100000", tier: Tier = Tier.JIT, harts: int = 1
) -> Lab:
    """Two hosts, on the first of them a ringos at work (or, if `arguments` is a program, that)."""
    lab = Lab.new("migration", Limits(tier=tier))
    for configuration in (source, target):
        lab.apply(host_create(configuration, harts=harts))
    if "_start" in arguments:
        image = lab.apply(ImageAssemble("program", arguments))["image"]
        lab.apply(GuestCreate(SOURCE, image, memory_mib=4, vcpus=1))
    else:
        lab.apply(GuestCreate(SOURCE, kernel_for(source), arguments=arguments))
    return lab


def kernel_for(configuration: str) -> str:
    return "ringos-pv" if configuration == "paravirtual" else "ringos"


#: Techniques between which a guest can go.
PAIRS = [(a, b) for a in TECHNIQUES for b in TECHNIQUES if kernel_for(a) == kernel_for(b)]
UNMODIFIED = [technique for technique in TECHNIQUES if kernel_for(technique) == "ringos"]


def vm(lab: Lab, guest: int = GUEST) -> VmGuest:
    found = lab.world.guest(guest)
    assert isinstance(found, VmGuest)
    return found


def state_of(lab: Lab, guest: int = GUEST) -> Progress:
    return lab.world.migrations[guest]


def home(lab: Lab, guest: int = GUEST) -> int:
    return next(row["host"] for row in lab.document()["guests"] if row["id"] == guest)


def creep(lab: Lab) -> None:
    """Run on a bit, and never past the migration's next event: steps take 1 ns, a trap some 2 us more."""
    left = 0 if state_of(lab).phase == "stopped" else state_of(lab).due_ns - lab.world.time - 3_000
    assert lab.run(max(1, left), stop_after_traps=1).steps


def on_to_event(lab: Lab) -> None:
    """Run to just after the migration's next event."""
    seen = (state_of(lab).round_count, state_of(lab).phase)
    while (state_of(lab).round_count, state_of(lab).phase) == seen:
        creep(lab)


def finish(lab: Lab, guest: int = GUEST) -> Progress:
    for _ in range(20_000):
        if not state_of(lab, guest).active:
            return state_of(lab, guest)
        assert lab.run(5_000).steps
    raise AssertionError("it does not end")


def copies(lab: Lab) -> list[int]:
    """On which hosts the guest has a right to run."""
    return [host.id for host in lab.world.hosts.values() if GUEST in host.guests]


def refused(lab: Lab, command: AnyCommand) -> str:
    before = lab.save()
    with pytest.raises(LabError) as caught:
        lab.apply(command)
    assert lab.save() == before
    return caught.value.problem.key


# -- the dirty log ---------------------------------------------------------------------------------
@pytest.mark.parametrize("tier", [Tier.REFERENCE, Tier.JIT])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_no_store_is_missed(technique: str, tier: Tier) -> None:
    """A page that the log calls clean is equal to its copy, whoever stores: the guest, its page-table walks, devices."""
    lab = lab_with(technique, technique, "run=work switch 100000", tier)
    lab.run(BOOTED)
    lab.apply(LabLink(1))
    lab.apply(GuestMigrate(GUEST, TARGET, max_rounds=1000, downtime_us=0))
    dice = random.Random(1)
    compared = 0
    for _ in range(60):
        lab.run(dice.randrange(1, 4_000))
        if not state_of(lab).active:
            break
        here, there = vm(lab).vm.ram, lab.world.hosts[TARGET].staged[GUEST].vm.ram
        if dice.random() < 0.2:
            type_line(lab, GUEST, "x")
        for page in here.clean:
            compared += 1
            assert here.read(page << 12, PAGE) == there.read(page << 12, PAGE), hex(page << 12)
    assert compared > 500


@pytest.mark.parametrize("technique", UNMODIFIED)
def test_the_first_store_to_a_copied_page_is_a_trap(technique: str) -> None:
    lab = lab_with(technique, technique, DIRTIER)
    lab.run(20_000)
    lab.apply(GuestMigrate(GUEST, TARGET, max_rounds=3))
    written = lab.world.trace.written
    dirtied = finish(lab).rounds[0].dirtied
    records = lab.world.trace.latest(5_000)
    logged = [int(a) for a in records["a"][records["action"] == Action.LOG_DIRTY]]
    assert lab.world.trace.written > written
    assert dirtied
    assert len(logged) >= dirtied
    assert len(set(logged[:dirtied])) == dirtied


def test_the_log_hears_of_what_the_hypervisor_and_devices_store() -> None:
    lab = lab_with("hardware-assist", "hardware-assist", CLOCK)
    lab.run(1_000)
    ram = vm(lab).vm.ram
    ram.log_dirty(True)
    everything = ram.take_dirty()
    assert len(everything) == len(ram.map)
    page = everything[0]
    ram.write((page << 12) + 8, b"dma")
    ram.memory.write(ram.store_offset(page + 50 << 12), 8, 1)
    assert ram.take_dirty() == [page, page + 50]
    assert ram.take_dirty() == []
    ram.log_dirty(False)
    assert all(ram.writable(page) for page in ram.map)


# -- it works --------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_guest_goes_on_elsewhere(source: str, target: str, mode: Any) -> None:
    lab = lab_with(source, target)
    lab.run(BOOTED)
    if mode == "post-copy" and target == "paravirtual":
        assert refused(lab, GuestMigrate(GUEST, TARGET, mode)) == "migrate-no-post-copy"
        return
    free = lab.world.hosts[SOURCE].frames.used
    lab.apply(GuestMigrate(GUEST, TARGET, mode))
    assert copies(lab) == [SOURCE]
    while state_of(lab).phase != "stopped":
        assert copies(lab) == [SOURCE]
        creep(lab)
    before = lab.world.export_guest(GUEST)["machine"]
    on_to_event(lab)
    after = lab.world.export_guest(GUEST)["machine"]
    assert before["pages"] == after["pages"]
    assert [vcpu["virtual"] for vcpu in before["vcpus"]] == [vcpu["virtual"] for vcpu in after["vcpus"]]
    done = finish(lab)
    assert (done.phase, copies(lab), home(lab)) == ("done", [TARGET], TARGET)
    assert done.bytes >= done.pages * PAGE_BYTES > 0
    assert done.end_ns - done.begin_ns >= done.downtime_ns > 0
    assert done.bytes * 8 // 10 <= done.end_ns - done.begin_ns
    assert not any(host.staged for host in lab.world.hosts.values())
    assert lab.world.hosts[SOURCE].frames.used < free
    instructions = vm(lab).instructions
    lab.run(BOOTED)
    assert vm(lab).instructions > instructions
    assert vm(lab).state == RUNNING


def test_the_ways_differ_as_they_should() -> None:
    """Downtime: stop-and-copy worst. Post-copy sends every page once; pre-copy some twice."""
    seen = {}
    for mode in MODES:
        lab = lab_with("hardware-assist", "hardware-assist", DIRTIER)
        lab.run(50_000)
        lab.apply(GuestMigrate(GUEST, TARGET, mode, max_rounds=3))
        seen[mode] = finish(lab)
        assert lab.run(10_000).steps == 10_000
    pre, post, stop = (seen[mode] for mode in MODES)
    assert post.downtime_ns < pre.downtime_ns
    assert stop.downtime_ns == stop.end_ns - stop.begin_ns
    assert pre.pages > post.pages
    assert post.pages >= stop.pages
    assert post.fetched > 0


def test_a_page_that_was_left_behind_is_fetched_and_waited_for() -> None:
    lab = lab_with("hardware-assist", "trap-and-emulate", DIRTIER)
    lab.run(50_000)
    lab.apply(LabLink(1))
    lab.apply(GuestMigrate(GUEST, TARGET, "post-copy"))
    done = finish(lab)
    records = lab.world.trace.latest(4_000)
    fetches = records[records["action"] == Action.REMOTE_FETCH]
    assert 0 < len(fetches) <= done.fetched
    assert set(fetches["host"].tolist()) == {TARGET}
    waits = fetches["time"][1:].astype(int) - fetches["time"][:-1].astype(int)
    assert waits.min() > 50_000 + 8 * PAGE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("harts", [1, 2])
def test_the_clock_never_goes_back(mode: Any, harts: int) -> None:
    lab = lab_with("trap-and-emulate", "hardware-assist", CLOCK, harts=harts)
    for _ in range(2):
        lab.apply(GuestCreate(TARGET, "ringos", arguments="run=work switch 1000"))
    lab.run(10_000)
    for target in (TARGET, SOURCE):
        lab.apply(GuestMigrate(GUEST, target, mode))
        assert finish(lab).phase == "done"
        lab.run(200_000)
        assert vm(lab).state == RUNNING


def test_an_idle_guest_migrates_and_its_console_stays() -> None:
    lab = lab_with("trap-and-emulate", "hardware-assist", "")
    assert lab.run(5_000_000).idle
    shown = console(lab, GUEST)
    lab.apply(GuestMigrate(GUEST, TARGET))
    assert not lab.world.idle
    while not lab.world.idle:
        lab.run(1_000)
    assert (home(lab), state_of(lab).phase) == (TARGET, "done")
    type_line(lab, GUEST, "work syscall 3")
    lab.run(5_000_000)
    assert b"checksum 0xda44eb52e04d5403" in console(lab, GUEST).removeprefix(shown)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_typed_while_it_stands_still_arrives(mode: Any) -> None:
    lab = lab_with("trap-and-emulate", "trap-and-emulate", "")
    lab.run(5_000_000)
    lab.apply(LabLink(1))
    lab.apply(GuestMigrate(GUEST, TARGET, mode))
    while state_of(lab).phase != "stopped":
        lab.run(1)
    assert vm(lab).paused is not None
    type_line(lab, GUEST, "work syscall 3")
    finish(lab)
    lab.run(5_000_000)
    assert b"checksum 0xda44eb52e04d5403" in console(lab, GUEST)


@pytest.mark.parametrize("mode", MODES)
def test_no_frame_is_lost_on_the_way(mode: Any) -> None:
    """Three guests talk; one is migrated in the middle. Everybody gets an answer to every hello that was heard."""
    lab = Lab.new("network")
    image = lab.apply(ImageAssemble("chatter", CHATTER))["image"]
    for stack, guests in (("trap-and-emulate", 2), ("bare-metal", 1), ("hardware-assist", 0)):
        host = lab.apply(host_create(stack))["host"]
        for _ in range(guests):
            lab.apply(GuestCreate(host, image, memory_mib=4))
    lab.run(40_000)
    lab.apply(GuestMigrate(2, 6, mode))
    finish(lab, 2)
    while lab.run(100_000).steps:
        pass
    heard = {guest: console(lab, guest).decode() for guest in (2, 3, 5)}
    assert home(lab, 2) == 6
    for guest, text in heard.items():
        for other, theirs in heard.items():
            assert text.count(chr(64 + other)) == theirs.count(chr(96 + guest))


# -- when it stops ---------------------------------------------------------------------------------
def test_a_guest_that_dirties_everything_is_stopped_all_the_same() -> None:
    lab = lab_with("hardware-assist", "hardware-assist", DIRTIER)
    lab.run(50_000)
    lab.apply(GuestMigrate(GUEST, TARGET, downtime_us=0))
    done = finish(lab)
    assert (done.phase, done.reason) == ("done", "dirty-rate")
    assert done.round_count < 10
    assert done.rounds[-1].dirtied is None


def test_the_limit_of_rounds_holds() -> None:
    lab = lab_with("hardware-assist", "hardware-assist", DIRTIER)
    lab.run(50_000)
    lab.apply(GuestMigrate(GUEST, TARGET, max_rounds=1, downtime_us=0))
    done = finish(lab)
    assert (done.phase, done.reason, done.round_count) == ("done", "rounds", 2)


def test_a_faster_link_makes_it_shorter() -> None:
    took = []
    for gbit in (1, 10, 100):
        lab = lab_with("hardware-assist", "hardware-assist", CLOCK)
        lab.run(5_000)
        lab.apply(LabLink(gbit))
        assert lab.document()["link_gbit"] == gbit
        lab.apply(GuestMigrate(GUEST, TARGET, "stop-and-copy"))
        lab.apply(LabLink(400))  # is for those to come
        took.append(finish(lab).downtime_ns)
    assert took == sorted(took, reverse=True)


# -- the same every time ---------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
def test_however_it_is_cut_it_is_the_same_migration(mode: Any) -> None:
    end = 420_000

    def begun(tier: Tier = Tier.JIT) -> Lab:
        lab = lab_with("trap-and-emulate", "hardware-assist", "run=demo", tier)
        lab.run(BOOTED)
        lab.apply(GuestMigrate(GUEST, TARGET, mode))
        return lab

    straight = begun()
    run_to(straight, end)
    assert state_of(straight).phase == "done"
    for seed in range(2):
        lab, dice = begun(Tier.REFERENCE if seed else Tier.JIT), random.Random(seed)
        while lab.position < end:
            lab.run(min(dice.choice((1, 7, 300, 3_000, 20_000)), end - lab.position), dice.choice((None, None, 1)))
            if dice.random() < 0.1 and state_of(lab).active:
                lab = Lab.load(lab.save())
        assert (lab.trace_hash(), state_of(lab), home(lab)) == (
            straight.trace_hash(), state_of(straight), home(straight),
        )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_time_goes_back_over_a_migration_and_forth(mode: Any) -> None:
    lab = lab_with("trap-and-emulate", "hardware-assist", "run=demo")
    lab.run(BOOTED)
    began = lab.position
    lab.apply(GuestMigrate(GUEST, TARGET, mode))
    seen = {}
    for _ in range(40):
        seen[lab.position] = (lab.trace_hash(), home(lab), state_of(lab).phase, state_of(lab).pages)
        lab.run(2_000)
    assert {home for _, home, _, _ in seen.values()} == {SOURCE, TARGET}
    for position in random.Random(3).sample(sorted(seen), len(seen)):
        lab.apply(LabSeek(position))
        assert (lab.trace_hash(), home(lab), state_of(lab).phase, state_of(lab).pages) == seen[position]
        if position % 3 == 0:
            lab = Lab.load(lab.save())
    lab.apply(LabSeek(began - 1))
    assert (home(lab), GUEST in lab.world.migrations, copies(lab)) == (SOURCE, False, [SOURCE])
    lab.apply(ConsoleInput(GUEST, b"x"))  # another future, without it
    lab.run(300_000)
    assert home(lab) == SOURCE


def _stops(running: Any) -> Stop:
    return next(stop for stop in running if stop is not None)


class _OfLab:
    """What a debugger works on, of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.world, self.history = lab.world, lab.history

    def change(self, change: GuestSet) -> bool:
        return poke(self.world, change)


def test_a_debugger_follows_the_guest_and_goes_back_with_it() -> None:
    lab = lab_with("trap-and-emulate", "hardware-assist", CLOCK)
    lab.run(1_000)
    lab.apply(GuestMigrate(GUEST, TARGET, "stop-and-copy"))
    debugger = Debugger(_OfLab(lab), GUEST)
    again = 0x80200004  # once a round
    debugger.stop_at(again)
    assert _stops(debugger.go()).reason == "breakpoint"
    assert lab.world.homes[GUEST] == TARGET
    position, pc = lab.world.position, debugger.hart(0).pc
    assert pc == again
    assert _stops(debugger.go_back()).reason == "breakpoint"
    assert lab.world.homes[GUEST] == SOURCE
    _stops(debugger.go())
    assert (lab.world.position, debugger.hart(0).pc, lab.world.homes[GUEST]) == (position, pc, TARGET)
    lab.jumped()
    assert home(lab) == TARGET


# -- exactly one running copy ----------------------------------------------------------------------
def _cancel(lab: Lab) -> None:
    lab.apply(GuestMigrateCancel(GUEST))


def _undo(lab: Lab) -> None:
    lab.apply(LabUndo())


def _remove_target(lab: Lab) -> None:
    lab.apply(HostRemove(TARGET))


def _restack_target(lab: Lab) -> None:
    lab.apply(HostStack(TARGET, "bare-metal"))


INTERRUPTIONS: tuple[Callable[[Lab], None], ...] = (_cancel, _undo, _remove_target, _restack_target)


@pytest.mark.parametrize("interrupt", INTERRUPTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_interrupted_before_the_switch_the_source_goes_on(mode: Any, interrupt: Callable[[Lab], None]) -> None:
    for events in range(4):
        lab = lab_with("trap-and-emulate", "hardware-assist", DIRTIER)
        lab.run(20_000)
        lab.apply(GuestMigrate(GUEST, TARGET, mode, max_rounds=2, downtime_us=0))
        for _ in range(events):
            on_to_event(lab)
        if home(lab) == TARGET:
            break
        interrupt(lab)
        assert copies(lab) == [SOURCE]
        assert home(lab) == SOURCE
        assert state_of(lab).phase in ("cancelled", "failed")
        assert not any(host.staged for host in lab.world.hosts.values())
        if TARGET in lab.world.hosts:
            assert lab.world.hosts[TARGET].frames.used == 0
            assert lab.world.hosts[TARGET].frames.promised == 0
        instructions, ended = vm(lab).instructions, lab.position
        lab = Lab.load(lab.save())
        lab.run(20_000)
        assert vm(lab).instructions > instructions
        records = lab.world.trace.latest(1_000)
        assert not (records["action"][records["position"] >= ended] == Action.LOG_DIRTY).any()
    assert events


@pytest.mark.parametrize("fails_at", [0, 1, 30, 500, 900])
@pytest.mark.parametrize("mode", ["pre-copy", "stop-and-copy"])
def test_a_target_that_runs_out_of_frames(mode: Any, fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_with("hardware-assist", "hardware-assist", DIRTIER)
    lab.run(20_000)
    frames, left = lab.world.hosts[TARGET].frames, [fails_at]
    take = frames.take_promised

    def limited() -> int:
        if not left[0]:
            raise OutOfFramesError
        left[0] -= 1
        return take()

    monkeypatch.setattr(frames, "take_promised", limited)
    lab.apply(GuestMigrate(GUEST, TARGET, mode, max_rounds=2))
    done = finish(lab)
    assert done.phase == "done" or (done.phase, done.reason) == ("failed", "out-of-memory")
    assert done.phase == "failed" or fails_at > 400
    assert len(copies(lab)) == 1
    assert (done.phase == "done") == (copies(lab) == [TARGET])
    instructions = vm(lab).instructions
    lab.run(20_000)
    assert vm(lab).instructions > instructions


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("action", ["off", "reset"])
def test_switched_off_or_reset_in_the_middle(mode: Any, action: Any) -> None:
    for steps in (0, 3_000, 6_000, 15_000, 40_000):
        lab = lab_with("trap-and-emulate", "hardware-assist", DIRTIER)
        lab.run(20_000)
        lab.apply(LabLink(1))
        lab.apply(GuestMigrate(GUEST, TARGET, mode, downtime_us=0))
        lab.run(steps)
        lab.apply(GuestPower(GUEST, action))
        finish(lab)
        assert len(copies(lab)) == 1
        assert copies(lab) == [home(lab)]
        assert not any(host.staged for host in lab.world.hosts.values())
        lab.run(5_000)
        assert lab.keyframe()["status"][str(GUEST)]["state"] == (OFF if action == "off" else RUNNING)


@pytest.mark.parametrize("mode", MODES)
def test_a_guest_that_ends_in_the_middle(mode: Any) -> None:
    for program, state in (("li a0, 0x100000\n li a1, 0x5555\n sw a1, 0(a0)\n", STOPPED), ("jr zero\n", FAILED)):
        loop = "_start: li t0, 30000\n1: addi t0, t0, -1\n bnez t0, 1b\n"
        lab = lab_with("trap-and-emulate", "hardware-assist", loop + program)
        lab.run(20_000)
        lab.apply(LabLink(1))
        lab.apply(GuestMigrate(GUEST, TARGET, mode))
        done = finish(lab)
        while lab.run(100_000).steps:
            pass
        assert lab.keyframe()["status"][str(GUEST)]["state"] == state
        assert copies(lab) == [home(lab)]
        assert (done.phase, done.reason) == ("failed", "guest-ended") or done.phase == "done"


@pytest.mark.parametrize("command", [HostRemove(SOURCE), GuestRemove(GUEST), HostRemove(TARGET), LabReset()])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_removed_in_the_middle_comes_back_whole(mode: Any, command: AnyCommand) -> None:
    """After the switch, too: a source that goes gives what it still has."""
    for steps in (2_000, 20_000, 60_000, 120_000):
        lab = lab_with("hardware-assist", "trap-and-emulate", DIRTIER)
        lab.run(20_000)
        lab.apply(LabLink(1))
        lab.apply(GuestMigrate(GUEST, TARGET, mode, max_rounds=2, downtime_us=0))
        lab.run(steps)
        pages = lab.world.export_guest(GUEST)["machine"]["pages"]
        lab.apply(command)
        assert len(copies(lab)) <= 1
        assert not any(host.staged for host in lab.world.hosts.values())
        lab.run(1_000)
        if isinstance(command, LabReset):
            continue
        if isinstance(command, HostRemove) and copies(lab):
            continue
        lab.apply(LabUndo())
        assert lab.world.export_guest(GUEST)["machine"]["pages"] == pages
        lab.run(10_000)
        assert vm(lab).state == RUNNING


def test_after_a_post_copy_switch_there_is_no_way_back() -> None:
    lab = lab_with("hardware-assist", "hardware-assist", DIRTIER)
    lab.run(50_000)
    lab.apply(LabLink(1))
    lab.apply(GuestMigrate(GUEST, TARGET, "post-copy"))
    while state_of(lab).phase != PULLING:
        lab.run(100)
    assert refused(lab, GuestMigrateCancel(GUEST)) == "migrate-switched"
    lab.apply(SnapshotTake(GUEST))
    clone = lab.apply(GuestClone(GUEST))["guest"]
    assert lab.world.export_guest(clone)["machine"]["pages"] == lab.world.export_guest(GUEST)["machine"]["pages"]
    lab.run(50_000)
    lab.apply(LabUndo())  # the clone
    lab.apply(LabUndo())  # the migration: back, with everything
    assert (home(lab), copies(lab)) == (SOURCE, [SOURCE])
    instructions = vm(lab).instructions
    lab.run(10_000)
    assert vm(lab).instructions > instructions


# -- undo ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
def test_undo_and_redo_at_every_moment(mode: Any) -> None:
    for steps in (0, 3_000, 40_000, 400_000):
        lab = lab_with("trap-and-emulate", "hardware-assist", DIRTIER)
        lab.run(20_000)
        lab.apply(GuestMigrate(GUEST, TARGET, mode, max_rounds=2))
        assert lab.document()["undo"] == "guest.migrate"
        lab.run(steps)
        lab.apply(LabUndo())
        assert (copies(lab), home(lab), lab.document()["redo"]) == ([SOURCE], SOURCE, "guest.migrate")
        lab.run(1_000)
        lab = Lab.load(lab.save())
        lab.apply(LabRedo())
        finish(lab)
        assert (copies(lab), home(lab)) == ([TARGET], TARGET)
        lab.apply(LabUndo())
        assert home(lab) == SOURCE


def test_a_migration_that_came_to_nothing_is_not_undone() -> None:
    lab = lab_with("trap-and-emulate", "hardware-assist", DIRTIER)
    lab.run(20_000)
    lab.apply(GuestMigrate(GUEST, TARGET))
    lab.apply(GuestMigrateCancel(GUEST))
    assert lab.document()["undo"] == "guest.create"
    lab.apply(LabUndo())
    assert lab.document()["guests"] == []


# -- refusals --------------------------------------------------------------------------------------
def test_what_cannot_be_migrated_is_refused_with_the_reason() -> None:
    lab = lab_with("trap-and-emulate", "trap-and-emulate", DIRTIER)
    bare = lab.apply(HostCreate(stack="bare-metal"))["host"]
    other = lab.apply(HostCreate(stack="bare-metal"))["host"]
    small = lab.apply(HostCreate(memory_mib=16))["host"]
    alone = lab.apply(GuestCreate(bare, "ringos"))["guest"]
    ended = lab.apply(GuestCreate(SOURCE, "hello"))["guest"]
    big = lab.apply(GuestCreate(SOURCE, "ringos", memory_mib=64))["guest"]
    run_to(lab, 300_000)
    assert refused(lab, GuestMigrate(GUEST, SOURCE)) == "move-same-host"
    assert refused(lab, GuestMigrate(GUEST, bare)) == "move-other-stack"
    assert refused(lab, GuestMigrate(alone, other)) == "migrate-bare-metal"
    assert refused(lab, GuestMigrate(ended, TARGET)) == "migrate-ended"
    assert refused(lab, GuestMigrate(big, small)) == "host-memory"
    assert refused(lab, GuestMigrate(99, TARGET)) == "no-such-guest"
    assert refused(lab, GuestMigrate(GUEST, 99)) == "no-such-host"
    assert refused(lab, GuestMigrateCancel(GUEST)) == "migrate-none"
    lab.apply(GuestMigrate(GUEST, TARGET))
    assert refused(lab, GuestMigrate(GUEST, small)) == "migrate-already"
    assert refused(lab, GuestMove(GUEST, small)) == "migrate-already"
    assert lab.query(FitsQuery(TARGET, guest=GUEST))["error"]["key"] == "migrate-already"


def test_a_guest_on_its_way_holds_its_room_on_both_hosts() -> None:
    lab = lab_with("trap-and-emulate", "trap-and-emulate", DIRTIER)
    used = lab.world.hosts[TARGET].memory_used_mib
    lab.run(1_000)
    lab.apply(GuestMigrate(GUEST, TARGET))
    assert lab.world.hosts[TARGET].memory_used_mib == used + 4
    finish(lab)
    assert lab.world.hosts[SOURCE].memory_used_mib == used


def test_two_guests_change_places_at_once() -> None:
    lab = lab_with("trap-and-emulate", "hardware-assist", "run=work switch 100000")
    other = lab.apply(GuestCreate(TARGET, "ringos", arguments="run=work syscall 100000"))["guest"]
    lab.run(BOOTED)
    lab.apply(GuestMigrate(GUEST, TARGET))
    lab.apply(GuestMigrate(other, SOURCE, "post-copy"))
    finish(lab)
    finish(lab, other)
    assert (home(lab), home(lab, other)) == (TARGET, SOURCE)
    lab = Lab.load(lab.save())
    before = {guest: vm(lab, guest).instructions for guest in (GUEST, other)}
    lab.run(100_000)
    assert all(vm(lab, guest).instructions > count for guest, count in before.items())


# -- what clients hear -----------------------------------------------------------------------------
def test_clients_hear_of_every_event() -> None:
    lab = lab_with("trap-and-emulate", "trap-and-emulate", DIRTIER)
    lab.run(20_000)
    lab.drain()
    lab.apply(GuestMigrate(GUEST, TARGET, max_rounds=2))
    heard = []
    while state_of(lab).active:
        heard += lab.drain()["migrations"]
        on_to_event(lab)
    heard += lab.drain()["migrations"]
    assert [row["phase"] for row in heard] == ["copying", "copying", "stopped", "done"]
    last = heard[-1]
    assert lab.keyframe()["migrations"] == [last]
    assert sum(row[2] for row in last["rounds"]) == last["pages"]
    assert last["bytes"] > last["pages"] * PAGE
    assert lab.take_moved()
    assert not lab.take_moved()
    assert lab.drain()["migrations"] == []


def test_ram_that_is_read_from_afar_stays_there() -> None:
    lab = lab_with("hardware-assist", "hardware-assist", DIRTIER)
    lab.run(50_000)
    lab.apply(LabLink(1))
    lab.apply(GuestMigrate(GUEST, TARGET, "post-copy"))
    while state_of(lab).phase != PULLING:
        lab.run(100)
    ram: GuestRam = vm(lab).vm.ram
    page = max(ram.absent)
    assert ram.origin is not None
    assert ram.read(page << 12, PAGE) == ram.origin.read(page << 12, PAGE)
    assert page in ram.absent
    ram.write((page << 12) + 1, b"x")
    assert page not in ram.absent
    assert ram.read(page << 12, 2)[1:] == b"x"
