"""Chains of what rests on a guest's pages, against sets in a dictionary."""

from __future__ import annotations

import random

import pytest

from engine.hypervisor.chains import Chains
from engine.machine.loader import RAM_BASE

PAGES = range(RAM_BASE >> 12, (RAM_BASE >> 12) + 12)
ROWS = 4_000


@pytest.mark.parametrize("seed", range(4))
def test_chains_against_a_model(seed: int) -> None:
    chance = random.Random(seed)
    chains = Chains(len(PAGES), ROWS)
    model: dict[int, set[tuple[int, int]]] = {page: set() for page in PAGES}
    for _ in range(ROWS):
        page = chance.choice(PAGES)
        action = chance.randrange(40)
        if action == 0:
            chains.forget(page)
            model[page].clear()
        elif action == 1:
            space = chance.randrange(1, 6)
            chains.forget_space(space)
            for rows in model.values():
                rows.difference_update({row for row in rows if row[0] == space})
        elif action == 2 and chance.random() < 0.1:
            chains.clear()
            for rows in model.values():
                rows.clear()
        else:
            row = (chance.randrange(1, 6), chance.choice((0, 1, chance.getrandbits(64))))
            chains.add(page, row)
            model[page].add(row)
        checked = chance.choice(PAGES)
        assert set(chains.of(checked)) == model[checked]
        assert (checked in chains) == bool(model[checked])
        if chance.random() < 0.05:
            assert chains.all() == sorted((page, *row) for page, rows in model.items() for row in rows)
    assert chains.count < ROWS
