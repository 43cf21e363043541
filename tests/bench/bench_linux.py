"""Debian from the first instruction to its shell's prompt, beside Debian's QEMU with the same kernel and initial RAM
disk. Processor time, medians of RUNS; on the bare machine both sides start the same OpenSBI.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engine.headless import OPENSBI
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.machine.loader import LoadedImage, inspect, with_firmware
from engine.trace.rings import Trace
from tests.bench import Figure
from tests.support import debian
from tests.support.qemu import run_qemu

RUNS = 3
STEPS = 10_000_000
QEMU_SECONDS = 300


def figures() -> list[Figure]:
    image, arguments = debian.image()
    firmware = next(path for path in OPENSBI if Path(path).is_file())
    bare = with_firmware(image, inspect(Path(firmware).read_bytes(), "firmware"))
    qemu = _median(lambda: _on_qemu(image, arguments))
    found = [Figure("Debian to its prompt on QEMU", qemu, "s", "processor time, OpenSBI, one hart")]
    for on in ("bare-metal", "hardware-assist", "trap-and-emulate"):
        seconds = _median(lambda on=on: _here(bare if on == "bare-metal" else image, arguments, on))  # type: ignore[misc]
        method = f"{seconds / qemu:.2f} of QEMU's on the bare machine"
        found.append(Figure(f"the same here, {on}", seconds, "s", method))
    return found


def _median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(RUNS))


def _on_qemu(image: LoadedImage, arguments: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        kernel, disk = Path(folder) / "Image", Path(folder) / "initrd"
        kernel.write_bytes(image.segments[0].data)
        disk.write_bytes(image.initrd)
        before = _children_seconds()
        result = run_qemu(
            kernel,
            memory=f"{debian.MEMORY_MIB}M",
            arguments=arguments,
            until=debian.PROMPT,
            options=["-initrd", str(disk)],
            seconds=QEMU_SECONDS,
        )
        assert not result.timed_out, result.output
    return _children_seconds() - before


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _here(image: LoadedImage, arguments: str, on: str) -> float:
    console = bytearray()
    host_mib = debian.MEMORY_MIB * (1 if on == "bare-metal" else 2)
    began = time.process_time()
    host = Host(1, 1, host_mib, Configuration.parse(on), Trace(), lambda _guest, data: console.extend(data))
    host.add_guest(1, image, 1, debian.MEMORY_MIB, arguments)
    while debian.PROMPT.encode() not in console:
        host.run(STEPS)
    return time.process_time() - began
