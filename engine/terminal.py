"""What every command at a terminal asks of what a person types: names of files, and text that a guest may get.

Invariant: what cannot be used is said before anything runs, as argparse does (ArgumentTypeError) or as OSError with the
file's name, which commands report in a sentence.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

#: No machine here has more memory than that, and a device that never ends has no size.
MAX_FILE_BYTES = 1 << 30
_CHUNK = 1 << 20


def file_name(text: str) -> str:
    """For `add_argument(type=...)`: a file's name. Raises ArgumentTypeError when it is empty."""
    if not text:
        raise argparse.ArgumentTypeError("a file's name is missing")
    return text


def plain_text(text: str) -> str:
    """For `add_argument(type=...)`: text that is Unicode. Raises ArgumentTypeError."""
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError("it is not UTF-8 text")
    return text


def read_file(path: str) -> bytes:
    """All of a file, `-` being standard input. Raises OSError, also when it is larger than MAX_FILE_BYTES."""
    if path == "-":
        return _read(sys.stdin.buffer, "standard input")
    with Path(path).open("rb") as file:
        about = os.fstat(file.fileno())
        return file.read() if stat.S_ISREG(about.st_mode) and about.st_size <= MAX_FILE_BYTES else _read(file, path)


def _read(file: BinaryIO, name: str) -> bytes:
    chunks, left = [], MAX_FILE_BYTES
    while chunk := file.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise OSError(errno.EFBIG, f"It has more than {MAX_FILE_BYTES >> 20} MiB", name)
        chunks.append(chunk)
    return b"".join(chunks)


def check_writable(path: str) -> None:
    """Nobody waits for a result that has no place. Raises OSError when a file of that name could not be written."""
    new = not os.path.lexists(path)
    with Path(path).open("ab"):
        pass
    if new:
        Path(path).unlink()
