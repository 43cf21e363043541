"""What paravirtualization costs in the source: the files of a changed kernel beside those that they stand in for.

Both kernels are built from one folder of sources; what differs lies in two folders below it, file by file under the
same names (`engine/guests/ringos/native` and `pv`). So this compares those two and nothing else.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import cache
from typing import NamedTuple

from engine.guests import Guest, guest, guests, source_files, source_text

#: A line on either side: its number from 1 and its text.
Line = tuple[int, str]
#: Kind ("same", "changed", "removed", "added"), the original's line and the changed kernel's; None: there is none.
Row = tuple[str, Line | None, Line | None]


class FileDifference(NamedTuple):
    """One file: its paths on both sides, None where there is none."""

    name: str
    original: str | None
    changed: str | None
    rows: list[Row]


class Difference(NamedTuple):
    """`files`: those that both have come first, and among them the interface. Lines: `shared` in files that both
    kernels compile, `removed` of the original's own, `added` of the changed kernel's own, `kept` that both have in
    the files compared."""

    guest: str
    original: str
    files: list[FileDifference]
    shared: int
    kept: int
    removed: int
    added: int


@cache
def difference(name: str) -> Difference:
    """The changed kernel of this name beside its original. Raises KeyError if there is no such guest, or if it is
    nobody's changed form."""
    row = guest(name)
    if row.original is None:
        raise KeyError(name)
    original = guest(row.original)
    before, after = _own(original), _own(row)
    names = sorted(before.keys() | after.keys(), key=lambda file: (file not in before, not file.endswith(".h"), file))
    files = [FileDifference(file, before.get(file), after.get(file), _rows(name, before, after, file)) for file in names]
    kinds = [kind for file in files for kind, _, _ in file.rows]
    shared = [
        path for path in source_files(name)
        if path.endswith((".c", ".h", ".S")) and not path.startswith(("user/", *_folders()))
    ]  # fmt: skip
    return Difference(
        name,
        original.name,
        files,
        sum(len(source_text(name, path).splitlines()) for path in shared),
        kinds.count("same"),
        kinds.count("changed") + kinds.count("removed"),
        kinds.count("changed") + kinds.count("added"),
    )


def _folders() -> tuple[str, ...]:
    """Those of every kernel that has a folder of its own."""
    return tuple(f"{row.machine}/" for row in guests() if row.machine)


def _own(row: Guest) -> dict[str, str]:
    """The files that only this kernel is built from: path by name."""
    prefix = f"{row.machine}/"
    return {path.removeprefix(prefix): path for path in source_files(row.name) if path.startswith(prefix)}


def _rows(name: str, before: dict[str, str], after: dict[str, str], file: str) -> list[Row]:
    left, right = (source_text(name, paths[file]).splitlines() if file in paths else [] for paths in (before, after))
    rows: list[Row] = []
    for tag, a, a_end, b, b_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for step in range(max(a_end - a, b_end - b)):
            old = (a + step + 1, left[a + step]) if a + step < a_end else None
            new = (b + step + 1, right[b + step]) if b + step < b_end else None
            kind = "same" if tag == "equal" else "added" if old is None else "removed" if new is None else "changed"
            rows.append((kind, old, new))
    return rows
