"""A bounded number of the fuzzer's labs."""

from __future__ import annotations

import pytest

from engine.world import World
from tests.fuzz import labs


@pytest.mark.parametrize("seed", range(6))
def test_a_lab_is_the_same_however_it_is_cut(seed: int) -> None:
    assert labs.run(seed, 1) == labs.run(seed, 0)


def test_the_fuzzer_finds_frames_that_come_when_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered at the begin of a run instead of at an epoch's end."""
    deliver, begun = World._deliver, World.run

    def run(self: World, steps: int, stop_after_traps: int | None = None) -> object:
        if self.switch.pending:
            deliver(self)
        return begun(self, steps, stop_after_traps)

    monkeypatch.setattr(World, "run", run)
    assert any(labs.run(seed, 1) != labs.run(seed, 0) for seed in range(8))
