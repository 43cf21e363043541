"""Run a guest on our own host and talk to its console: the counterpart of tests.support.qemu.

Why: the same script on QEMU, on our bare metal and in our VM must show the same. Input is sent only after the
console has shown what it answers to; a run ends after `steps` at the latest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.machine.loader import inspect
from engine.trace.rings import Trace

SLICE_STEPS = 2000
CONFIGURATIONS = ("bare-metal", "trap-and-emulate", "binary-translation", "hardware-assist")


@dataclass(frozen=True)
class Outcome:
    """`output`: the console, with plain newlines; `status`: the guest's exit status, None if it did not
    end by itself.
    """

    output: str
    status: int | None
    failure: str | None
    steps: int
    trace_hash: str


def run_guest(
    image: bytes,
    script: Sequence[tuple[str, str]] = (),
    *,
    configuration: str,
    memory_mib: int = 16,
    arguments: str = "",
    steps: int = 20_000_000,
) -> Outcome:
    """Start `image` and play the script: pairs of what to wait for (behind the previous one) and what to
    type then.
    """
    shown = bytearray()
    trace = Trace()
    host = Host(1, 1, 4 * memory_mib, Configuration.parse(configuration), trace, lambda _guest, data: shown.extend(data))
    host.add_guest(1, inspect(image, "guest"), 1, memory_mib, arguments)
    guest = host.guests[1]
    waiting = list(script)
    seen = ran = 0
    while not guest.ended and ran < steps:
        ran += host.run(SLICE_STEPS)
        while waiting and (at := shown.find(waiting[0][0].encode(), seen)) >= 0:
            marker, text = waiting.pop(0)
            seen = at + len(marker)
            guest.receive(text.encode())
        if host.idle and not waiting:
            break
    failure = guest.failure.key if guest.failure else None
    output = shown.decode(errors="replace").replace("\r\n", "\n")
    return Outcome(output, guest.exit_status, failure, ran, trace.hash())
