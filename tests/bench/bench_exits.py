"""What a VM exit costs this machine, taken by native code and by Python: processor time for each record, records
included, the loop's own instructions too."""

from __future__ import annotations

import statistics
import time

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.machine.loader import inspect
from engine.machine.memory import PAGE
from engine.machine.tiers import Tier
from engine.trace.rings import Trace
from tests.bench import Figure

MEMORY_MIB = 64
RUNS = 3
#: For each exit of a kind one loop. `window` is a page that the guest maps anew.
CSR = """
_start: csrw sscratch, t0
        csrr t0, sscratch
        j    _start
"""
PAGING = """
_start: la   s0, root
        la   t1, middle
        srli t1, t1, 12
        slli t1, t1, 10
        ori  t1, t1, 1
        sd   t1, 0(s0)
        la   s2, lowest
        srli t1, s2, 12
        slli t1, t1, 10
        ori  t1, t1, 1
        la   t2, middle
        sd   t1, 0(t2)
        li   t1, 0x200000cf
        sd   t1, 16(s0)
        la   s1, window
        srli s1, s1, 12
        slli s1, s1, 10
        ori  s1, s1, 0xc7
        srli t0, s0, 12
        li   t1, 8
        slli t1, t1, 60
        or   t0, t0, t1
        csrw satp, t0
        {loop}
        .data
        .balign 4096
root:   .zero 4096
middle: .zero 4096
lowest: .zero 4096
window: .zero 4096
"""
TABLES = PAGING.format(loop="""
1:      sd   s1, 0(s2)
        ld   t0, 0(x0)
        j    1b
""")
FAULTS = PAGING.format(loop="""
        la   t0, 2f
        csrw stvec, t0
        .balign 4
2:      addi t1, t1, 1
        ld   t0, 8(x0)
""")
MEMORY = """
_start: li   t0, 0x80400000
        li   t1, 4096
        li   t2, 8192
1:      sd   t2, 0(t0)
        add  t0, t0, t1
        addi t2, t2, -1
        bnez t2, 1b
2:      j    2b
"""
TRAP, ASSIST = "trap-and-emulate", "hardware-assist"
KINDS = (
    ("CSR write and read", TRAP, CSR, 60_000, 1_000),
    ("store to a page table, and a shadow fill", TRAP, TABLES, 60_000, 1_000),
    ("page fault for the guest's own kernel", TRAP, FAULTS, 60_000, 1_000),
    ("first touch, second-stage fill", ASSIST, MEMORY, 32_000, 1_000),
)


def _microseconds(technique: str, source: str, steps: int, native: bool) -> float:
    """For each record of so many steps."""
    host = Host(
        1, 1, 2 * MEMORY_MIB, Configuration.parse(technique), Trace(), lambda _guest, _data: None, tier=Tier.INTERPRETER
    )
    for page in range(0, host.memory.size, PAGE):
        host.memory.ram[page] = 0  # so that the machine's own memory is there
    host.add_guest(1, inspect(assemble(source, "bench.s").elf(), "bench.s"), 1, MEMORY_MIB, "")
    host.run(100)
    if not native:
        host.harts[0].virtual_at = host.harts[0].guest_ram_at = 0
    before, began = host.trace.total(1), time.process_time()
    host.run(steps)
    return (time.process_time() - began) / (host.trace.total(1) - before) * 1e6


def figures() -> list[Figure]:
    found = []
    for words, technique, source, steps, fewer in KINDS:
        for native, who, count in ((True, "native code", steps), (False, "Python", fewer)):
            value = statistics.median(_microseconds(technique, source, count, native) for _ in range(RUNS))
            method = f"{technique}, {count:,} steps, the interpreter tier; median of {RUNS}"
            found.append(Figure(f"{words}, {who}", value, "µs", method))
    return found
