"""What a server has kept, changed behind its back."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from engine import checkpoint


def as_older(content: bytes) -> bytes:
    """A checkpoint as the version before wrote it, but for what is in it."""
    return content[:8] + (checkpoint.VERSION - 1).to_bytes(4, "little") + content[12:]


def rewrite(data: Path, lab: str, change: Callable[[bytes], bytes]) -> None:
    """Change the checkpoints of a lab in the data folder of a server that does not run."""
    with closing(sqlite3.connect(data / "ringside.sqlite")) as connection:
        for (digest,) in connection.execute("SELECT digest FROM checkpoints WHERE lab = ?", (lab,)).fetchall():
            content = change((data / "blobs" / digest[:2] / digest).read_bytes())
            changed = hashlib.sha256(content).hexdigest()
            (data / "blobs" / changed[:2]).mkdir(exist_ok=True)
            (data / "blobs" / changed[:2] / changed).write_bytes(content)
            connection.execute("UPDATE checkpoints SET digest = ? WHERE digest = ?", (changed, digest))
        connection.commit()
