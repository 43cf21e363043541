"""What is saved of machines keeps its shape, or its version is raised: a lab or a snapshot of another shape is refused by its
version, with a sentence about it, and not by whatever is missed first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from engine import checkpoint, snapshot
from engine.commands import SnapshotQuery, SnapshotTake
from tests.support.labs import guests_of, lab_of, run_to

TECHNIQUES = ("bare-metal", "trap-and-emulate", "binary-translation", "hardware-assist", "paravirtual")
#: By version, a digest of the places in what it saves.
SHAPES = {2: "6935b0d42f657800"}


def places(value: Any, path: str = "") -> Iterator[str]:
    """Every place of a tree. Items of a list are one place, and so are values under keys that are no words."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, f"{path}.{key if isinstance(key, str) else '#'}")
    elif isinstance(value, list):
        for item in value:
            yield from places(item, f"{path}[]")


def test_what_is_saved_has_the_shape_of_its_version() -> None:
    found = set()
    for technique in TECHNIQUES:
        lab = lab_of(["run=demo"], configuration=technique)
        run_to(lab, 200_000)
        found.update(places(checkpoint.unpack(lab.save())))
        image = lab.apply(SnapshotTake(guests_of(lab)[0]))["image"]
        found.update(places(snapshot.read(lab.query(SnapshotQuery(image))["content"]).state, "snapshot"))
    shape = hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]
    assert SHAPES.get(checkpoint.VERSION) == shape, (
        f"What is saved has another shape. Raise engine.checkpoint.VERSION, and write here that its shape is {shape}."
    )
