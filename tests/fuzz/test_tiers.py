"""The tiers agree on random programs, and the comparison would notice if they did not."""

from __future__ import annotations

import pytest

from engine.machine.native import regions
from tests.fuzz import loops, tiers

COUNT = 16


@pytest.mark.parametrize(("name", "source"), tiers.programs(COUNT, 0), ids=lambda part: part.split("\n")[0])
def test_every_tier_is_the_same_machine(name: str, source: str) -> None:
    assert tiers.check(name, source) is None


def test_a_wrong_budget_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region that forgets to give back the steps of what it left undone."""
    leaving = regions._Writer._leaving
    monkeypatch.setattr(regions._Writer, "_leaving", lambda self, slot, unused: leaving(self, slot, min(unused, 1)))
    assert any(tiers.check(f"loops-{seed}", loops.source(seed)) for seed in range(12))


def test_a_register_that_is_not_written_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    spill = regions._Writer._spill
    monkeypatch.setattr(regions._Writer, "_spill", lambda self, written: spill(self, sorted(written)[1:]))
    assert any(tiers.check(f"loops-{seed}", loops.source(seed)) for seed in range(12))
