"""An archive as Linux unpacks it into its first file system: cpio, the "newc" format.

Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Each member is a header of 110 ASCII
characters, its name and its content, both padded to 4 bytes. Times and owners are 0, so that the same members
give the same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class Member(NamedTuple):
    """`mode` with its file type (stat.S_IFREG and so on); a symbolic link's content is its target; `device`
    is (major, minor) of a device node.
    """

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str) -> Member:
    return Member(name, stat.S_IFDIR | 0o755)


def file(name: str, content: bytes, *, executable: bool = False) -> Member:
    return Member(name, stat.S_IFREG | (0o755 if executable else 0o644), content)


def link(name: str, target: str) -> Member:
    return Member(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int) -> Member:
    return Member(name, stat.S_IFCHR | 0o600, device=(major, minor))


def pack(members: Iterable[Member]) -> bytes:
    """The archive of `members`, in their order; folders must come before what is in them."""
    parts: list[bytes] = []
    for number, member in enumerate(members, 1):
        parts += _entry(number, member)
    parts += _entry(0, Member(_TRAILER, 0))
    return b"".join(parts)


def _entry(number: int, member: Member) -> Iterable[bytes]:
    name = member.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (number, member.mode, 0, 0, links, 0, len(member.content), 0, 0, *member.device, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % field for field in fields) + name
    yield header + bytes(-len(header) % 4)
    yield member.content + bytes(-len(member.content) % 4)
