"""A guest made of noise: whatever it executes, the engine goes on and its neighbour does not notice."""

from __future__ import annotations

import random

import pytest

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.isa.csrs import CSRS
from engine.isa.table import ROWS
from engine.machine.loader import inspect
from engine.trace.rings import Trace

STEPS = 12_000
#: More than the neighbour needs: 40 sleeps, and a slice of the noise before each in the worst case.
TIME_NS = 5_000_000
BASES = {"m": 0x8000_0000, "s": 0x8020_0000}
#: Skips whatever trapped, and starts the noise at some privilege, with or without its own page tables.
PRELUDE = """
_start:
    la t0, {level}_handler
    csrw {level}tvec, t0
    la t1, table
    li t2, 0x200000cf
    sd t2, 16(t1)
    li t2, 0x200000df
    sd t2, 8(t1)
    srli t1, t1, 12
    li t2, {satp}
    beqz t2, 1f
    or t1, t1, t2
    csrw satp, t1
1:  {enter}
    j noise
.balign 64
m_handler:
    csrr gp, mepc
    addi gp, gp, 4
    csrw mepc, gp
    mret
.balign 64
s_handler:
    csrr gp, sepc
    addi gp, gp, 4
    csrw sepc, gp
    sret
.balign 4096
table: .zero 4096
noise:
"""
ENTER = """
    la t0, s_handler
    csrw stvec, t0
    li t0, {delegation}
    csrw medeleg, t0
    li t0, 0x1800
    csrc mstatus, t0
    li t0, {mode}
    csrs mstatus, t0
    la t0, noise
    csrw mepc, t0
    mret
"""
NEIGHBOUR = """
# Counts in memory, sleeping between, and says when it is done.
_start:
    li s0, 40
1:  rdtime a0
    addi a0, a0, 100
    li a7, 0x54494D45
    li a6, 0
    ecall
    li t0, 0x20
    csrw sie, t0
    wfi
    addi s0, s0, -1
    bnez s0, 1b
    li a7, 0x53525354
    li a6, 0
    li a0, 0
    li a1, 0
    ecall
"""


def noise(seed: int, level: str) -> str:
    rng = random.Random(f"noise {seed} {level}")
    privileged = [row for row in ROWS if row.extension in {"Zicsr", "privileged", "A", "Zifencei"}]
    words = []
    for _ in range(2048):
        row = rng.choice(privileged if rng.random() < 0.5 else ROWS)
        word = row.match | rng.getrandbits(32) & ~row.mask
        if "csr" in row.fields and rng.random() < 0.8:
            word = word & 0xF_FFFF | rng.choice(list(CSRS)) << 20
        words.append(word if rng.random() < 0.9 else rng.getrandbits(32))
    enter = (
        ENTER.format(delegation=rng.getrandbits(16), mode=rng.choice((0, 0x800, 0x1800)))
        if level == "m"
        else ""
    )
    prelude = PRELUDE.format(level=level, satp=rng.choice((0, 8 << 60)), enter=enter)
    return prelude + "\n".join(f".word {word}" for word in words)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("level", "stack"),
    [
        *((level, stack) for level in BASES for stack in ("trap-and-emulate", "binary-translation")),
        ("s", "hardware-assist"),
    ],
)
def test_noise_harms_nobody(level: str, stack: str, seed: int) -> None:
    program = assemble(noise(seed, level), "noise", BASES[level])
    host = Host(1, 2, 32, Configuration.parse(stack), Trace(), lambda _guest, _data: None)
    host.add_guest(1, inspect(program.elf(), "noise"), 2, 8, "")
    host.add_guest(2, inspect(assemble(NEIGHBOUR).elf(), "neighbour"), 1, 4, "")
    while host.time < TIME_NS and not host.guests[2].ended:
        host.run(STEPS, until=TIME_NS)
    assert host.guests[2].exit_status == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("level", BASES)
def test_noise_on_bare_metal(level: str, seed: int) -> None:
    program = assemble(noise(seed, level), "noise", BASES[level])
    host = Host(1, 2, 16, Configuration.parse("bare-metal"), Trace(), lambda _guest, _data: None)
    host.add_guest(1, inspect(program.elf(), "noise"), 2, 8, "")
    host.run(STEPS)
    guest = host.guests[1]
    assert guest.ended or host.idle or host.position == STEPS
