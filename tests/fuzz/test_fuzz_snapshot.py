"""A bounded run of the snapshot fuzzer; `python -m tests.fuzz.snapshot` runs longer ones."""

from __future__ import annotations

from tests.fuzz import snapshot


def test_hostile_snapshots_are_refused_or_harmless() -> None:
    outcomes = snapshot.fuzz(400, 8)
    assert sum(outcomes.values()) == 400
    assert {outcome for outcome in outcomes if outcome.startswith("flip")} == {"flip: snapshot-damaged"}
    assert outcomes["reseal: taken"]
    assert outcomes["reseal: snapshot-damaged"]
