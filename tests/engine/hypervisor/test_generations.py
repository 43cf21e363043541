"""Generations of hardware assist: what each switch takes away is done by the VMM, and no guest can tell."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import GENERATIONS, SWITCHES, Configuration
from engine.isa.csrs import CSR_NUMBERS
from engine.machine.loader import inspect
from engine.machine.tiers import Tier
from engine.trace.record import INTERRUPT_BIT, PATHS, Action, Cause, Disposition, Interrupt, Kind, Level
from engine.trace.rings import Trace
from tests.support.machine import ASSISTED, VM, WORK, Machine, carry_around, program

OFF = "\noff: li t0, 0x100000\n li t1, 0x5555\n sw t1, 0(t0)\n j .\n"
SHADOW, UNTAGGED, INDIRECT = "+shadow-paging", "+no-vmid", "+no-direct-interrupts"
EVERY = ["", SHADOW, UNTAGGED, INDIRECT, SHADOW + UNTAGGED + INDIRECT]


def worked(switches: str) -> Machine:
    machine = Machine(load_image("ringos"), ASSISTED + switches, arguments=WORK)
    machine.run()
    assert machine.guest.exit_status == 3
    return machine


@pytest.fixture(scope="module")
def machines() -> dict[str, Machine]:
    return {switches: worked(switches) for switches in EVERY}


def exits(machine: Machine) -> np.ndarray:
    records = machine.trace.records(1, limit=1 << 16)
    found: np.ndarray = records[records["disposition"] != Disposition.HARDWARE]
    return found


def test_the_generations_are_made_of_switches_and_end_without_any() -> None:
    assert {name for generation in GENERATIONS for name in generation} <= set(SWITCHES)
    assert GENERATIONS[-1] == ()
    for earlier, later in pairwise(GENERATIONS):
        assert set(later) < set(earlier)


def test_the_guest_cannot_tell(machines: dict[str, Machine]) -> None:
    assert len({machine.output for machine in machines.values()}) == 1


def test_each_generation_needs_fewer_exits() -> None:
    counts = [worked("".join(f"+{name}" for name in generation)).guest.exits for generation in GENERATIONS]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == len(counts)


@pytest.mark.parametrize("switches", EVERY)
def test_the_trace_accounts_for_every_instruction_and_every_switch(machines: dict[str, Machine], switches: str) -> None:
    machine = machines[switches]
    records = machine.trace.records(1, limit=1 << 16)
    assert int(records["executed"].sum()) == machine.guest.instructions
    assert len(exits(machine)) == machine.guest.exits
    assert np.all(np.diff(records["position"].astype(np.int64)) > 0)
    assert machine.host.time == machine.host.position + int(records["cost"].sum())


def test_shadow_paging_exits_for_tables_and_page_faults(machines: dict[str, Machine]) -> None:
    plain, shadowed = exits(machines[""]), exits(machines[SHADOW])
    for action in (Action.SHADOW_FILL, Action.PAGE_TABLE_WRITE, Action.SFENCE, Action.ADDRESS_SPACE):
        assert (shadowed["action"] == action).sum() > 20
        assert not (plain["action"] == action).any()
    assert not (shadowed["action"] == Action.SECOND_STAGE_FILL).any()
    spaces = shadowed[shadowed["action"] == Action.ADDRESS_SPACE]
    assert set(spaces["cause"]) == {Cause.VIRTUAL_INSTRUCTION}
    assert all(int(root) >> 60 in (0, 8) for root in spaces["a"])
    faults = shadowed[np.isin(shadowed["cause"], [Cause.INSTRUCTION_PAGE_FAULT, Cause.LOAD_PAGE_FAULT])]
    injected = faults[faults["disposition"] == Disposition.INJECTED]
    assert 0 < len(injected) < len(faults)  # some were the guest's own
    for record in injected:
        assert PATHS[record["path"]][1:] == (Level.HYPERVISOR, Level.KERNEL)
    syscalls = machines[SHADOW].trace.records(1, limit=1 << 16)
    assert set(syscalls[syscalls["kind"] == Kind.SYSCALL]["disposition"]) == {Disposition.HARDWARE}


def test_no_vmid_changes_nothing_but_what_the_tlb_holds(machines: dict[str, Machine]) -> None:
    tagged, untagged = machines[""], machines[UNTAGGED]
    assert tagged.trace.hash() == untagged.trace.hash()
    assert untagged.guest.walked(0)[0] > 1.5 * tagged.guest.walked(0)[0]
    assert untagged.guest.walked(0)[1] > 1.5 * tagged.guest.walked(0)[1]


def test_a_two_stage_walk_is_longer_than_one_through_shadow_tables(machines: dict[str, Machine]) -> None:
    two, shadow = machines[""].guest.walked(0), machines[SHADOW].guest.walked(0)
    assert shadow[1] / shadow[0] <= 3
    assert 9 < two[1] / two[0] <= 15


TIMER = """
_start: la t0, handler
        csrw stvec, t0
        li s0, 5
        csrr t0, time
        addi t0, t0, 200
        csrw stimecmp, t0
        li t0, 0x20
        csrw sie, t0
        csrsi sstatus, 2
1:      bnez s0, 1b
        csrw sie, zero
        csrr t0, time
        addi t0, t0, 20
        csrw stimecmp, t0
        li t0, 2000
2:      addi t0, t0, -1
        bnez t0, 2b
        csrr s1, sip
        andi s1, s1, 0x20
        beqz s1, .
        j off
        .balign 4
handler:
        addi s0, s0, -1
        csrr t0, time
        addi t0, t0, 200
        csrw stimecmp, t0
        sret
""" + OFF  # fmt: skip


@pytest.mark.parametrize("switches", EVERY)
def test_a_timer_that_is_not_the_harts_exits_when_it_is_set_and_when_it_is_due(switches: str) -> None:
    machine = Machine(program(TIMER), ASSISTED + switches)
    machine.run(200_000)
    assert machine.guest.exit_status == 0
    found = exits(machine)
    cause = INTERRUPT_BIT | Interrupt.SUPERVISOR_TIMER
    due = found[found["cause"] == cause]
    set_ = found[(found["action"] == Action.CSR_WRITE) & (found["a"] == CSR_NUMBERS["stimecmp"])]
    if INDIRECT not in switches:
        assert len(due) == len(set_) == 0
        return
    assert len(set_) == 7
    assert list(due["action"]) == [Action.INJECT_INTERRUPT] * 5 + [Action.TIMER]
    handled = machine.trace.records(1, limit=1 << 16)
    handled = handled[handled["action"] == Action.DELIVER]
    assert list(due["b"][:5]) == list(handled["a"])


def test_what_is_typed_comes_by_way_of_the_vmm() -> None:
    for switches, expected in (("", False), (INDIRECT, True)):
        machine = Machine(load_image("ringos"), ASSISTED + switches, arguments="run=spin")
        machine.run(300_000)
        before = machine.trace.total(1)
        machine.guest.receive(b"x")
        machine.host.run(200)
        records = machine.trace.records(1, limit=1 << 16)
        records = records[records["sequence"] > before]
        external = records[records["cause"] == INTERRUPT_BIT | Interrupt.SUPERVISOR_EXTERNAL]
        assert bool(len(external)) == expected, switches
        if expected:
            assert external[0]["disposition"] == Disposition.INJECTED


@pytest.mark.parametrize("switches", EVERY[1:])
def test_every_tier_and_every_slice_gives_the_same_trace(switches: str) -> None:
    hashes = set()
    for tier, steps in ((Tier.REFERENCE, 1 << 20), (Tier.INTERPRETER, 777), (Tier.JIT, 50_000)):
        trace = Trace()
        host = Host(1, 1, 64, Configuration.parse(ASSISTED + switches), trace, lambda _guest, _data: None, tier=tier)
        host.add_guest(1, inspect(load_image("ringos"), "ringos"), 1, 16, WORK)
        while host.run(steps):
            pass
        hashes.add((trace.hash(), host.position, host.time))
    assert len(hashes) == 1


@pytest.mark.parametrize("switches", EVERY[1:])
@pytest.mark.parametrize(("harts", "seed"), [(1, 0), (2, 1)])
def test_a_host_that_is_put_back_goes_on_the_same(switches: str, harts: int, seed: int) -> None:
    """Saved at any step, also with input that nobody has looked at yet, and put back into another host."""
    chance = random.Random(seed)
    image = inspect(load_image("ringos") if harts == 1 else program(SIGNALS), "guest")

    def fresh() -> tuple[Host, Trace]:
        trace = Trace()
        host = Host(1, harts, 64, Configuration.parse(ASSISTED + switches), trace, lambda _guest, _data: None)
        host.add_guest(1, image, harts, 16, "")
        return host, trace

    one, trace = fresh()
    for _ in range(8):
        one.run(chance.randrange(20_000))
        one.guest(1).receive(b"ps\r")
        saved, records = one.save(), trace.save_guest(1)
        two, again = fresh()
        two.load(saved)
        again.load_guest(1, records)
        for part in (chance.randrange(1, 500), 20_000):
            one.run(part)
            two.run(part)
        assert one.position == two.position
        assert trace.hash() == again.hash()


SIGNALS = """
_start: li t0, 1
    sub s3, t0, a0
    la t0, handler
    csrw stvec, t0
    li t0, 2
    csrw sie, t0
    csrsi sstatus, 2
    mv a0, s3
    la a1, other
    li a7, 0x48534d
    li a6, 0
    ecall
    li s0, 5
1:  call signal
    la t0, seen
2:  ld t1, 0(t0)
    beqz t1, 2b
    sd zero, 0(t0)
    addi s0, s0, -1
    bnez s0, 1b
    j off
signal: li a0, 1
    sll a0, a0, s3
    li a1, 0
    li a7, 0x735049
    li a6, 0
    ecall
    ret
other: la t0, other_handler
    csrw stvec, t0
    li t0, 2
    csrw sie, t0
    csrsi sstatus, 2
3:  j 3b
    .balign 4
handler: csrci sip, 2
    sret
    .balign 4
other_handler: csrci sip, 2
    la t0, seen
    li t1, 1
    sd t1, 0(t0)
    sret
    .balign 8
seen: .dword 0
""" + OFF  # fmt: skip


@pytest.mark.parametrize("switches", EVERY)
def test_two_vcpus_that_signal_each_other(switches: str) -> None:
    """Software interrupts between the vCPUs of one guest, on one hart and on two."""
    for harts in (1, 2):
        machine = Machine(program(SIGNALS), ASSISTED + switches, harts=harts, vcpus=2)
        machine.run(3_000_000)
        assert machine.guest.exit_status == 0


@pytest.mark.parametrize("steps_between", [61, 5003])
def test_a_guest_that_moves_between_generations_ends_as_if_it_stayed(steps_between: int) -> None:
    stacks = [VM, *(ASSISTED + "".join(f"+{name}" for name in generation) for generation in GENERATIONS)]
    hosts, shown = carry_around(load_image("ringos"), stacks, WORK, steps_between)
    assert shown == worked("").output
    hosts[0].remove_guest(1)
    assert [host.frames.used for host in hosts] == [0] * len(hosts)
