"""What a VM exit costs this machine, taken by native code and by Python: processor time for each record, records
included, the loop's own instructions too."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

from engine.guests import load_image
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.machine.loader import inspect
from engine.machine.memory import PAGE
from engine.machine.tiers import Tier
from tests.bench import Figure
from tests.support.exits import PAGING, refuse, vm_host

RUNS = 5
#: Steps before the measured ones, and of those; a kernel first has to come to where it exits.
FIRST, NATIVE_STEPS, PYTHON_STEPS = 200, 60_000, 2_000
KERNEL_FIRST, KERNEL_STEPS = 60_000, 100_000
CSR = """
_start: csrw sscratch, t0
        csrr t0, sscratch
        j    _start
"""
TABLE_STORES = PAGING.format(body="""
1:      sd   s4, 0(s3)
        ld   t0, 0(x0)
        j    1b
""")
FAULTS = PAGING.format(body="""
        la   t0, 2f
        csrw stvec, t0
        .balign 4
2:      addi t1, t1, 1
        ld   t0, 8(x0)
""")
TOUCHES = """
_start: li   t0, 0x80400000
        li   t1, 4096
        li   t2, 2048
1:      sd   t2, 0(t0)
        add  t0, t0, t1
        addi t2, t2, -1
        bnez t2, 1b
2:      j    2b
"""
REGISTER = PAGING.format(body="""
        li   s5, 0x200000
1:      lbu  t0, 5(s5)
        j    1b
""")
FIRMWARE = """
_start: li   a7, 0x10
        li   a6, 0
1:      ecall
        li   a7, 0x10
        j    1b
"""
SYSTEM_CALLS = """
_start: la   t0, trap
        csrw stvec, t0
        la   t0, user
        csrw sepc, t0
        csrw sstatus, x0
        sret
        .balign 4
user:   ecall
        j    user
        .balign 4
trap:   csrr t0, sepc
        addi t0, t0, 4
        csrw sepc, t0
        sret
"""
TRAP, ASSIST, TRANSLATED, PARAVIRTUAL = "trap-and-emulate", "hardware-assist", "binary-translation", "paravirtual"


class Exits(NamedTuple):
    """Exits of one sort, by a loop in assembly or by a command of ringos-pv. native_steps: 0 where only Python takes
    them."""

    words: str
    technique: str
    program: str
    native_steps: int = 0


SORTS = (
    Exits("CSR write and read", TRAP, CSR, NATIVE_STEPS),
    Exits("store to a page table, and a shadow fill", TRAP, TABLE_STORES, NATIVE_STEPS),
    Exits("page fault for the guest's own kernel", TRAP, FAULTS, NATIVE_STEPS),
    Exits("first touch, second-stage fill", ASSIST, TOUCHES, 4 * 2_000),
    Exits("register of a device", TRAP, REGISTER),
    Exits("register of a device", ASSIST, REGISTER),
    Exits("call to the firmware", TRAP, FIRMWARE),
    Exits("call to the firmware", ASSIST, FIRMWARE),
    Exits("system call and return", TRANSLATED, SYSTEM_CALLS),
    Exits("system call and return", PARAVIRTUAL, "work syscall 100000"),
)


def _microseconds(sort: Exits, steps: int, native: bool) -> float:
    """For each record of so many steps."""
    if sort.technique == PARAVIRTUAL:
        content, arguments, first = load_image("ringos-pv"), f"run={sort.program}", KERNEL_FIRST
    else:
        content, arguments, first = assemble(sort.program, "bench.s").elf(), "", FIRST
    configuration = Configuration.parse(sort.technique)
    host = vm_host(inspect(content, "bench"), configuration, Tier.INTERPRETER, arguments=arguments)
    for page in range(0, host.memory.size, PAGE):
        host.memory.ram[page] = host.memory.ram[page]  # so that the machine's own memory is there
    host.run(first)
    refuse(host, not native)
    before, began = host.trace.total(1), time.process_time()
    host.run(steps)
    return (time.process_time() - began) / (host.trace.total(1) - before) * 1e6


def figures() -> list[Figure]:
    found = []
    for sort in SORTS:
        python_steps = KERNEL_STEPS if sort.technique == PARAVIRTUAL else PYTHON_STEPS
        for native, who, steps in ((True, "native code", sort.native_steps), (False, "Python", python_steps)):
            if steps:
                _microseconds(sort, steps, native)  # what is compiled and cached at first does not count
                value = statistics.median(_microseconds(sort, steps, native) for _ in range(RUNS))
                method = f"{sort.technique}, {steps:,} steps, the interpreter tier; median of {RUNS}"
                found.append(Figure(f"{sort.words}, {who}", value, "µs", method))
    return found
