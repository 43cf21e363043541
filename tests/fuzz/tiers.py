"""Every tier is the same machine: a program runs on the reference and, beside it, on tiers that change at random, in
stretches of random length, and after each stretch the two have the same state. `python -m tests.fuzz.tiers`

The JIT compiles at once and after a single jump, so that compiled code is what runs. A program is run twice: what the
first run compiled, the second enters wherever its stretches begin.
"""

from __future__ import annotations

import random
import sys
import time

from engine.isa.assembler import assemble
from engine.isa.program import Program
from engine.machine.board import Board
from engine.machine.bus import Bus
from engine.machine.hart import TICK_NS, Hart
from engine.machine.loader import inspect
from engine.machine.memory import Memory
from engine.machine.native.runtime import Native
from tests.conformance.programs import BASE, SCENARIOS, case
from tests.fuzz import asked, loops

MEMORY_MIB = 4
STEP_LIMIT = 60_000
RUNS = 2
STRETCHES = (1, 1, 2, 3, 5, 8, 13, 40, 100, 1000)


class Owner:
    """What the board tells; only the end matters."""

    ended = False
    hart: Hart

    def output(self, data: bytes) -> None: ...

    def transmit(self, frame: bytes) -> None: ...

    def finish(self, status: int) -> None:  # noqa: ARG002
        self.ended = True
        self.hart.leave = True

    def reboot(self) -> None: ...

    def wake(self, hart: int) -> None: ...


class Ram:
    """A board's RAM by physical address."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.size = memory, memory.size

    def read(self, address: int, length: int) -> bytes:
        return self.memory.read_bytes(address - self.memory.base, length)

    def write(self, address: int, data: bytes) -> None:
        self.memory.write_bytes(address - self.memory.base, data)


class Machine:
    """A board with one hart, and a program about to start on it."""

    def __init__(self, program: Program, native: Native | None) -> None:
        self.memory = Memory(BASE, MEMORY_MIB << 20)
        self.owner = Owner()
        board = Board(1, Ram(self.memory), lambda: self.hart.clock, self.owner)
        self.hart = Hart(0, Bus(self.memory, board.devices), lambda: self.hart.clock // TICK_NS)
        self.owner.hart = self.hart
        board.attach([self.hart])
        board.load_image(inspect(program.elf(), program.name), "")
        self.hart.use_native(native)

    def state(self) -> dict[str, object]:
        return {**self.hart.save(), "ended": self.owner.ended}


def difference(program: Program, rng: random.Random, jit: Native, interpreter: Native) -> str | None:
    """Run the program on both sides to its end; what differs first, if anything."""
    reference, other = Machine(program, None), Machine(program, jit)
    while not reference.owner.ended and reference.hart.steps < STEP_LIMIT:
        if rng.random() < 0.05:
            other.hart.use_native(rng.choice((None, interpreter, jit, jit, jit)))
        at, steps = reference.hart.pc, rng.choice(STRETCHES)
        ran = reference.hart.run(steps), other.hart.run(steps)
        states = reference.state(), other.state()
        if ran != (ran[0], ran[0]) or states[0] != states[1]:
            found = {name: (value, states[1][name]) for name, value in states[0].items() if value != states[1][name]}
            return f"after {steps} steps from {at:#x} (ran {ran}): {found}"
        if ran[0] == 0:
            break
    if reference.memory.ram[:] != other.memory.ram[:]:
        return "memory"
    return None


def programs(count: int, seed: int) -> list[tuple[str, str]]:
    """Name and source of `count` programs: half of them loops, half what the conformance tests compare with QEMU."""
    names = list(SCENARIOS)
    return [
        (f"loops-{seed + index}", loops.source(seed + index))
        if index % 2
        else (f"{name}-{seed + index}", case(name, seed + index).source)
        for index in range(count)
        for name in [names[(index // 2 + seed) % len(names)]]
    ]


def check(name: str, source: str) -> str | None:
    """What the tiers disagree on in one program, if anything."""
    program = assemble(source, name)
    jit, interpreter = Native(threshold=1, background=False), Native(compiles=False)
    rng = random.Random(name)
    for run in range(RUNS):
        found = difference(program, rng, jit, interpreter)
        if found is not None:
            return f"{name}, run {run}: {found}"
    return None


def main() -> int:
    count, seed = asked("tiers", __doc__, 100, 0)
    failed, begin = 0, time.monotonic()
    for name, source in programs(count, seed):
        if found := check(name, source):
            failed += 1
            print(found, flush=True)
    print(f"{count} programs in {time.monotonic() - begin:.0f} s, {failed} differ")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
