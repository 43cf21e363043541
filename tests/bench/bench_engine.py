"""Figures of the engine: the reference tier's speed, what a trap costs, booting, and what a lab's
bookkeeping costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from engine.commands import GuestCreate, HostCreate, ImageAssemble, LabSeek
from engine.lab import Lab
from tests.bench import Figure
from tests.support.labs import host_create

PROMPT = b"ringos$ "
STACKS = {
    "bare-metal": "bare metal",
    "trap-and-emulate": "trap-and-emulate",
    "hardware-assist": "hardware assist",
}

#: Integer work with loads, stores and branches; no trap. The data have a page of their own, because each
#: store to a page of code is looked at.
COMPUTE = """
_start: la   s0, buffer
        li   s1, 0
loop:   andi t0, s1, 248
        add  t0, t0, s0
        ld   t1, 0(t0)
        xor  t1, t1, s1
        slli t2, t1, 3
        sub  t1, t2, t1
        sd   t1, 0(t0)
        addi s1, s1, 1
        j    loop
        .data
        .balign 4096
buffer: .zero 256
"""
#: One SBI call for every two instructions: "probe extension" of the base extension, which does next to
#: nothing.
CALLS = """
_start: li   a7, 0x10
        li   a6, 3
loop:   ecall
        j    loop
"""


def _lab(stack: str, source: str) -> Lab:
    lab = Lab.new("bench")
    host = lab.apply(host_create(stack))["host"]
    image = lab.apply(ImageAssemble("bench.s", source))["image"]
    lab.apply(GuestCreate(host, image))
    return lab


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _best(work: Callable[[], object], times: int = 5) -> float:
    return min(_seconds(work) for _ in range(times))


def _speed(stack: str, words: str) -> Figure:
    lab, steps = _lab(stack, COMPUTE), 200_000
    lab.run(20_000)
    return Figure(
        f"guest instructions, {words}",
        steps / _best(lambda: lab.run(steps)) / 1e6,
        "M/s",
        f"reference tier, a loop of integer work, loads and stores, no traps; best of 5 x {steps:,} steps",
    )


def _trap(stack: str, words: str) -> Figure:
    lab, traps = _lab(stack, CALLS), 5_000
    lab.run(1_000)
    return Figure(
        f"trap round trip, {words}",
        _best(lambda: lab.run(10**9, stop_after_traps=traps)) / traps * 1e6,
        "µs",
        f"SBI probe_extension in a loop of ecall and j, record included; best of 5 runs of {traps:,} traps",
    )


def _boot(stack: str, words: str) -> list[Figure]:
    def boot() -> tuple[Lab, float]:
        lab = Lab.new("bench")
        host = lab.apply(host_create(stack))["host"]
        lab.apply(GuestCreate(host, "ringos", arguments=""))
        text, began = b"", time.perf_counter()
        while PROMPT not in text:
            if not lab.run(2_000).steps:
                raise RuntimeError("ringos did not reach its prompt")
            text += b"".join(data for _, data in lab.drain()["console"])
        return lab, time.perf_counter() - began

    runs = [boot() for _ in range(3)]
    status = runs[0][0].keyframe()["status"]["2"]
    return [
        Figure(f"ringos to its prompt, {words}", min(took for _, took in runs), "s", "wall clock; best of 3"),
        Figure(
            f"ringos to its prompt, {words}",
            status["instructions"],
            "instructions",
            "guest instructions retired",
        ),
    ]


def _bookkeeping() -> list[Figure]:
    lab = Lab.demo()
    lab.run(150_000)
    content = lab.save()

    def checkpoint() -> None:
        lab.run(5_000)
        began = time.perf_counter()
        lab._history.world.save()
        taken.append(time.perf_counter() - began)

    taken: list[float] = []
    for _ in range(20):
        checkpoint()
    end = lab.position

    def back() -> None:
        lab.apply(LabSeek(lab.position - 100))

    crowd = Lab.new("bench")
    for _ in range(10):
        host = crowd.apply(HostCreate(memory_mib=128))["host"]
        for _ in range(5):
            crowd.apply(GuestCreate(host, "ringos", memory_mib=4))
    drains = []
    for _ in range(10):
        crowd.run(50_000)
        drains.append(_seconds(crowd.drain))
    after, now = (
        "the demo, 5,000 steps after the last one; median of 20",
        "the demo with its history; best of 5",
    )
    crowded = "50 guests on 10 hosts, after 50,000 steps; median of 10"
    return [
        Figure("checkpoint in memory", statistics.median(taken) * 1e6, "µs", after),
        Figure("lab saved", _best(lab.save) * 1e3, "ms", now),
        Figure("lab saved", len(content) / 1024, "KiB", "the same, compressed"),
        Figure("lab loaded", _best(lambda: Lab.load(content)) * 1e3, "ms", now),
        Figure("step back", _best(back) * 1e3, "ms", f"by 100 steps from position {end:,}; best of 5"),
        Figure("tick drained", statistics.median(drains) * 1e6, "µs", crowded),
    ]


def figures() -> list[Figure]:
    found = [_speed(stack, words) for stack, words in STACKS.items()]
    found += [_trap(stack, words) for stack, words in STACKS.items()]
    for stack, words in STACKS.items():
        found += _boot(stack, words)
    return found + _bookkeeping()
