"""What the changed kernel's source says beside the original's: nothing of either is lost or moved."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.guests import guests, source_text
from engine.guests.build import ROOT
from engine.guests.difference import difference


def test_both_texts_are_there_line_by_line() -> None:
    found = difference("ringos-pv")
    for name, original, changed, rows in found.files:
        for path, side in ((original, 1), (changed, 2)):
            lines = [row[side] for row in rows if row[side] is not None]
            expected = [] if path is None else source_text("ringos", path).splitlines()
            assert lines == list(enumerate(expected, 1)), name
        for kind, before, after in rows:
            assert kind == (
                "added" if before is None else "removed" if after is None
                else "same" if before[1] == after[1] else "changed"
            )  # fmt: skip


def test_the_figures_are_those_of_diff() -> None:
    """GNU diff finds a shortest difference: ours is never shorter, and hardly longer."""
    found = difference("ringos-pv")
    for name, original, changed, rows in found.files:
        if original is None or changed is None:
            continue
        paths: list[Path] = [ROOT / "ringos" / path for path in (original, changed)]
        lines = subprocess.run(["diff", "-d", *paths], capture_output=True, text=True, check=False).stdout.splitlines()
        shortest = sum(line[0] in "<>" for line in lines)
        ours = sum({"same": 0, "changed": 2, "removed": 1, "added": 1}[kind] for kind, _, _ in rows)
        assert shortest <= ours <= 1.3 * shortest, name


def test_only_changed_kernels_have_one() -> None:
    assert [row.name for row in guests() if row.original] == ["ringos-pv"]
    for name in ("ringos", "hello", "nobody"):
        with pytest.raises(KeyError):
            difference(name)
