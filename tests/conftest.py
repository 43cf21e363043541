"""What all tests share: property tests that give the same answer every time, a data folder of their own, and one
folder of compiled code for all of them, so that they pay for it once.

Invariants: no test reads or writes the developer's own labs; none fails because the machine was slow
(hypothesis has no deadline); a failing random input is found again on every run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from engine.machine.native import objects
from tests.support.checks import ROOT

os.environ["RINGSIDE_CACHE"] = str(ROOT / ".pytest_cache" / "objects")
objects.keep_in(objects.folder_in(os.environ))

settings.register_profile("ringside", deadline=None, derandomize=True, database=None)
settings.load_profile("ringside")


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in $RINGSIDE_DATA, for this test and every process it starts."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("RINGSIDE_DATA", str(folder))
    return folder
