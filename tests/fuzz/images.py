"""Hostile files: kernels, firmware, initial RAM disks and disks with anything in them.

    python -m tests.fuzz.images --count 2000 --seed 1

Every input is either refused with a LabError that names it or taken, and then it runs for a while under every sort of
virtualization: code that is no code, page tables that are none, a disk that ends in the middle of a sector. Nothing else
may happen: no other exception, no guest whose host cannot be saved and go on from there as it would have.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from engine.commands import LabError
from engine.guests import load_image
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.isa.table import ROWS
from engine.machine.loader import LoadedImage, inspect, with_disk, with_firmware, with_initrd
from engine.trace.rings import Trace
from tests.fuzz import asked, outcomes, show

STACKS = ("bare-metal", "trap-and-emulate", "binary-translation", "hardware-assist", "paravirtual", "vmware", "xen")
RUN_STEPS, MORE_STEPS = 100_000, 5_000
HOST_MIB, GUEST_MIB = 64, 16
NAME = "fuzz"
_SIZES = (0, 1, 511, 512, 513, 4095, 4096, 100_000)
_WORDS = (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


class Case(NamedTuple):
    """A guest to be; `arguments`: its command line."""

    image: LoadedImage
    arguments: str = ""


@cache
def kernel(name: str) -> bytes:
    return load_image(name)


def damaged(content: bytes, chance: random.Random, within: int | None = None) -> bytes:
    """A few bits, bytes and words changed, mostly among the first `within` bytes; sometimes cut."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        at = chance.randrange(within if within and chance.random() < 0.7 else len(changed))
        size = chance.choice((1, 2, 4, 8))
        word = chance.choice((chance.choice(_WORDS), chance.getrandbits(64), changed[at] ^ 1 << chance.randrange(8)))
        changed[at : at + size] = (word & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(changed[: chance.randrange(len(changed))] if chance.random() < 0.1 else changed)


def code(chance: random.Random) -> bytes:
    """Instructions with random operands, and words that are none."""
    words = []
    for _ in range(chance.choice((1, 20, 400))):
        row = chance.choice(ROWS)
        bits = chance.getrandbits(8 * row.length)
        word = bits if chance.random() < 0.1 else row.match | bits & ~row.mask
        words.append(word.to_bytes(row.length, "little"))
    return b"".join(words)


def elf(chance: random.Random) -> Case:
    content = damaged(kernel(chance.choice(("ringos", "ringos-pv", "hello"))), chance, within=400)
    return Case(inspect(content, NAME), "run=work compute 1;work pagefault 3;poweroff")


def linux_image(chance: random.Random) -> Case:
    """What begins as a RISC-V Image does, with fields that may be wild, and an initial RAM disk."""
    offset, size = (chance.choice((0, 0x200000, 0x200000, *_WORDS)) for _ in range(2))
    header = struct.pack("<IIQQQIIQQII", 0x0400006F, 0, offset, size, chance.choice((0, 1)), 2, 0, 0, 0, 0x05435352, 0)
    image = inspect(header + code(chance), NAME)
    if chance.random() < 0.5:
        image = with_initrd(image, chance.randbytes(chance.choice(_SIZES)))
    return Case(image, "x" * chance.choice((0, 1, 255, 256, 5000)))


def flat(chance: random.Random) -> Case:
    address = chance.choice((None, None, 0x80000000, 0x80200000, 0x80200000, 0x80200002, *_WORDS))
    return Case(inspect(code(chance), NAME, address))


def firmware(chance: random.Random) -> Case:
    below = inspect(code(chance), "firmware")
    return Case(with_firmware(inspect(damaged(kernel("hello"), chance), NAME), below))


def disk(chance: random.Random) -> Case:
    start = chance.choice((b"", b"QFI\xfb", b"\x1f\x8b", chance.randbytes(8)))
    content = start + chance.randbytes(chance.choice(_SIZES))
    return Case(with_disk(inspect(kernel("ringos"), NAME), content, "disk"), "run=work disk 3;poweroff")


KINDS: tuple[Callable[[random.Random], Case], ...] = (elf, linux_image, flat, flat, firmware, disk)


def check(kind: Callable[[random.Random], Case], chance: random.Random, stack: str) -> str:
    """Make a file and a guest of it; what came of it: a refusal's key, "ended" or "runs"."""
    one, other = (
        Host(1, 1, HOST_MIB, Configuration.parse(stack), Trace(), lambda _guest, _data: None) for _ in range(2)
    )
    try:
        case = kind(chance)
        for host in (one, other):
            host.add_guest(1, case.image, 1, GUEST_MIB, case.arguments)
    except LabError as error:
        if not any(name in error.problem.message for name in (NAME, "firmware", "disk", "host", "kernel", "guest")):
            raise
        return error.problem.key
    one.run(RUN_STEPS)
    other.load(one.save())
    other.trace.load(one.trace.save())
    ran = [host.run(MORE_STEPS) for host in (one, other)]
    if ran[0] != ran[1] or one.save() != other.save() or one.trace.hash() != other.trace.hash():
        raise AssertionError("a host that was saved goes on otherwise than one that was not")
    return "ended" if one.guests[1].ended else "runs"


def fuzz(count: int, seed: int) -> Counter[str]:
    """How often each kind of input came to what."""
    return outcomes(check, KINDS, STACKS, count, seed)


if __name__ == "__main__":
    show(fuzz(*asked("images", __doc__, 1000, 1)))
