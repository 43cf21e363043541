"""Every static check passes: linters, types, the direction of imports, the JavaScript's types."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.checks import CHECKS, ROOT


@pytest.mark.parametrize("name", CHECKS)
def test_check(name: str) -> None:
    done = subprocess.run(CHECKS[name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"make check-{name} fails:\n{done.stdout}{done.stderr}"
