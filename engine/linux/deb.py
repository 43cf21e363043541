"""Files out of a Debian package.

deb(5): an `ar` archive (ar(5)) whose member `data.tar.*` holds the files. A package is hostile until proven
otherwise: what is wrong with it is a LabError, no member is larger than `LIMIT_BYTES`, and nothing is written
anywhere.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import zstandard

from engine.commands import LabError

AR_MAGIC = b"!<arch>\n"
#: A file is one part of a package; Debian's largest riscv64 kernel is a tenth of this.
LIMIT_BYTES = 512 << 20
_AR_HEADER_BYTES = 60
_AR_END = b"`\n"


def files(package: bytes, name: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the package's regular files whose path (`usr/bin/busybox`) is `wanted`, in archive
    order.

    Raises LabError "package-damaged" with the package's `name` and what is wrong.
    """
    try:
        with tarfile.open(fileobj=_data(package, name), mode="r|") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if not member.isreg() or not wanted(path):
                    continue
                if member.size > LIMIT_BYTES:
                    raise _damaged(name, f"{path} claims {member.size} bytes")
                content = archive.extractfile(member)
                assert content is not None  # it is a regular file
                yield path, content.read()
    except (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError, zlib.error, EOFError, OSError) as error:
        raise _damaged(name, str(error) or type(error).__name__) from error


def _data(package: bytes, name: str) -> IO[bytes]:
    """The package's data.tar, unpacked as it is read."""
    if not package.startswith(AR_MAGIC):
        raise _damaged(name, "it does not begin as a Debian package does")
    at = len(AR_MAGIC)
    while at + _AR_HEADER_BYTES <= len(package):
        header = package[at : at + _AR_HEADER_BYTES]
        size = header[48:58].strip()
        if header[58:] != _AR_END or not size.isdigit():
            raise _damaged(name, f"no archive member begins at offset {at}")
        at += _AR_HEADER_BYTES
        content = memoryview(package)[at : at + int(size)]
        member = header[:16].strip().removesuffix(b"/")
        if member.startswith(b"data.tar"):
            if len(content) < int(size):
                raise _damaged(name, f"it ends inside {member.decode('latin-1')}")
            return _unpacked(io.BytesIO(content), member.removeprefix(b"data.tar"), name)
        at += int(size) + int(size) % 2
    raise _damaged(name, "it has no data.tar")


def _unpacked(content: IO[bytes], suffix: bytes, name: str) -> IO[bytes]:
    match suffix:
        case b".xz":
            return lzma.open(content)
        case b".zst":
            return zstandard.ZstdDecompressor().stream_reader(content)
        case b"":
            return content
    raise _damaged(name, f"its files are packed as {suffix.decode('latin-1')!r}; .xz and .zst can be read")


def _damaged(name: str, reason: str) -> LabError:
    return LabError(
        "package-damaged",
        f"{name} is no Debian package that can be read: {reason}.",
        name=name,
        reason=reason,
    )
