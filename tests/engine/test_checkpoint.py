"""The container of checkpoints: what goes in comes out, and nothing but LabError comes of anything else."""

from __future__ import annotations

import hashlib
import struct

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from engine import checkpoint
from engine.commands import LabError

_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=20), st.binary(max_size=600)
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 2**32), inner, max_size=4)
    ),
    max_leaves=20,
)


def _sealed(plain: bytes) -> bytes:
    body = zstandard.compress(plain)
    return struct.pack("<8sI32s", b"RINGSIDE", checkpoint.VERSION, hashlib.sha256(body).digest()) + body


@given(_TREES)
def test_round_trip(tree: object) -> None:
    assert checkpoint.unpack(checkpoint.pack(tree)) == tree


def test_pages_are_kept_once_and_come_back_shared() -> None:
    page = bytes(range(256)) * 16
    content = checkpoint.pack({"a": [page, bytes(bytearray(page))], "b": (page, page)})
    assert len(content) < len(page)
    back = checkpoint.unpack(content)
    pages = [*back["a"], *back["b"]]
    assert pages == [page] * 4
    assert len({id(item) for item in pages}) == 1


@given(st.data())
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    content = bytearray(checkpoint.pack({"registers": list(range(32)), "page": bytes(4096)}))
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LabError) as caught:
        checkpoint.unpack(bytes(content))
    of_version = {"checkpoint-newer", "checkpoint-older"}
    assert caught.value.problem.key in (of_version if 8 <= bit // 8 < 12 else {"checkpoint-damaged"})


@given(st.data())
def test_truncation_is_found(data: st.DataObject) -> None:
    content = checkpoint.pack({"page": bytes(4096)})
    with pytest.raises(LabError, match="damaged"):
        checkpoint.unpack(content[: data.draw(st.integers(0, len(content) - 1))])


@given(st.binary(max_size=300))
def test_a_correct_digest_does_not_make_sense_of_nonsense(plain: bytes) -> None:
    with pytest.raises(LabError, match="damaged"):
        checkpoint.unpack(_sealed(plain))


@pytest.mark.parametrize(
    "plain",
    [
        msgspec.msgpack.encode({"pool": [], "root": msgspec.msgpack.Ext(1, b"\x05\0\0\0")}),
        msgspec.msgpack.encode({"pool": [], "root": msgspec.msgpack.Ext(9, b"")}),
        b"\x82\xa4pool\x90\xa4root" + b"\x91" * 100_000 + b"\xc0",
    ],
    ids=["missing page", "unknown extension", "deep nesting"],
)
def test_hostile_content(plain: bytes) -> None:
    with pytest.raises(LabError, match="damaged"):
        checkpoint.unpack(_sealed(plain))


def test_a_frame_larger_than_the_limit_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    content = checkpoint.pack({"text": "x" * 5000})
    monkeypatch.setattr(checkpoint, "LIMIT_BYTES", 4000)
    with pytest.raises(LabError, match="impossible size"):
        checkpoint.unpack(content)


@pytest.mark.parametrize(("by", "key"), [(1, "checkpoint-newer"), (-1, "checkpoint-older")])
def test_another_format_says_so(by: int, key: str) -> None:
    content = bytearray(checkpoint.pack({"page": bytes(4096)}))
    content[8] += by
    with pytest.raises(LabError) as caught:
        checkpoint.unpack(bytes(content))
    assert caught.value.problem.key == key
    assert caught.value.problem.params == {"version": checkpoint.VERSION + by, "supported": checkpoint.VERSION}


def test_an_older_one_is_read_when_asked_for() -> None:
    content = bytearray(checkpoint.pack({"page": bytes(4096)}))
    content[8] -= 1
    assert checkpoint.unpack(bytes(content), older=True) == {"page": bytes(4096)}
