"""A saved lab comes back whole; a damaged or malicious one is refused as such and by nothing else."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import checkpoint, guests
from engine.commands import (
    ConsoleInput,
    GuestCreate,
    GuestPower,
    GuestRemove,
    HostCreate,
    ImageAdd,
    LabError,
    LabReset,
    LabSeek,
    LabSpeed,
    LabUndo,
    SnapshotTake,
)
from engine.lab import Lab
from tests.support.labs import console, crowded, guests_of, lab_of, registers, run_to
from tests.support.saved import as_older


def _everything() -> Lab:
    """A lab with some of everything: two hosts, an image, inputs, an undone removal, a future."""
    lab = crowded()
    lab.apply(ImageAdd("mine.elf", guests.load_image("hello")))
    run_to(lab, 5_000)
    lab.apply(GuestRemove(guests_of(lab)[0]))
    lab.apply(HostCreate())
    lab.apply(LabUndo())
    lab.apply(ConsoleInput(guests_of(lab)[0], b"hello"))
    run_to(lab, 20_000)
    lab.apply(GuestPower(guests_of(lab)[1], "reset"))
    run_to(lab, 30_000)
    lab.apply(LabSeek(12_000))
    return lab


@pytest.fixture(scope="module")
def saved() -> bytes:
    return _everything().save()


def test_everything_comes_back(saved: bytes) -> None:
    lab, again = _everything(), Lab.load(saved)
    assert again.save() == saved
    assert again.document() == lab.document()
    assert again.keyframe() == lab.keyframe()
    for each in (lab, again):
        each.apply(LabSeek(6_000))
        run_to(each, 30_000)
    assert again.trace_hash() == lab.trace_hash()
    for each in (lab, again):
        each.apply(LabUndo())
        each.run(5_000)
    assert again.save() == lab.save()


def test_what_is_loaded_is_not_told_again(saved: bytes) -> None:
    tick = Lab.load(saved).drain()
    assert (tick["sample"], tick["console"], tick["notices"]) == (b"", [], [])


def test_an_image_shared_by_guests_is_saved_once() -> None:
    one, three = lab_of(["run="]), lab_of(["run=", "run=", "run="])
    assert len(three.save()) < 2 * len(one.save())


@given(st.binary(max_size=400))
def test_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(LabError) as caught:
        Lab.load(content)
    assert caught.value.problem.key == "checkpoint-damaged"


_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=10),
    st.binary(max_size=20),
    st.lists(st.integers(0, 2**64 - 1), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every node of a tree."""
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:8]):
            found += _places(item, (*path, index))
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_checkpoint_with_a_correct_digest_and_a_wrong_content(saved: bytes, data: st.DataObject) -> None:
    """It loads and can be looked at, or it is refused: nothing but LabError gets out."""
    root = checkpoint.unpack(saved)
    *path, last = data.draw(st.sampled_from(_places(root)[1:]), label="place")
    parent = root
    for key in path:
        parent = parent[key]
    if data.draw(st.booleans(), label="remove"):
        del parent[last]
    else:
        parent[last] = data.draw(_JUNK, label="junk")
    with contextlib.suppress(LabError):
        Lab.load(checkpoint.pack(root)).document()


def test_afresh_the_structure_comes_back_and_its_guests_start(saved: bytes) -> None:
    lab, again = _everything(), Lab.load(as_older(saved), afresh=True)
    structure = ("hosts", "guests", "images", "costs")
    assert {part: again.document()[part] for part in structure} == {part: lab.document()[part] for part in structure}
    assert again.position == 0
    with pytest.raises(LabError, match="nothing to undo"):
        again.apply(LabUndo())
    lab.apply(LabReset())
    for each in (lab, again):
        each.apply(LabSpeed("max"))
        each.run(20_000)
    first = guests_of(lab)[0]
    assert registers(again, first) == registers(lab, first)
    assert console(again, first) == console(lab, first)
    [mine] = [row["id"] for row in again.document()["images"] if row["name"] == "mine.elf"]
    again.apply(GuestCreate(again.document()["hosts"][0]["id"], mine))
    assert Lab.load(again.save()).document() == again.document()


def test_a_kept_snapshot_of_an_older_version_stays_and_starts_nothing() -> None:
    lab = lab_of(["run=demo"])
    run_to(lab, 5_000)
    image = lab.apply(SnapshotTake(guests_of(lab)[0]))["image"]
    root = checkpoint.unpack(lab.save())
    [content] = root["images"].values()
    header = bytearray(content[:56])
    header[8] -= 1
    root["images"] = {image: bytes(header) + hashlib.blake2b(header, digest_size=32).digest() + content[88:]}
    again = Lab.load(checkpoint.pack(root))
    assert again.document()["images"] == lab.document()["images"]
    with pytest.raises(LabError) as caught:
        again.apply(GuestCreate(again.document()["hosts"][0]["id"], image))
    assert caught.value.problem.key == "snapshot-format"
