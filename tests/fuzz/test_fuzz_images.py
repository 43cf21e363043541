"""A bounded run of the fuzzer of files; `python -m tests.fuzz.images` runs longer ones."""

from __future__ import annotations

from tests.fuzz import images


def test_hostile_files_are_refused_or_run_and_can_be_saved() -> None:
    outcomes = images.fuzz(500, 5)
    assert sum(outcomes.values()) == 500
    assert {"elf: elf-truncated", "elf: ended", "disk: disk-format", "linux_image: image-outside-ram"} <= outcomes.keys()
    assert outcomes["flat: ended"]
    assert outcomes["firmware: ended"]
    assert any(outcomes[f"disk: {end}"] for end in ("ended", "runs"))
