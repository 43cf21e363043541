"""The page's pure JavaScript modules, tested by `node --test`: one pytest test for each file of JavaScript tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.checks import ROOT
from tests.support.provide import require

FILES = sorted(path for path in (ROOT / "tests").rglob("*.test.*js"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "tests").as_posix())
def test_javascript(path: Path) -> None:
    done = subprocess.run(
        [require("node"), "--test", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
