"""Figures of clones and snapshots: what one takes, in time and memory, and when its memory is written."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from engine.commands import SnapshotQuery, SnapshotTake
from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.lab import Lab
from engine.machine.loader import inspect
from engine.trace.rings import Trace
from tests.bench import Figure

CLONES = 200
MEMORY_MIB = 16
BOOT_STEPS = 400_000
WORK = b"work syscall 3\r"
PAGE_KIB = 4


def _resident_kib() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


def figures() -> list[Figure]:
    host = Host(
        1, 1, (CLONES + 4) * MEMORY_MIB * 9 // 8, Configuration.parse("trap-and-emulate"), Trace(), lambda _guest, _data: None
    )
    host.add_guest(1, inspect(load_image("ringos"), "ringos"), 1, MEMORY_MIB, "")
    host.run(BOOT_STEPS)
    before, taken = _resident_kib(), []
    for clone in range(2, CLONES + 2):
        began = time.thread_time()
        host.clone_guest(1, clone)
        taken.append(time.thread_time() - began)
    after = _resident_kib()
    for clone in range(2, CLONES + 2):
        host.guests[clone].receive(WORK)
    host.run(CLONES * 20_000)
    worked = _resident_kib()
    lab = Lab.demo()
    lab.run(BOOT_STEPS)
    began = time.perf_counter()
    image = lab.apply(SnapshotTake(2))["image"]
    saved = time.perf_counter() - began
    content = lab.query(SnapshotQuery(image))["content"]
    of = f"a ringos of {MEMORY_MIB} MiB at its prompt, {CLONES} clones on its host"
    return [
        Figure("clone, median", statistics.median(taken) * 1e3, "ms", f"{of}; processor time"),
        Figure("clone, slowest", max(taken) * 1e3, "ms", "the one in which Python collects garbage"),
        Figure("memory of a clone", (after - before) / CLONES, "KiB", f"{of}; resident memory of the process"),
        Figure("memory of a clone that worked", (worked - before) / CLONES, "KiB", f"{of}, each with a command run"),
        Figure("snapshot taken", saved * 1e3, "ms", "the demo's guest, in its lab, compressed"),
        Figure("snapshot", len(content) / 1024, "KiB", "the same"),
    ]
