"""Speed of the native tiers beside Debian's QEMU on the same images: bare metal, one hart, medians of RUNS.

Each program of tests/bench/programs prints what it computed, which has to be the same on both sides. Its
instructions are counted on ours. Time is processor time, so that what else the machine does matters little: QEMU's
whole process less what it takes to start and end, ours from the first instruction to the last, compiling included
where it happens. The JIT is measured in steady state, when the same image has run once before; `first run` is that
run.

A trap's round trip is the difference of two programs with and without system calls, per call: user mode to the
kernel's handler of four instructions and back, on our side with its record, kept, counted and hashed.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import BARE_METAL, Configuration
from engine.machine.loader import inspect
from engine.machine.native import objects
from engine.machine.native.runtime import native
from engine.machine.tiers import Tier
from engine.trace.rings import Trace
from tests.bench import Figure

PROGRAMS = Path(__file__).parent / "programs"
COMPILER = "riscv64-linux-gnu-gcc"
FLAGS = (
    "-O2", "-march=rv64gc", "-mabi=lp64", "-mcmodel=medany", "-nostdlib", "-static", "-ffreestanding", "-fno-pic",
    "-no-pie", "-fno-tree-loop-distribute-patterns", f"-Wl,-T,{PROGRAMS / 'link.ld'}", "-Wl,--build-id=none",
    "-Wl,--no-warn-rwx-segments",
)  # fmt: skip
#: Program of the system calls, and how many of them are in a round.
CALLS, CALLS_A_ROUND, CALL_ROUNDS = "trap.S", 4, 1_000_000
MEMORY_MIB = 128
RUNS = 3
STEPS = 1 << 40


@dataclass(frozen=True)
class Bench:
    """A program: `definitions` are the compiler's -D, `what` names it in the table."""

    source: str
    definitions: tuple[str, ...]
    what: str


BENCHES = (
    Bench("integer.c", ("ROUNDS=300000",), "integer loop"),
    Bench("sieve.c", ("ROUNDS=100",), "sieve, 1 MiB of bytes"),
    Bench("mixed.c", ("ROUNDS=6000",), "CoreMark-like"),
    Bench("floats.c", ("ROUNDS=600000",), "floating point, n-body"),
    Bench("copy.c", ("ROUNDS=32", "S_MODE"), "2 x 16 MiB copy, Sv39"),
    Bench("cold.S", ("COUNT=400000",), "code executed once"),
)


def build(bench: Bench, folder: Path, name: str = "") -> Path:
    """The program as an ELF file. Raises CalledProcessError with the compiler's words."""
    image = folder / (name or f"{bench.source}.elf")
    sources = [str(PROGRAMS / "start.S"), str(PROGRAMS / bench.source)]
    command = [COMPILER, *FLAGS, *(f"-D{text}" for text in bench.definitions), *sources, "-o", str(image)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return image


def qemu(image: Path) -> tuple[float, bytes]:
    """Processor seconds of a whole QEMU, and what the program printed."""
    command = [
        "qemu-system-riscv64", "-M", "virt", "-m", f"{MEMORY_MIB}M", "-bios", "none", "-display", "none",
        "-serial", "stdio", "-monitor", "none", "-kernel", str(image),
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def ours(image: Path, tier: Tier) -> tuple[float, int, bytes]:
    """Processor seconds and instructions of our machine, and what the program printed. The interpreter has not decoded
    anything before."""
    printed = bytearray()
    bare = Configuration.of(BARE_METAL)
    host = Host(1, 1, MEMORY_MIB, bare, Trace(), lambda _guest, data: printed.extend(data), tier=tier)
    host.add_guest(1, inspect(image.read_bytes(), image.name), 1, MEMORY_MIB, "")
    if tier == Tier.INTERPRETER:
        native(False).pages.forget()
    begin = time.process_time()
    while not host.guests[1].ended:
        host.run(STEPS)
    return time.process_time() - begin, host.guests[1].instructions, bytes(printed)


def round_trips(folder: Path) -> list[Figure]:
    """Microseconds from user mode to the kernel and back."""
    without, calling = (
        build(Bench(CALLS, (f"ROUNDS={CALL_ROUNDS}", f"TRAPS={traps}", "S_MODE"), "calls"), folder, f"{traps}.elf")
        for traps in (0, CALLS_A_ROUND)
    )
    sides: dict[str, Callable[[Path], float]] = {
        "QEMU": lambda image: qemu(image)[0],
        "interpreter": lambda image: ours(image, Tier.INTERPRETER)[0],
        "jit": lambda image: ours(image, Tier.JIT)[0],
    }
    sides["jit"](calling)
    found: dict[str, list[float]] = {who: [] for who in sides}
    for _ in range(RUNS):
        for who, run in sides.items():
            found[who].append((run(calling) - run(without)) / (CALL_ROUNDS * CALLS_A_ROUND))
    median = {who: statistics.median(times) for who, times in found.items()}
    return [
        Figure(f"trap round trip: {who}", seconds * 1e6, "µs", f"{CALLS}; {seconds / median['QEMU']:.2f} times QEMU's")
        for who, seconds in median.items()
    ]


def figures() -> list[Figure]:
    objects.keep_in(None)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        empty = build(Bench("integer.c", ("ROUNDS=0",), "nothing"), Path(folder))
        starting = statistics.median(qemu(empty)[0] for _ in range(RUNS))
        for bench in BENCHES:
            image = build(bench, Path(folder))
            seconds: dict[str, list[float]] = {"QEMU": [], "interpreter": [], "jit": []}
            first, instructions, printed = ours(image, Tier.JIT)
            for _ in range(RUNS):
                took, theirs = qemu(image)
                seconds["QEMU"].append(took - starting)
                for tier in (Tier.INTERPRETER, Tier.JIT):
                    took, count, output = ours(image, tier)
                    seconds[tier.value].append(took)
                    if theirs != output or (count, output) != (instructions, printed):
                        raise AssertionError(f"{bench.what}: {theirs!r} on QEMU, {output!r} on {tier}")
            median = {who: statistics.median(times) for who, times in seconds.items()}
            method = f"{bench.source} {' '.join(bench.definitions)}, {instructions / 1e6:,.0f} M instructions"
            found += [
                Figure(f"{bench.what}: QEMU", instructions / median["QEMU"] / 1e6, "MIPS", method),
                Figure(f"{bench.what}: first run", instructions / first / 1e6, "MIPS", "jit, nothing compiled before"),
                *(
                    Figure(
                        f"{bench.what}: {tier.value}", instructions / median[tier.value] / 1e6, "MIPS",
                        f"{median['QEMU'] / median[tier.value]:.2f} times QEMU",
                    )
                    for tier in (Tier.INTERPRETER, Tier.JIT)
                ),
            ]  # fmt: skip
        found += round_trips(Path(folder))
    return found
