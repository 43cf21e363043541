"""A bounded number of the fuzzer's cases."""

from __future__ import annotations

import pytest

from engine.devices.virtio.queue import Chain, Virtqueue
from tests.fuzz import virtio

CASES = 80


def test_no_driver_breaks_a_device() -> None:
    returned = sum(virtio.run(seed) for seed in range(CASES))
    assert returned > 10 * CASES, "the drivers hardly get anything done"


def test_the_fuzzer_finds_a_device_that_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that believes whatever index it reads."""

    def unchecked(self: Virtqueue, _head: int) -> Chain:
        return Chain(self.memory, 0, [], [(self.descriptors + (1 << 20), 600)])

    monkeypatch.setattr(Virtqueue, "waiting", lambda _queue: 1 << 12)
    monkeypatch.setattr(Virtqueue, "_chain", unchecked)
    with pytest.raises(virtio.BrokenError):
        sum(map(virtio.run, range(CASES)))
