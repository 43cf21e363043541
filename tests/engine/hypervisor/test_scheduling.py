"""Schedulers: shares follow weights, caps hold, waking guests are answered, and nothing of it depends on how the running
is cut into pieces."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from engine.commands import SchedulerId
from engine.hypervisor.host import CAP_REACHED, Host
from engine.hypervisor.scheduling import SCHEDULERS
from engine.hypervisor.scheduling.scheduler import CAP_PERIOD_NS, DEFAULT_SHARE, Share
from engine.hypervisor.stacks import STACKS, Configuration
from engine.hypervisor.vm_guest import VmGuest
from engine.machine.loader import inspect
from engine.machine.tiers import Tier
from engine.trace.record import Action
from engine.trace.rings import Trace
from tests.support.machine import Machine, program

EVERY_SCHEDULER = sorted(SCHEDULERS)
EVERY_TECHNIQUE = ("trap-and-emulate", "hardware-assist")
MS = 1_000_000

SPIN = "_start: j _start\n"
#: Sleeps a fifth of a millisecond, again and again.
NAPS = """
_start:
    li   s1, 32                 # the timer's interrupt may end wfi; taken it is not
    csrw sie, s1
1:  rdtime a0
    addi a0, a0, 2000
    csrw stimecmp, a0
2:  wfi
    csrr t0, sip
    and  t0, t0, s1
    beqz t0, 2b
    j    1b
"""
#: Every hart spins: hart 0 starts the others.
HARTS = """
_start:
    mv   s0, a0
    bnez s0, 2f
    li   a0, 1
    la   a1, 2f
    li   a2, 0
    li   a7, 0x48534d
    li   a6, 0
    ecall
2:  j 2b
"""


def host(technique: str = "hardware-assist", scheduler: SchedulerId = "credit", harts: int = 1) -> Host:
    trace = Trace(capacity=1 << 16)
    return Host(
        1, harts, 64, Configuration.parse(technique), trace, lambda _guest, _data: None, scheduler=scheduler
    )


def add(machine: Host, guest: int, source: str, share: Share = DEFAULT_SHARE, vcpus: int = 1) -> None:
    machine.add_guest(guest, inspect(program(source), "test"), vcpus, 4, "", share)


def vms(machine: Host) -> dict[int, VmGuest]:
    return {key: guest for key, guest in machine.guests.items() if isinstance(guest, VmGuest)}


def ran(machine: Host) -> dict[int, int]:
    """ns that each guest had harts."""
    return {key: sum(vcpu.ran for vcpu in guest.vcpus) for key, guest in vms(machine).items()}


def until(machine: Host, clock: int) -> None:
    while machine.time < clock and machine.run(1 << 40, until=clock):
        pass


@pytest.mark.parametrize("technique", EVERY_TECHNIQUE)
@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
def test_time_is_shared_by_weight(technique: str, scheduler: SchedulerId) -> None:
    machine = host(technique, scheduler)
    for guest, weight in ((1, 128), (2, 256), (3, 512)):
        add(machine, guest, SPIN, Share(weight))
    until(machine, 50 * MS)  # credits begin at nothing
    before = ran(machine)
    until(machine, 400 * MS)
    had = {guest: ns - before[guest] for guest, ns in ran(machine).items()}
    for guest, part in ((1, 1), (2, 2), (3, 4)):
        assert had[guest] / sum(had.values()) == pytest.approx(part / 7, rel=0.03)
    assert sum(ran(machine).values()) == machine.busy_ns  # nobody is idle while somebody wants to run
    assert machine.busy_ns >= 399 * MS


@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
def test_what_a_guest_cannot_use_is_for_the_others(scheduler: SchedulerId) -> None:
    """One vCPU cannot have more than one of two harts, whatever its weight."""
    machine = host(scheduler=scheduler, harts=2)
    for guest, weight in ((1, 4096), (2, 256), (3, 256)):
        add(machine, guest, SPIN, Share(weight))
    until(machine, 100 * MS)
    had = ran(machine)
    assert had[1] / sum(had.values()) == pytest.approx(0.5, rel=0.03)
    assert had[2] / had[3] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
def test_a_guest_with_more_vcpus_has_no_larger_share(scheduler: SchedulerId) -> None:
    machine = host(scheduler=scheduler)
    add(machine, 1, SPIN)
    add(machine, 2, HARTS, vcpus=2)
    until(machine, 200 * MS)
    had = ran(machine)
    assert all(vcpu.ran for vcpu in vms(machine)[2].vcpus)
    assert had[1] / had[2] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("technique", EVERY_TECHNIQUE)
@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
def test_a_cap_holds_in_every_period(technique: str, scheduler: SchedulerId) -> None:
    machine = host(technique, scheduler)
    add(machine, 1, SPIN, Share(cap=20))
    before = 0
    for period in range(1, 11):
        until(machine, period * CAP_PERIOD_NS)
        assert ran(machine)[1] - before <= CAP_PERIOD_NS * 22 // 100
        before = ran(machine)[1]
    assert before == pytest.approx(CAP_PERIOD_NS * 10 * 20 // 100, rel=0.03)
    records = machine.trace.records(1, limit=1 << 16)
    capped = records[records["action"] == Action.PREEMPT]
    assert len(capped) == 10
    assert set(capped["a"]) == {CAP_REACHED}


@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
def test_a_cap_is_of_all_vcpus_of_a_guest_and_leaves_the_rest_to_others(scheduler: SchedulerId) -> None:
    machine = host(scheduler=scheduler, harts=2)
    add(machine, 1, HARTS, Share(4096, cap=50), vcpus=2)
    add(machine, 2, SPIN)
    until(machine, 200 * MS)
    had = ran(machine)
    assert had[1] == pytest.approx(100 * MS, rel=0.03)
    assert had[2] >= 145 * MS  # one hart, but for the quarter of the time in which both of the first guest's vCPUs run
    machine.set_share(1, Share())
    until(machine, 300 * MS)
    assert ran(machine)[1] - had[1] > 80 * MS


@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
def test_who_wakes_up_is_answered_at_once(scheduler: SchedulerId) -> None:
    """It needs little, so it need not wait for the slice of the one that computes."""
    machine = host(scheduler=scheduler)
    add(machine, 1, SPIN)
    add(machine, 2, NAPS)
    until(machine, 100 * MS)
    naps = int((machine.trace.records(2, limit=1 << 16)["action"] == Action.WFI).sum())
    waited = vms(machine)[2].vcpus[0].stolen
    assert naps > 250
    assert waited / naps < 120_000
    assert ran(machine)[1] > 90 * MS


def test_the_least_weight_gets_the_least_part() -> None:
    machine = host(scheduler="credit")
    add(machine, 1, SPIN, Share(65535))
    add(machine, 2, SPIN, Share(1))
    until(machine, 50 * MS)
    assert ran(machine)[2] < 5 * MS


@pytest.mark.parametrize("technique", EVERY_TECHNIQUE)
@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
@pytest.mark.parametrize("harts", [1, 2])
def test_neither_pieces_nor_checkpoints_nor_tiers_can_be_seen(technique: str, scheduler: SchedulerId, harts: int) -> None:
    def build(tier: Tier = Tier.JIT) -> Host:
        trace = Trace(capacity=1 << 14)
        machine = Host(
            1, harts, 64, Configuration.parse(technique), trace, lambda _guest, _data: None, tier=tier,
            scheduler=scheduler,
        )  # fmt: skip
        add(machine, 1, NAPS, Share(64))
        add(machine, 2, SPIN, Share(256, cap=60))
        add(machine, 3, HARTS, Share(512), vcpus=2)
        return machine

    whole = build()
    assert whole.run(1_500_000) == 1_500_000
    pieces, chance = build(), random.Random(harts)
    while (left := 1_500_000 - pieces.position) > 0:
        pieces.run(min(left, chance.choice((1, 7, 1000, 40_000))), chance.choice((None, 1, 3)))
        if chance.random() < 0.02:
            state = pieces.save()
            written = pieces.trace
            pieces = build()
            pieces.trace = written
            pieces.load(state)
    assert pieces.trace.hash() == whole.trace.hash()
    assert _times(pieces) == _times(whole)
    interpreted = build(Tier.INTERPRETER)
    interpreted.run(1_500_000)
    assert interpreted.trace.hash() == whole.trace.hash()
    assert interpreted.scheduler.save() == whole.scheduler.save()


def _times(machine: Host) -> Any:
    return machine.scheduler.save(), [[(vcpu.ran, vcpu.stolen) for vcpu in guest.vcpus] for guest in vms(machine).values()]


@pytest.mark.parametrize("scheduler", EVERY_SCHEDULER)
def test_another_scheduler_takes_over_where_the_last_one_was(scheduler: SchedulerId) -> None:
    machine = host(scheduler=scheduler)
    add(machine, 1, SPIN, Share(100))
    add(machine, 2, SPIN, Share(300))
    until(machine, 20 * MS)
    machine.set_scheduler("credit" if scheduler == "fair-share" else "fair-share")
    until(machine, 60 * MS)
    before = ran(machine)
    until(machine, 260 * MS)
    assert (ran(machine)[2] - before[2]) / (ran(machine)[1] - before[1]) == pytest.approx(3, rel=0.05)


def test_a_guest_comes_and_goes() -> None:
    machine = host()
    for guest in (1, 2, 3):
        add(machine, guest, SPIN)
    until(machine, 10 * MS)
    machine.power(1, "off")
    machine.remove_guest(2)
    before = ran(machine)
    until(machine, 20 * MS)
    assert ran(machine)[3] - before[3] >= 9 * MS
    assert ran(machine)[1] == before[1]
    machine.power(1, "on")
    before = ran(machine)
    until(machine, 40 * MS)
    assert ran(machine)[1] - before[1] == pytest.approx(10 * MS, rel=0.15)


def test_stacks_come_with_the_scheduler_that_they_have() -> None:
    assert {name: stack.scheduler for name, stack in STACKS.items() if stack.hypervisor_type} == {
        "xen": "credit", "cloud": "credit", "kvm": "fair-share", "vmware": "fair-share", "parallels": "fair-share",
    }  # fmt: skip


# -- stolen time -----------------------------------------------------------------------------------
#: Registers a record for its stolen time and spins until `wanted` ns are in it; then prints nothing and ends.
TOLD = """
    .equ STA, 0x535441
_start:
    li   a7, 0x10               # base: probe extension
    li   a6, 3
    li   a0, STA
    ecall
    beqz a1, none
    li   a7, STA
    li   a6, 0
    la   a0, record
    li   a1, 0
    li   a2, 0
    ecall
    bnez a0, refused
    la   s0, record
    li   s1, 20000000
1:  lw   t0, 0(s0)
    ld   t1, 8(s0)
    lw   t2, 0(s0)
    bne  t0, t2, 1b
    andi t0, t0, 1
    bnez t0, refused
    bltu t1, s1, 1b
    li   a0, 0x5555
    j    off
none:
    li   a0, 0x13333
    j    off
refused:
    li   a0, 0x23333
off:
    li   t0, 0x100000
    sw   a0, 0(t0)
    j    .
    .balign 64
record:
    .zero 64
"""


@pytest.mark.parametrize("technique", EVERY_TECHNIQUE)
def test_a_guest_reads_how_much_was_stolen_from_it(technique: str) -> None:
    machine = host(technique)
    add(machine, 1, TOLD)
    add(machine, 2, SPIN)
    while not machine.guests[1].ended and machine.time < 100 * MS:
        machine.run(100_000)
    assert machine.guests[1].exit_status == 0
    told, other = (vms(machine)[guest].vcpus[0] for guest in (1, 2))
    assert 20 * MS <= told.stolen < 23 * MS
    assert told.stolen == pytest.approx(other.ran, rel=0.15)


def test_nothing_is_stolen_from_who_is_alone() -> None:
    machine = host()
    add(machine, 1, TOLD)
    until(machine, 20 * MS)
    assert not machine.guests[1].ended
    assert vms(machine)[1].vcpus[0].stolen == 0


def test_on_bare_metal_nobody_steals() -> None:
    machine = Machine(program(TOLD), "bare-metal")
    machine.run(10_000)
    assert machine.guest.exit_status == 1


def test_stolen_time_goes_with_the_guest() -> None:
    first, second = host(), host()
    add(first, 1, TOLD)
    add(first, 2, SPIN)
    until(first, 10 * MS)
    before = vms(first)[1].vcpus[0].stolen
    second.import_guest(1, first.guests[1].image, first.export_guest(1))
    assert vms(second)[1].vcpus[0].stolen >= before > 0
    add(second, 2, SPIN)
    until(second, 40 * MS)
    assert second.guests[1].exit_status == 0


def test_positions_of_records_still_grow() -> None:
    machine = host(harts=2)
    for guest in (1, 2, 3):
        add(machine, guest, NAPS)
    machine.run(100_000)
    for guest in (1, 2, 3):
        assert np.all(np.diff(machine.trace.records(guest, limit=1 << 16)["position"].astype(np.int64)) > 0)
