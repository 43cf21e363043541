"""VM exits that native code takes are those that Python takes: the same records, registers, clocks, memory, and what
the hypervisor knows of its tables.

Two hosts with the same guest go side by side, one on the reference tier, where Python handles every exit. In the
other one native code does, but now and then it is made to refuse, and both stop at the same random places.
"""

from __future__ import annotations

import contextlib
import copy
import random
import struct
from typing import Any

import numpy as np
import pytest

from engine.commands import StackId
from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.second_stage import SecondStage
from engine.hypervisor.stacks import BARE_METAL, STACKS, Configuration
from engine.hypervisor.technique import Outcome
from engine.hypervisor.vm import VCpu
from engine.hypervisor.vm_guest import VmGuest
from engine.isa.assembler import assemble
from engine.isa.csrs import CSR_NUMBERS
from engine.machine.loader import LoadedImage, inspect
from engine.machine.tiers import Tier
from engine.trace.record import Action
from tests.conformance.programs import SCENARIOS, build, case
from tests.engine.hypervisor.test_attack import ATTACKS
from tests.support.exits import PAGING, refuse, vm_host

VM, ASSISTED = Configuration.parse("trap-and-emulate"), Configuration.parse("hardware-assist")
WORK = "run=work compute 1;work syscall 5;work pagefault 5;work switch 5;work io 3;poweroff 3"
#: As many steps at once as let native code take several exits in a row.
STRETCH = 4_000


def state(host: Host) -> dict[str, Any]:
    """All that must be the same, but for memory."""
    guests = [guest for guest in host.guests.values() if isinstance(guest, VmGuest)]
    for guest in guests:
        for vcpu in guest.vcpus:
            guest.technique.catch_up(vcpu)
    vcpus = [
        (vcpu.instructions, vcpu.reported, vcpu.streak, guest.registers(vcpu.number), vcpu.virtual.save())
        for guest in guests
        for vcpu in guest.vcpus
    ]
    return {
        "trace": host.trace.hash(),
        "exits": [(guest.exits, host.trace.total(guest.id), guest.ended, guest.exit_status) for guest in guests],
        "harts": [(hart.save(), hart.leave) for hart in host.harts],
        "vcpus": vcpus,
        "idle until": host.busy_from,
        "frames": host.frames.save(),
        "tables": [guest.technique.save() for guest in guests],
        "map": [(list(guest.vm.ram.map.items()), guest.vm.ram.shared) for guest in guests],
    }


def exits_of_python(monkeypatch: pytest.MonkeyPatch) -> list[Action]:
    """A list that gets the action of each exit that Python handles."""
    by_python: list[Action] = []
    exit_ = VmGuest.exit

    def counting(self: VmGuest, vcpu: VCpu, outcome: Outcome, *rest: Any, **more: Any) -> None:
        by_python.append(outcome.action)
        exit_(self, vcpu, outcome, *rest, **more)

    monkeypatch.setattr(VmGuest, "exit", counting)
    return by_python


def side_by_side(
    image: LoadedImage,
    arguments: str,
    tier: Tier,
    harts: int,
    steps: int,
    stack: Configuration = VM,
    clone_at: int | None = None,
) -> Host:
    """Run both to the end, or for so many steps; returns the one with native exits. clone_at: when there is a second
    guest, a clone of the first."""
    rng = random.Random(f"{arguments} {harts}")
    reference, native = (
        vm_host(image, stack, each, arguments=arguments, harts=harts) for each in (Tier.REFERENCE, tier)
    )
    done = 0
    while done < steps:
        length = rng.choice((1, 7, 100, STRETCH, STRETCH))
        traps = rng.choice((None, None, 1, 3, 40))
        refuse(native, rng.random() < 0.2)
        ran = reference.run(length, stop_after_traps=traps)
        assert native.run(length, stop_after_traps=traps) == ran
        assert state(native) == state(reference), f"after {done + ran} steps"
        if clone_at is not None and done >= clone_at:
            clone_at = None
            for host in (reference, native):
                host.clone_guest(1, 2)
        if not ran:
            break
        done += ran
    assert native.memory.save() == reference.memory.save()
    return native


@pytest.mark.parametrize(("harts", "tier"), [(1, Tier.INTERPRETER), (2, Tier.JIT)])
def test_a_kernel_exits_alike_in_native_code_and_in_python(harts: int, tier: Tier) -> None:
    host = side_by_side(inspect(load_image("ringos"), "ringos"), WORK, tier, harts, 150_000)
    assert host.trace.total(1) > 1_000


@pytest.mark.parametrize("stack", [name for name in STACKS if name not in (BARE_METAL, "kvm")])
def test_on_every_stack_exits_are_alike(stack: StackId) -> None:
    for technique in {"trap-and-emulate", "hardware-assist"} & set(STACKS[stack].techniques):
        configuration = Configuration.parse(f"{stack}/{technique}")
        side_by_side(inspect(load_image("ringos"), "ringos"), WORK, Tier.INTERPRETER, 1, 120_000, configuration)
        if technique == "trap-and-emulate":
            side_by_side(inspect(assemble(TIMERS, "timers").elf(), "t"), "", Tier.INTERPRETER, 1, 60_000, configuration)


@pytest.mark.parametrize("name", SCENARIOS)
def test_random_privileged_programs_exit_alike(name: str) -> None:
    program = assemble(case(name, 1).source, name)
    side_by_side(inspect(program.elf(), name), name, Tier.INTERPRETER, 1, 60_000)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_on_page_tables_exit_alike(name: str, seed: int) -> None:
    program = assemble(build(name, ATTACKS[name], seed).source, name)
    side_by_side(inspect(program.elf(), name), f"{name} {seed}", Tier.INTERPRETER, 1, 60_000)


@pytest.mark.parametrize("stack", [VM, ASSISTED])
def test_a_clone_and_its_original_exit_alike(stack: Configuration) -> None:
    image = inspect(load_image("ringos"), "ringos")
    host = side_by_side(image, WORK, Tier.INTERPRETER, 1, 250_000, stack, clone_at=40_000)
    records = [host.trace.records(guest, limit=1 << 14) for guest in (1, 2)]
    assert all(len(found) > 300 for found in records)
    assert any(Action.COPY_ON_WRITE in found["action"] for found in records)


#: Every entry of a table as a store of its own, of every size, and every space anew: more of them than there can be.
TABLES = PAGING.format(body="""
    li s5, 0
fill:                           # one leaf after the other, each used at once
    slli t0, s5, 3
    add t0, t0, s3
    andi t1, s5, 3
    beqz t1, 1f
    li t2, 1
    beq t1, t2, 2f
    li t2, 2
    beq t1, t2, 3f
    amoswap.d x0, s4, (t0)
    j 4f
1:  sd s4, 0(t0)
    j 4f
2:  sw s4, 0(t0)
    sw x0, 4(t0)
    j 4f
3:  sh s4, 0(t0)
    srli t3, s4, 16
    sh t3, 2(t0)
    sb x0, 4(t0)
4:  slli t1, s5, 12
    sd s5, 0(t1)
    ld t2, 8(t1)
    addi s5, s5, 1
    li t0, 160
    bne s5, t0, fill
    li s5, 0
spaces:                         # every address space, twice over
    slli t0, s5, 44
    or t0, t0, s2
    csrw satp, t0
    ld t1, 8(x0)
    li t2, 4096
    sd s5, 8(t2)
    sd s4, 80(s3)
    addi s5, s5, 1
    li t0, 150
    bne s5, t0, spaces
    li s5, 0
again:                          # stores without a walk between: a table page becomes a plain one, and one again
    sd s4, 800(s3)
    addi s5, s5, 1
    li t0, 40
    bne s5, t0, again
    li t1, 102400
    ld t2, 0(t1)
    li a7, 0x53525354
    li a6, 0
    li a0, 0
    li a1, 0
    ecall
""")


def test_more_spaces_than_there_can_be_and_stores_of_every_size() -> None:
    image = inspect(assemble(TABLES, "tables").elf(), "tables")
    host = side_by_side(image, "tables", Tier.INTERPRETER, 1, 60_000)
    assert (host.guests[1].ended, host.guests[1].exit_status) == (True, 0)


#: Timers of a kernel with Sstc: soon, in the past, never, and written by other ways than csrw.
TIMERS = """
_start:
    la t0, tick
    csrw stvec, t0
    li t0, 32
    csrw sie, t0
    csrsi sstatus, 2
    li s0, 0                    # ticks
    li s1, 0
    li s2, 7
1:  addi s1, s1, 1
    li t1, 1103515245
    mul s2, s2, t1
    addi s2, s2, 1234
    srli t1, s2, 16
    andi t1, t1, 255
    csrr t0, time
    add t2, t0, t1
    andi t3, s1, 15
    li t4, 7
    beq t3, t4, 2f
    li t4, 9
    beq t3, t4, 3f
    li t4, 12
    beq t3, t4, 4f
    csrw stimecmp, t2
    j 5f
2:  li t2, -1
    csrw stimecmp, t2
    j 5f
3:  addi t2, t0, -5
    csrw stimecmp, t2
    j 5f
4:  csrs stimecmp, t1
5:  andi t3, s2, 63
6:  addi t3, t3, -1
    bgtz t3, 6b
    csrr t4, stimecmp
    csrr t4, sip
    li t4, 400
    bne s1, t4, 1b
    li a7, 0x53525354
    li a6, 0
    li a0, 0
    li a1, 0
    ecall
    .balign 4
tick:
    addi s0, s0, 1
    csrr t5, time
    addi t5, t5, 300
    csrw stimecmp, t5
    sret
"""


@pytest.mark.parametrize("clone_at", [None, 3_000])
def test_timers_are_set_alike(clone_at: int | None) -> None:
    image = inspect(assemble(TIMERS, "timers").elf(), "timers")
    host = side_by_side(image, f"timers {clone_at}", Tier.INTERPRETER, 1, 200_000, clone_at=clone_at)
    for guest in host.guests.values():
        assert guest.exit_status == 0
    actions = host.trace.records(1, limit=1 << 14)["action"].tolist()
    assert actions.count(Action.INJECT_INTERRUPT) > 50


def test_timer_writes_are_native(monkeypatch: pytest.MonkeyPatch) -> None:
    by_python = exits_of_python(monkeypatch)
    host = vm_host(inspect(assemble(TIMERS, "timers").elf(), "timers"), VM, Tier.INTERPRETER)
    host.run(200_000)
    records = host.trace.records(1, limit=1 << 14)
    written = records[(records["action"] == Action.CSR_WRITE) & (records["a"] == CSR_NUMBERS["stimecmp"])]
    assert len(written) > 400
    assert by_python.count(Action.CSR_WRITE) < 30  # those by csrs


def test_under_hardware_assist_fills_are_native(monkeypatch: pytest.MonkeyPatch) -> None:
    image = inspect(load_image("ringos"), "ringos")
    side_by_side(image, WORK, Tier.JIT, 2, 150_000, ASSISTED)
    by_python: list[int] = []
    fill = SecondStage.map

    def counting(self: SecondStage, page: int, frame: int, writable: bool) -> None:
        by_python.append(page)
        fill(self, page, frame, writable)

    monkeypatch.setattr(SecondStage, "map", counting)
    host = vm_host(image, ASSISTED, Tier.INTERPRETER, arguments=WORK)
    host.run(150_000)
    fills = int((host.trace.records(1, limit=1 << 14)["action"] == Action.SECOND_STAGE_FILL).sum())
    assert fills > 30
    assert not by_python


def test_native_code_takes_the_exits_that_matter_most(monkeypatch: pytest.MonkeyPatch) -> None:
    by_python = exits_of_python(monkeypatch)
    image = inspect(load_image("ringos"), "ringos")
    host = vm_host(image, VM, Tier.INTERPRETER, arguments="run=work pagefault 300;work syscall 300")
    host.run(600_000)
    actions = host.trace.records(1, limit=1 << 14)["action"].tolist()
    for action in (
        Action.CSR_READ, Action.CSR_WRITE, Action.SRET, Action.SFENCE, Action.INJECT_EXCEPTION, Action.SHADOW_FILL,
        Action.PAGE_TABLE_WRITE,
    ):  # fmt: skip
        assert actions.count(action) > 300
        # What is left: shadow spaces and tables that are new, and the timer.
        assert by_python.count(action) < (50 if action == Action.SHADOW_FILL else 10), action.name


@pytest.mark.parametrize("stack", [VM, ASSISTED])
def test_a_state_that_leads_outside_of_ram_harms_nobody(stack: Configuration) -> None:
    """As a snapshot from anywhere may have it: native code must stay in the host's RAM whatever tables and maps say."""
    rng = random.Random(str(stack))
    image = inspect(load_image("ringos"), "ringos")
    host = vm_host(image, stack, Tier.INTERPRETER, arguments=WORK)
    host.run(40_000)
    saved = host.save()
    ran = 0
    for _ in range(25):
        bad = copy.deepcopy(saved)
        guest = bad["guests"][1]
        for _ in range(rng.randrange(1, 12)):
            rng.choice(guest["map"])[1] = wild_frame(rng)
        technique = guest["technique"]
        if "roots" in technique and rng.random() < 0.3:
            rng.choice(technique["roots"])[1] = wild_frame(rng)
        for page in rng.sample(sorted(bad["memory"]), 6):
            words = np.frombuffer(bad["memory"][page], np.uint64).copy()
            entries = np.flatnonzero(words & np.uint64(1))
            for index in entries[: rng.randrange(40)]:
                words[index] = wild_frame(rng) << 10 & (1 << 64) - 1 | rng.choice((1, 0xC7, 0xCF, 0xDF))
            bad["memory"][page] = words.tobytes()
        again = vm_host(image, stack, Tier.INTERPRETER, arguments=WORK)
        # Python says what is wrong, or the guest sees nonsense.
        with contextlib.suppress(ValueError, IndexError, KeyError, OverflowError, TypeError, struct.error):
            again.load(bad)
            ran += again.run(20_000)
    assert ran > 20_000


def wild_frame(rng: random.Random) -> int:
    return rng.choice((rng.getrandbits(14), rng.getrandbits(20), rng.getrandbits(52), (1 << 63) - 2, 1 << 44))
