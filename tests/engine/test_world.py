"""The parts of a world that no guest is needed for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.world import SCROLLBACK_BYTES, Scrollback


@given(st.lists(st.integers(1, 40_000), max_size=12), st.integers(0, 11))
def test_scrollback_is_the_end_of_what_was_written(sizes: list[int], saved_after: int) -> None:
    written, scrollback = b"", Scrollback()
    for index, size in enumerate(sizes):
        data = bytes([65 + index]) * size
        written += data
        scrollback.append(data)
        if index == saved_after:
            scrollback = Scrollback.load(scrollback.save())
        assert scrollback.content() == written[-SCROLLBACK_BYTES:]


def test_snapshots_share_the_old_part_of_a_scrollback() -> None:
    scrollback = Scrollback()
    scrollback.append(b"a" * 30_000)
    earlier = scrollback.save()
    scrollback.append(b"b" * 10)
    later = scrollback.save()
    assert earlier[0] is later[0]
    assert sum(map(len, later)) == 30_010
