"""A lab as bytes: the container of a checkpoint, complete, compact and safe to read from anybody.

    magic (8) | version (u32 LE) | sha256 of what follows (32) | zstandard frame of msgpack {"pool", "root"}

`root` is any tree of maps, lists, numbers, strings and bytes. A byte string of `POOLED` bytes or more is kept
once in `pool`, however often it occurs (pages shared by several snapshots, images shared by guests), and
comes back as one shared object. The digest finds damage (a flipped bit, a truncated file); it does not prove
who wrote the file, so whoever interprets `root` still validates it.

Invariants: `pack` is a function of its argument alone (same tree, same bytes); `unpack` raises nothing but
LabError, and never allocates more than `LIMIT_BYTES` for a frame, whatever it claims.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import zstandard

from engine.commands import LabError

MAGIC = b"RINGSIDE"
#: Of what is saved of machines, here and in engine.snapshot. It is raised when that changes: a machine goes on exactly
#: from where it was, or not at all.
VERSION = 2
POOLED = 256
LIMIT_BYTES = 1 << 30

_HEADER = struct.Struct("<8sI32s")
_POOL_REFERENCE = 1
_LEVEL = 1


def pooled(root: Any) -> tuple[bytes, list[bytes]]:
    """`root` as MessagePack in which every byte string of `POOLED` bytes or more is a reference into the list
    beside it, which has each content once, in the order of first use."""
    pool: dict[bytes, int] = {}
    known: dict[int, msgspec.msgpack.Ext] = {}

    def referred(value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            return {key: referred(item) for key, item in value.items()}
        if kind is list or kind is tuple:
            return [referred(item) for item in value]
        if kind in (bytes, bytearray) and len(value) >= POOLED:
            reference = known.get(id(value))
            if reference is None:
                index = pool.setdefault(bytes(value), len(pool))
                reference = msgspec.msgpack.Ext(_POOL_REFERENCE, index.to_bytes(4, "little"))
                known[id(value)] = reference
            return reference
        return value

    return msgspec.msgpack.encode(referred(root)), list(pool)


def resolved(tree: bytes | msgspec.Raw, pool: Sequence[bytes]) -> Any:
    """What `pooled` was given; tuples come back as lists. Raises one of `NONSENSE`."""

    def resolve(code: int, data: memoryview) -> bytes:
        if code != _POOL_REFERENCE:
            raise ValueError(f"it uses the unknown extension {code}")
        return pool[int.from_bytes(data, "little")]

    return msgspec.msgpack.decode(tree, ext_hook=resolve)


def pack(root: Any) -> bytes:
    """`root` (maps, lists, tuples, numbers, strings, bytes, None, booleans) as a checkpoint."""
    tree, pool = pooled(root)
    plain = msgspec.msgpack.encode({"pool": pool, "root": msgspec.Raw(tree)})
    body = zstandard.ZstdCompressor(level=_LEVEL).compress(plain)
    return _HEADER.pack(MAGIC, VERSION, hashlib.sha256(body).digest()) + body


def unpack(content: bytes, older: bool = False) -> Any:
    """The tree of `pack`; tuples come back as lists. older: also one of an older version, in which machines are saved in
    another way. Raises LabError "checkpoint-damaged", "checkpoint-newer" or "checkpoint-older"."""
    if len(content) < _HEADER.size:
        raise damaged(f"it has {len(content)} bytes, fewer than its header")
    magic, version, digest = _HEADER.unpack_from(content)
    if magic != MAGIC:
        raise damaged("it does not begin as a checkpoint does")
    if version > VERSION:
        raise LabError(
            "checkpoint-newer",
            f"This lab was saved by a newer Ringside (format {version}; this one reads up to {VERSION}).",
            version=version,
            supported=VERSION,
        )
    if version < VERSION and not older:
        raise LabError(
            "checkpoint-older",
            f"This lab was saved by an older Ringside (format {version}; this one goes on from format {VERSION}).",
            version=version,
            supported=VERSION,
        )
    body = content[_HEADER.size :]
    if hashlib.sha256(body).digest() != digest:
        raise damaged("its checksum does not match its content")
    try:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= LIMIT_BYTES:
            raise damaged("it claims an impossible size")
        plain = zstandard.ZstdDecompressor().decompress(body, max_output_size=LIMIT_BYTES)
        outer = msgspec.msgpack.decode(plain, type=_Outer)
        return resolved(outer.root, outer.pool)
    except NONSENSE as error:
        raise damaged(str(error) or type(error).__name__) from error


#: What decoding bytes that were never packed here can lead to.
NONSENSE = (
    zstandard.ZstdError,
    msgspec.MsgspecError,
    IndexError,
    RecursionError,
    TypeError,
    ValueError,
)


def damaged(reason: str) -> LabError:
    """The refusal of a checkpoint that cannot be this lab's."""
    return LabError("checkpoint-damaged", f"The saved state of this lab is damaged: {reason}.", reason=reason)


class _Outer(msgspec.Struct):
    pool: list[bytes]
    root: msgspec.Raw
