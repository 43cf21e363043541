"""Hostile snapshots: flipped bits, cut and spliced files, and well-sealed nonsense.

    python -m tests.fuzz.snapshot --count 2000 --seed 1

Every input is either refused with a LabError of a snapshot's or taken; a guest that was taken runs on.
Nothing else may happen: no other exception, no guest whose host cannot go on. The error names its input.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import zstandard

from engine import snapshot
from engine.checkpoint import VERSION
from engine.commands import GuestCreate, ImageAdd, LabError, SnapshotTake
from engine.lab import Lab
from tests.fuzz import asked, outcomes, show
from tests.support.labs import guests_of, host_create, lab_of

STACKS = ("bare-metal", "trap-and-emulate", "binary-translation", "hardware-assist", "paravirtual")
KEYS = {
    "snapshot-foreign",
    "snapshot-format",
    "snapshot-truncated",
    "snapshot-damaged",
}
RUN_STEPS = 3_000
_ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 4095, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), "", "x", b"", b"x",
    bytes(4096), [], [0], {}, {"a": 1}, 1.5, float("nan"),
]  # fmt: skip


@cache
def file_of(stack: str) -> bytes:
    """A sound snapshot of a ringos in the middle of its work."""
    lab = lab_of(["run=demo"], configuration=stack)
    lab.run(60_000)
    [guest] = guests_of(lab)
    identity = lab.apply(SnapshotTake(guest))["image"]
    return lab._images.contents[identity]


def flip(content: bytes, chance: random.Random) -> bytes:
    """One bit."""
    bit = chance.randrange(len(content) * 8)
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def splice(content: bytes, chance: random.Random) -> bytes:
    """A stretch of another snapshot, or of this one, in the middle."""
    other = file_of(chance.choice(STACKS))
    begin, end = sorted(chance.randrange(len(other)) for _ in range(2))
    at = chance.randrange(len(content))
    return content[:at] + other[begin:end] + content[at + chance.choice((0, end - begin)) :]


def reseal(content: bytes, chance: random.Random) -> bytes:
    """The state with one value, anywhere in it, replaced; every checksum is right."""
    found = snapshot.read(content)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(found.state))
    for _ in range(chance.choice((1, 1, 1, 3))):
        _change(state, chance)
    try:
        return snapshot.write(msgspec.structs.replace(found, state=state))
    except TypeError:  # not everything can be a key
        return content


def garble(content: bytes, chance: random.Random) -> bytes:
    """The manifest with a byte changed, sealed again."""
    manifest, begin = snapshot._manifest(content)
    plain = bytearray(msgspec.msgpack.encode(manifest))
    for _ in range(chance.choice((1, 2, 8))):
        plain[chance.randrange(len(plain))] = chance.randrange(256)
    packed = zstandard.compress(bytes(plain))
    header = snapshot._HEADER.pack(
        snapshot.MAGIC, VERSION, 0, len(packed), snapshot._digest(packed)
    )
    body = header + snapshot._digest(header) + packed + content[begin : -snapshot._DIGEST]
    return body + snapshot._digest(body)


def _change(state: Any, chance: random.Random) -> None:
    """Replace, remove or add one value in a tree, at a depth of its own."""
    while True:
        if isinstance(state, dict) and state:
            key = chance.choice(list(state))
        elif isinstance(state, list) and state:
            key = chance.randrange(len(state))
        else:
            return
        if isinstance(state[key], dict | list) and state[key] and chance.random() < 0.85:
            state = state[key]
            continue
        match chance.randrange(6):
            case 0 if isinstance(state, dict):
                del state[key]
            case 1 if isinstance(state, dict):
                state[chance.choice((0, -1, 2**40, "odd", key))] = chance.choice(_ODD)
            case 2 if isinstance(state[key], int):
                state[key] ^= 1 << chance.randrange(63)
            case _:
                state[key] = chance.choice(_ODD)
        return


KINDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, splice, reseal, reseal, garble)


def check(content: bytes, stack: str) -> str:
    """Feed one file to a lab; what came of it: a refusal's key, or "taken"."""
    lab = Lab.new("fuzz")
    host = lab.apply(host_create(stack, memory_mib=64))["host"]
    try:
        image = lab.apply(ImageAdd("fuzz", content or b"\0"))["image"]
    except LabError as error:
        if error.problem.key in KEYS or not snapshot.is_snapshot(content):
            return error.problem.key
        raise
    try:
        lab.apply(GuestCreate(host, image))
    except LabError as error:
        if error.problem.key not in {"host-memory", "host-harts", "snapshot-other-technique"}:
            raise
        return error.problem.key
    lab.run(RUN_STEPS)
    lab.drain()
    lab.keyframe()
    Lab.load(lab.save())
    return "taken"


def fuzz(count: int, seed: int) -> Counter[str]:
    """How often each kind of input came to what."""
    return outcomes(lambda kind, chance, stack: check(kind(file_of(stack), chance), stack), KINDS, STACKS, count, seed)


if __name__ == "__main__":
    show(fuzz(*asked("snapshot", __doc__, 1000, 1)))
