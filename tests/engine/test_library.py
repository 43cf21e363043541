"""The library of large images: one copy for everybody, found by what it is, checked before it is used."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from engine.commands import GuestCreate, HostCreate, LabError
from engine.lab import Lab
from engine.library import Library, manifests
from engine.machine.loader import Content
from tests.support.apt import KERNEL
from webapp import library as writing
from webapp.library import NewImage

IMAGE = struct.pack("<IIQQQIIQQII", 0x6F, 0, 0x200000, 0x1000, 0, 2, 0, 0, 0x5643534952, 0x05435352, 0)


def _new(**changes: object) -> NewImage:
    fields = {"name": "tiny", "title": "A tiny one", "kernel": IMAGE, "initrd": b"070701", "arguments": "a=b"}
    return NewImage(**{**fields, **changes})  # type: ignore[arg-type]


def _view(content: Content) -> memoryview:
    assert isinstance(content, memoryview)
    return content


def test_what_is_added_can_be_started_without_a_copy(tmp_path: Path) -> None:
    manifest = writing.add(tmp_path, _new())
    library = Library(tmp_path)
    (row,) = library.rows()
    assert (row.id, row.name, row.title, row.kind) == (manifest.identity, "tiny", "A tiny one", "linux")
    assert (row.size, row.default_memory_mib, row.arguments) == (len(IMAGE) + 6, 256, "a=b")
    image = library.loaded(row.id)
    assert image is not None
    assert _view(image.segments[0].data).readonly
    assert bytes(image.segments[0].data) == IMAGE
    assert bytes(_view(image.initrd)) == b"070701"
    assert library.loaded(row.id) is image


def test_the_identity_is_of_what_a_guest_sees(tmp_path: Path) -> None:
    first = writing.add(tmp_path, _new())
    assert writing.add(tmp_path, _new(name="other", title="Another title")).identity == first.identity
    others = [_new(arguments="c"), _new(initrd=b"070702"), _new(initrd=None), _new(memory_mib=128)]
    identities = {writing.add(tmp_path, other).identity for other in others}
    assert len(identities | {first.identity}) == 5


def test_a_disk_is_mapped_and_shared(tmp_path: Path) -> None:
    plain, disk = writing.add(tmp_path, _new()), b"d" * 1000
    manifest = writing.add(tmp_path, _new(name="larger", disk=disk))
    assert manifest.identity != plain.identity
    library = Library(tmp_path)
    image = library.loaded(manifest.identity)
    assert image is not None
    assert image.disk is not None
    assert bytes(_view(image.disk)) == disk
    assert library.row(manifest.identity).size == len(IMAGE) + 6 + 1000  # type: ignore[union-attr]
    assert library.loaded(plain.identity).disk is None  # type: ignore[union-attr]
    writing.remove(tmp_path, "larger")
    assert not (tmp_path / str(manifest.disk)).exists()


def test_a_newer_one_of_the_same_name_is_listed_and_the_older_one_stays(tmp_path: Path) -> None:
    old = writing.add(tmp_path, _new())
    library = Library(tmp_path)
    new = writing.add(tmp_path, _new(arguments="newer"))
    assert library.refresh()
    assert not library.refresh()
    newest = manifests(tmp_path)[-1]
    assert [row.id for row in library.rows()] == [newest.identity]
    assert library.row(old.identity) is not None
    assert library.row(new.identity) is not None


def test_removing_takes_files_that_nobody_else_needs(tmp_path: Path) -> None:
    writing.add(tmp_path, _new())
    writing.add(tmp_path, _new(name="other", initrd=b"070702"))
    assert writing.remove(tmp_path, "tiny") == 1
    assert writing.remove(tmp_path, "tiny") == 0
    (left,) = manifests(tmp_path)
    assert left.name == "other"
    assert {path.name for path in tmp_path.iterdir()} == {f"{left.digest}.json", left.kernel, left.initrd}


def test_a_flipped_bit_is_found_and_named(tmp_path: Path) -> None:
    manifest = writing.add(tmp_path, _new())
    path = tmp_path / manifest.kernel
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.unlink()
    path.write_bytes(damaged)
    with pytest.raises(LabError, match=f"tiny is damaged: its file {manifest.kernel[:12]}… is not what it was"):
        Library(tmp_path).loaded(manifest.identity)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"format":1}', b"\xff"])
def test_what_is_no_manifest_is_no_image(content: bytes, tmp_path: Path) -> None:
    writing.add(tmp_path, _new())
    (tmp_path / f"{'0' * 64}.json").write_bytes(content)
    assert len(Library(tmp_path).rows()) == 1


def test_an_image_without_its_files_is_not_listed(tmp_path: Path) -> None:
    manifest = writing.add(tmp_path, _new())
    (tmp_path / str(manifest.initrd)).unlink()
    assert Library(tmp_path).rows() == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": "../x"}, "library-manifest"),
        ({"name": "Upper"}, "library-manifest"),
        ({"memory_mib": 100_000}, "library-manifest"),
        ({"arguments": "x" * 513}, "library-manifest"),
        ({"kernel": b""}, "image-empty"),
        ({"kernel": b"\x1f\x8b"}, "image-packed"),
        ({"initrd": b""}, "initrd-empty"),
        ({"memory_mib": 3}, "image-too-large"),
        ({"firmware": IMAGE}, "firmware-start"),
        ({"disk": b""}, "disk-empty"),
        ({"disk": b"QFI\xfb"}, "disk-format"),
    ],
)
def test_what_cannot_be_an_image_is_refused_and_leaves_nothing(
    changes: dict[str, object], key: str, tmp_path: Path
) -> None:
    with pytest.raises(LabError) as caught:
        writing.add(tmp_path / "images", _new(**changes))
    assert caught.value.problem.key == key
    assert not (tmp_path / "images").exists()


def _lab_with_hello(library: Library) -> Lab:
    lab = Lab.new("test", library=library)
    host = lab.apply(HostCreate(stack="bare-metal"))["host"]
    (row,) = library.rows()
    lab.apply(GuestCreate(host, row.id))
    return lab


def test_a_lab_runs_it_and_its_checkpoint_does_not_carry_it(tmp_path: Path) -> None:
    writing.add(tmp_path, _new(kernel=KERNEL + bytes(1 << 20), initrd=None, memory_mib=16))
    library = Library(tmp_path)
    lab = _lab_with_hello(library)
    assert [image["name"] for image in lab.document()["images"]] == ["ringos", "ringos-pv", "hello", "tiny"]
    (guest,) = lab.document()["guests"]
    assert (guest["memory_mib"], guest["arguments"]) == (16, "a=b")
    saved = lab.save()
    assert len(saved) < 100_000
    again = Lab.load(saved, library=library)
    for one in (lab, again):
        one.run(10_000)
    assert b"Hello" in lab.keyframe()["console"][0][1]
    assert again.trace_hash() == lab.trace_hash()


def test_a_lab_says_which_guest_lacks_its_image(tmp_path: Path) -> None:
    writing.add(tmp_path, _new(kernel=KERNEL, initrd=None))
    saved = _lab_with_hello(Library(tmp_path)).save()
    with pytest.raises(LabError, match="The guest vm-1 of this lab needs an image") as caught:
        Lab.load(saved)
    assert caught.value.problem.key == "library-lacks"
