"""Binary translation: that guests notice nothing, what its records say, and guests that make it hard."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from engine.guests import load_image
from engine.hypervisor.binary_translation import RETRANSLATE_AFTER, BinaryTranslation
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.hypervisor.translation.cache import BASE
from engine.hypervisor.translation.translator import MAX_INSTRUCTIONS, Translator, constant, jump_points
from engine.isa.assembler import assemble
from engine.isa.disassembler import disassemble
from engine.machine.loader import inspect
from engine.machine.reference import operation
from engine.machine.tiers import Tier
from engine.trace.record import Action, Cause, Kind, Level
from engine.trace.rings import Trace
from tests.support.machine import BARE, TRANSLATED, VM, WORK, Machine, program

RINGOS = load_image("ringos")
EXIT = """
.text
exit:   li   a7, 0x53525354     # a0: 0 when all went well
        li   a6, 0
        snez a1, a0
        li   a0, 0
        ecall
"""


def technique_of(machine: Machine) -> BinaryTranslation:
    technique = machine.guest.technique
    assert isinstance(technique, BinaryTranslation)
    return technique


def ended(source: str, steps: int = 400_000) -> Machine:
    """A program on a VM under binary translation and on bare metal: both have to say that all went well."""
    image = program(source + EXIT)
    for stack in (BARE, TRANSLATED):
        machine = Machine(image, stack)
        machine.run(steps)
        assert machine.guest.ended, f"{stack}: at {machine.guest.pc:#x}"
        assert machine.guest.exit_status == 0, (stack, machine.guest.failure)
    return machine


# -- guests notice nothing -----------------------------------------------------------------------------
def test_every_workload_prints_what_it_prints_elsewhere() -> None:
    machines = [Machine(RINGOS, stack, arguments=WORK) for stack in (TRANSLATED, VM, BARE)]
    for machine in machines:
        machine.run()
        assert machine.guest.exit_status == 3
    assert machines[0].output == machines[1].output == machines[2].output
    assert machines[0].guest.exits < machines[1].guest.exits


def test_kernel_heavy_work_exits_less_and_costs_less() -> None:
    work = "run=work syscall 300; work switch 50; poweroff 3"
    translated, trapped = (Machine(RINGOS, stack, arguments=work) for stack in (TRANSLATED, VM))
    for machine in (translated, trapped):
        machine.run()
        assert machine.guest.exit_status == 3
    assert 2 * translated.guest.exits < trapped.guest.exits
    assert 3 * translated.host.time < 2 * trapped.host.time


def test_the_guest_kernel_never_traps_by_a_privileged_instruction() -> None:
    machine = Machine(RINGOS, TRANSLATED, arguments=WORK)
    machine.run()
    records = machine.trace.records(1, limit=1 << 16)
    kernel = records[records["from_level"] == Level.KERNEL_DEPRIVILEGED]
    assert len(kernel)
    assert Cause.ILLEGAL_INSTRUCTION not in kernel["cause"].tolist()


def test_a_machine_where_instructions_do_not_trap_makes_no_difference() -> None:
    """Not one record is another: nothing rested on their traps."""
    machines = [Machine(RINGOS, stack, arguments=WORK) for stack in (TRANSLATED, f"{TRANSLATED}+silent-sensitive")]
    for machine in machines:
        machine.run()
        assert machine.guest.exit_status == 3
    assert machines[0].trace.hash() == machines[1].trace.hash()


@pytest.mark.parametrize("tier", [Tier.REFERENCE, Tier.INTERPRETER])
def test_all_tiers_do_the_same(tier: Tier) -> None:
    def run(tier: Tier) -> tuple[str, int]:
        trace = Trace()
        host = Host(1, 1, 64, Configuration.parse(TRANSLATED), trace, lambda _guest, _data: None, tier=tier)
        host.add_guest(1, inspect(RINGOS, "ringos"), 1, 16, "run=work syscall 5;work pagefault 2;poweroff")
        host.run(2_000_000)
        assert host.guests[1].ended
        return trace.hash(), host.time

    assert run(tier) == run(Tier.JIT)


def test_saved_and_loaded_anywhere_it_goes_on_the_same() -> None:
    """Also between the instructions of a translation, whose registers are not the guest's."""
    arguments, steps, chance = "run=work switch 20;work pagefault 3;poweroff", 200_000, random.Random(5)
    straight = Machine(RINGOS, TRANSLATED, arguments=arguments)
    straight.host.run(steps)
    machine = Machine(RINGOS, TRANSLATED, arguments=arguments)
    for stop in [*sorted(chance.sample(range(1, steps), 30)), steps]:
        machine.host.run(stop - machine.host.position)
        state, trace = machine.host.save(), machine.trace.save()
        machine = Machine(RINGOS, TRANSLATED, arguments=arguments)
        machine.host.load(state)
        machine.trace.load(trace)
    assert machine.trace.hash() == straight.trace.hash()
    assert machine.guest.registers(0) == straight.guest.registers(0)


def test_looking_changes_nothing_and_shows_the_guest() -> None:
    """Whatever is looked at after each step lies in the guest's kernel or program, never in the cache."""
    machines = [Machine(RINGOS, TRANSLATED, arguments="run=work syscall 2;poweroff") for _ in range(2)]
    for _ in range(9_000):
        machines[0].host.run(1)
        seen = machines[0].guest.registers(0)
        assert seen["pc"] < BASE
        assert all(value < BASE or value > (1 << 64) - 4096 for value in seen["x"])
    machines[1].host.run(9_000)
    assert machines[0].trace.hash() == machines[1].trace.hash()
    assert machines[0].guest.registers(0) == machines[1].guest.registers(0)


# -- what records say ----------------------------------------------------------------------------------
def test_records_say_what_was_done() -> None:
    machine = Machine(RINGOS, TRANSLATED, arguments=WORK)
    machine.run()
    records = machine.trace.records(1, limit=1 << 16)
    counts, actions = technique_of(machine).cache.counts, Counter(records["action"].tolist())
    for row in records[records["action"] == Action.TRANSLATE]:
        assert 1 <= row["b"] <= MAX_INSTRUCTIONS
        assert row["pc"] == row["a"] < BASE
    assert 0 < actions[Action.TRANSLATE] <= counts.blocks
    assert actions[Action.RETRANSLATE] == counts.retranslated > 0
    assert 0 < actions[Action.CHAIN] < counts.chained
    called = records[(records["cause"] == Cause.ECALL_U) & (records["from_level"] == Level.KERNEL_DEPRIVILEGED)]
    assert len(called) == counts.call_outs
    assert set(called["kind"].tolist()) <= {Kind.VM_EXIT, Kind.HYPERCALL, Kind.PAGE_FAULT, Kind.EXCEPTION}


# -- guests that make it hard --------------------------------------------------------------------------
SELF_MODIFYING = """
_start: la   s0, patch          # `patch` becomes addi a0, a0, 1 and addi a0, a0, 2 in turn, forty times
        li   s1, 40
        li   a0, 0
        li   s2, 0x00150513
        li   s3, 0x00250513
again:  sw   s2, 0(s0)
        fence.i
        j    1f
1:      call patch
        sw   s3, 0(s0)
        fence.i
        call patch
        addi s1, s1, -1
        bnez s1, again
        addi a0, a0, -120
        j    exit
patch:  nop
        ret
"""
ITSELF = """
_start: li   a0, 5              # the instruction behind a store is what was stored, within one block
        la   s0, here
        li   s1, 0x00050513     # addi a0, a0, 0 -> mv
        li   s2, 0xffb50513     # addi a0, a0, -5
        sw   s2, 0(s0)
        fence.i
here:   j    here
        j    exit
"""
OVERLAPPING = """
_start: la   s0, inside         # 0x00150513 at `outside` has 0x0015 at `inside`: c.addi a0... of another length
        li   s3, 30
        li   a0, 0
1:      jal  outside
        addi s4, s0, 2
        jalr s4
        addi s3, s3, -1
        bnez s3, 1b
        li   t0, 30 * (0x51 + 3)
        sub  a0, a0, t0
        j    exit
outside: addi a0, a0, 0x51
        ret
inside: .half 0x0513            # addi a0, a0, ... begins here; from the next halfword on: c.addi a0, 3 and ret
        .half 0x050d
        ret
"""
CACHE_IS_NOWHERE = f"""
# Loads, stores, atomics and jumps at addresses where the translations are: page faults and nothing else.
_start: la   t0, handler
        csrw stvec, t0
        la   t0, table
        li   t1, 0x200000cf
        sd   t1, 16(t0)
        srli t0, t0, 12
        li   t1, 8 << 60
        or   t0, t0, t1
        csrw satp, t0
        sfence.vma
        li   s2, 0
        li   s0, {BASE:#x}
        li   s3, 40
again:  ld   t0, 0(s0)
        sd   s0, 0(s0)
        lbu  t0, 64(s0)
        amoadd.d t0, s0, (s0)
        ld   t0, -8(x0)
        jalr s0
        li   t0, 26113
        add  s0, s0, t0
        andi s0, s0, -8
        addi s3, s3, -1
        bnez s3, again
        addi a0, s2, -240
        j    exit
.balign 4
handler:                        # counts, and goes on behind the instruction: a jump's is in ra
        addi s2, s2, 1
        csrr t1, scause
        csrr t2, sepc
        li   t3, 12
        bne  t1, t3, 1f
        mv   t2, ra
        addi t2, t2, -4
1:      addi t2, t2, 4
        csrw sepc, t2
        sret
.data
.balign 4096
table:  .zero 4096
"""
ITS_OWN_MEMORY_THERE = f"""
# The guest maps memory of its own at the very end of the address space, uses it, and runs code there.
_start: la   t0, root
        li   t1, 0x200000cf
        sd   t1, 16(t0)
        la   t1, middle
        srli t1, t1, 2
        ori  t1, t1, 1
        li   t3, 4088
        add  t2, t0, t3
        sd   t1, 0(t2)
        la   t2, middle
        add  t2, t2, t3
        la   t1, low
        srli t1, t1, 2
        ori  t1, t1, 1
        sd   t1, 0(t2)
        la   t1, page
        srli t1, t1, 2
        ori  t1, t1, 0xcf
        la   t2, low
        add  t2, t2, t3
        sd   t1, 0(t2)
        li   t2, {BASE >> 12 & 511} * 8
        la   t3, low
        add  t2, t2, t3
        sd   t1, 0(t2)
        srli t0, t0, 12
        li   t1, 8 << 60
        or   t0, t0, t1
        csrw satp, t0
        sfence.vma
        li   s0, -4096
        li   s1, {BASE:#x}
        li   t0, 1234567
        sd   t0, 16(s0)         # two names of one page
        ld   a0, 16(s1)
        sub  a0, a0, t0
        bnez a0, exit
        li   t1, 0x00008067     # ret
        li   t2, 0x00750513     # addi a0, a0, 7
        sw   t2, 0(s1)
        sw   t1, 4(s1)
        fence.i
        jalr s0
        jalr s1
        addi a0, a0, -14
        j    exit
.data
.balign 4096
root:   .zero 4096
middle: .zero 4096
low:    .zero 4096
page:   .zero 4096
"""
ACROSS_PAGES = """
_start: la   s0, edge           # an instruction whose halves lie in two pages, and a store to its second half
        li   s2, 3
1:      jalr s0
        addi s2, s2, -1
        bnez s2, 1b
        li   t0, 0x0025         # the immediate's upper bits lie in the upper half
        sh   t0, 2(s0)
        fence.i
        jalr s0
        addi a0, a0, -5
        j    exit
.balign 4096
        .zero 4094
edge:   addi a0, a0, 1
        ret
"""
REGISTERS_HOLD_THE_GUESTS = """
# Return addresses and auipc say where the guest is; swapping and reading CSRs with every alias of registers.
_start: auipc t0, 0
        la   t1, _start
        sub  a0, t0, t1
        bnez a0, exit
        jal  t0, 1f
2:      j    fail
1:      la   t1, 2b
        sub  a0, t0, t1
        bnez a0, exit
        la   t0, 3f
        jalr t0, 0(t0)
4:      j    fail
3:      la   t2, 4b
        sub  a0, t0, t2
        bnez a0, exit
        la   t1, 5f
        jalr t1, 1(t1)          # odd: the lowest bit is dropped
6:      j    fail
5:      la   t2, 6b
        sub  a0, t1, t2
        bnez a0, exit
        li   t0, 11
        csrw sscratch, t0
        li   t0, 22
        csrrw t0, sscratch, t0
        addi a0, t0, -11
        bnez a0, exit
        csrrw t1, sscratch, x0
        addi a0, t1, -22
        bnez a0, exit
        li   t0, 0x80200007
        csrw sepc, t0
        csrr t1, sepc
        sub  a0, t0, t1
        addi a0, a0, -1
        bnez a0, exit
        csrsi sstatus, 2
        csrrci t0, sstatus, 2
        andi a0, t0, 2
        addi a0, a0, -2
        bnez a0, exit
        li   t1, 0x122
        csrrs t2, sstatus, t1
        csrr t0, sstatus
        and  a0, t0, t1
        sub  a0, a0, t1
        bnez a0, exit
        csrrc t1, sstatus, t1
        csrr t0, sstatus
        sub  a0, t0, t2
        bnez a0, exit
        li   t0, 1 << 18
        csrs sstatus, t0
        csrr t1, sstatus
        and  a0, t0, t1
        sub  a0, a0, t0
        j    exit
fail:   li   a0, 1
"""
INTERRUPT_AT_ONCE = """
# A software interrupt that waits is taken before the instruction behind the one that lets it in.
_start: la   t0, handler
        csrw stvec, t0
        csrwi sie, 2
        li   s0, 0
        csrsi sip, 2
        csrsi sstatus, 2
        mv   a0, s0             # 1: the handler ran before this
        csrsi sip, 2
        csrr t0, sstatus
        ori  t0, t0, 2
        csrw sstatus, t0
        add  a0, a0, s0
        li   t1, 2
        csrsi sip, 2
        csrs sstatus, t1
        add  a0, a0, s0
        addi a0, a0, -6
        j    exit
.balign 4
handler:
        addi s0, s0, 1
        csrci sip, 2
        csrr t2, sepc
        csrr t3, sstatus
        andi t3, t3, -33        # come back with interrupts off
        csrw sstatus, t3
        sret
"""


@pytest.mark.parametrize(
    "source",
    [
        SELF_MODIFYING, ITSELF, OVERLAPPING, CACHE_IS_NOWHERE, ITS_OWN_MEMORY_THERE, ACROSS_PAGES,
        REGISTERS_HOLD_THE_GUESTS, INTERRUPT_AT_ONCE,
    ],
    ids=["self-modifying", "itself", "overlapping", "cache", "end-of-addresses", "across-pages", "registers",
         "interrupt"],
)  # fmt: skip
def test_a_hard_guest_ends_as_on_the_bare_machine(source: str) -> None:
    ended(source)


STORES = """
# The last entry of a page table in use is written a hundred times, each followed by a walk, then ordinary memory.
_start: la   t0, table
        li   t1, 0x200000cf
        sd   t1, 16(t0)
        srli t0, t0, 12
        li   t1, 8 << 60
        or   t0, t0, t1
        csrw satp, t0
        li   s0, 100
        la   s1, table + 2040
        li   s2, 0x80400000
1:      sd   x0, 0(s1)
        sfence.vma
        ld   t0, 0(s2)
        li   t1, 4096
        add  s2, s2, t1
        addi s0, s0, -1
        bnez s0, 1b
        li   a0, 0
        j    exit
.data
.balign 4096
table:  .zero 4096
"""


def test_a_store_that_faults_often_becomes_a_call_out() -> None:
    machine = ended(STORES)
    records = machine.trace.records(1, limit=1 << 16)
    wanted = (Action.PAGE_TABLE_WRITE, Action.RETRANSLATE)
    causes = [row["cause"] for row in records if row["action"] in wanted]
    assert causes.count(Cause.STORE_PAGE_FAULT) == RETRANSLATE_AFTER
    assert causes.count(Cause.ECALL_U) == 100 - RETRANSLATE_AFTER
    assert technique_of(machine).cache.counts.retranslated == 1


# -- the translator alone ------------------------------------------------------------------------------
class Registers:
    def __init__(self) -> None:
        self.x = [0] * 32


def test_constants() -> None:
    chance = random.Random(7)
    values = [0, 1, -1 & (1 << 64) - 1, 2047, 2048, 1 << 31, (1 << 31) - 1, 1 << 63, (1 << 64) - 2048, 0x8020_0000]
    values += [(chance.getrandbits(64) >> chance.randrange(64) << chance.randrange(64)) & (1 << 64) - 1 for _ in range(3000)]
    for value in values:
        registers = Registers()
        for word in constant(6, value):
            operation(word)(registers, 0)
        assert registers.x[6] == value
        assert registers.x[:6] == [0] * 6 == registers.x[7:13]


def test_a_translation_can_be_read() -> None:
    source = "csrr a0, sepc\ncsrci sstatus, 2\nauipc a1, 1\njal ra, 0x80200100\n"
    code = assemble(source, "test", 0x8020_0000).sections[0].content
    draft = Translator(
        lambda at: int.from_bytes(code[at - 0x8020_0000 :][:2], "little"), 0x8020_0000 + len(code),
        lambda _at: False, True, lambda _at: False,
    ).translate(0x8020_0000)  # fmt: skip
    text = [disassemble(int.from_bytes(draft.code[p.offset : p.offset + 4], "little"), 0) for p in draft.points]
    assert text[0] == "fmv.x.d a0, ft2"
    assert text[-1] == "ecall"
    assert len(draft.entries) == 4
    assert all(point.pc % 2 == 0 for point in draft.points)


def test_an_address_that_takes_too_long_to_compare_has_no_entry() -> None:
    assert jump_points(0x8020_0000)
    assert not jump_points(0x1234_5678_9ABC_DEF0)
