"""Figures of live migration: what moving a VM takes of the server, and what of virtual time."""

from __future__ import annotations

import statistics
import time

from engine.commands import GuestCreate, GuestMigrate, HostCreate, ImageAssemble, MigrationMode, TechniqueId
from engine.hypervisor.migration import Progress
from engine.lab import Lab
from tests.bench import Figure

MEMORY_MIB = 64
TIMES = 5
MODES: tuple[MigrationMode, ...] = ("pre-copy", "post-copy", "stop-and-copy")
#: Stores to every page of its RAM, then sleeps for ever.
TOUCHED = f"""
.equ END, 0x80000000 + {MEMORY_MIB << 20}
_start: li   t0, 0x80201000
        li   t1, 4096
        li   t2, END
page:   sd   t0, 0(t0)
        add  t0, t0, t1
        bltu t0, t2, page
sleep:  wfi
        j    sleep
"""
STEPS = 4_000_000


def _idle(technique: TechniqueId) -> tuple[Lab, int]:
    lab = Lab.new("bench")
    for _ in range(2):
        lab.apply(HostCreate(technique=technique, memory_mib=128))
    image = lab.apply(ImageAssemble("touched", TOUCHED))["image"]
    guest = lab.apply(GuestCreate(1, image, memory_mib=MEMORY_MIB))["guest"]
    while lab.run(STEPS).steps:
        pass
    return lab, guest


def _migrate(technique: TechniqueId, mode: MigrationMode) -> tuple[float, float, Progress]:
    """Wall seconds from the command to the end, those of the processor in it, and what it came to."""
    lab, guest = _idle(technique)
    began, busy = time.perf_counter(), time.thread_time()
    lab.apply(GuestMigrate(guest, 2, mode))
    while lab.run(STEPS).steps:
        pass
    took, worked = time.perf_counter() - began, time.thread_time() - busy
    progress = lab.world.migrations[guest]
    assert progress.phase == "done"
    return took, worked, progress


def figures() -> list[Figure]:
    found = []
    for technique in ("trap-and-emulate", "hardware-assist"):
        for mode in MODES:
            runs = [_migrate(technique, mode) for _ in range(TIMES)]
            taken = [wall for wall, _, _ in runs]
            progress = runs[-1][2]
            of = f"{MEMORY_MIB} MiB, {progress.pages} pages there, idle, {technique}, two hosts of one lab"
            found += [
                Figure(f"{mode}, median", statistics.median(taken) * 1e3, "ms", of),
                Figure(f"{mode}, processor", statistics.median(busy for _, busy, _ in runs) * 1e3, "ms", "the same, median"),
                Figure(f"{mode}, slowest of {TIMES}", max(taken) * 1e3, "ms", of),
                Figure(f"{mode}, downtime", progress.downtime_ns / 1e6, "ms", "virtual; 10 Gbit/s"),
                Figure(f"{mode}, total", (progress.end_ns - progress.begin_ns) / 1e6, "ms", "virtual; 10 Gbit/s"),
            ]
    return found
