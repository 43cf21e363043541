"""Comparing: how long a whole comparison takes, and what one unit of each workload costs under each technique.

The comparison is carried out as the server does it, by one process on each core. Figures of a unit are those that
`ringside compare` shows: exits and instructions from execution, cycles from the cited table, wall time the least of
several runs from mark to mark.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from engine.compare import Measure, Task, configurations, measure, plan
from engine.hypervisor.stacks import DEFAULT_STACK, GENERATIONS, Configuration
from tests.bench import Figure
from webapp.comparisons import USUAL

#: Of five workloads and eight configurations the whole comparison is made.
WORKLOADS = tuple(USUAL.workloads)
CONFIGURATIONS = 8
WORDS = {
    "syscall": "null system call", "pagefault": "page fault", "switch": "context switch there and back",
    "timer": "timer tick (a sleep)", "io": "console byte", "disk": "block of 4 KiB there and back",
    "packet": "network packet there and back",
}  # fmt: skip


def _carry_out(task: Task) -> Measure:
    found = measure(task, lambda _: True, time.perf_counter)
    if found.problem is not None:
        raise AssertionError(f"{task}: {found.problem.message}")
    return found


def _ways() -> list[str]:
    """Bare metal, every technique on one stack, and hardware assist in each of its generations."""
    plain = [way for way in configurations() if way.stack == DEFAULT_STACK or way.technique is None]
    generations = [Configuration.of(DEFAULT_STACK, "hardware-assist", switches) for switches in GENERATIONS]
    return list(dict.fromkeys(map(str, plain + generations)))


def figures() -> list[Figure]:
    ways = [str(way) for way in configurations()][:CONFIGURATIONS]
    tasks = plan([*WORKLOADS], ways)
    cores = os.cpu_count() or 1
    began = time.perf_counter()
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        list(pool.map(_carry_out, tasks))
    took = time.perf_counter() - began
    found = [
        Figure(
            f"{len(WORKLOADS)} workloads x {CONFIGURATIONS} configurations", took, "s",
            f"{len(tasks)} machines on {cores} processes, started for it; {', '.join(ways)}",
        )
    ]  # fmt: skip
    for task in plan([*WORDS], _ways()):
        one = _carry_out(task)
        exits, cycles, instructions = (
            value / task.count for value in (one.work.exits, one.work.cycles, one.work.instructions)
        )
        found.append(
            Figure(
                f"{WORDS[task.workload]}, {task.configuration}", one.wall_s / task.count * 1e6, "µs",
                f"{exits:.4g} exits, {cycles:,.0f} modelled cycles, {instructions:,.0f} instructions executed",
            )
        )  # fmt: skip
    return found
