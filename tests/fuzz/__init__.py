"""Fuzzers: hostile input against invariants. Each is a command, `python -m tests.fuzz.NAME --count N --seed S`, and
runs a bounded number of inputs as a test.

A case is a function of its seed alone, so that what was found once is found again.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

_Kind = TypeVar("_Kind", bound=Callable[..., object])


def asked(name: str, document: str | None, count: int, seed: int) -> tuple[int, int]:
    """How many cases, and the seed, that the command line of a fuzzer asks for; `count`, `seed`: otherwise."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}", description=document)
    parser.add_argument("--count", type=int, default=count, help=f"cases ({count})")
    parser.add_argument("--seed", type=int, default=seed, help=f"the first seed ({seed})")
    options = parser.parse_args()
    return options.count, options.seed


def outcomes(
    check: Callable[[_Kind, random.Random, str], str], kinds: Sequence[_Kind], stacks: Sequence[str], count: int, seed: int
) -> Counter[str]:
    """How often each kind of input, on some stack, came to what `check` says of it."""
    found: Counter[str] = Counter()
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        stack, kind = chance.choice(stacks), chance.choice(kinds)
        name = kind.__name__
        try:
            outcome = check(kind, chance, stack)
        except BaseException as error:
            error.add_note(f"input {number} of seed {seed}: {name}, {stack}")
            raise
        found[f"{name}: {outcome}"] += 1
    return found


def show(found: Counter[str]) -> None:
    for outcome, times in sorted(found.items()):
        print(f"{times:>8}  {outcome}")
