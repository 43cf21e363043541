"""Native code as builtins: what they do with arguments that are wrong, and that a procedure compiled for Python to call
does to two harts what it does as plain Python."""

from __future__ import annotations

import ctypes
import random

import pytest

from engine.machine.native.calls import CALLS, IN_PYTHON
from engine.machine.native.runtime import native
from engine.machine.state import HartState

_WORDS = [name for name, kind, *_ in HartState._fields_ if kind is ctypes.c_uint64 and not name.endswith("_at")]
_COMPILED = native(compiles=False).interpreter
#: The procedures of two harts by name, with how many words each takes after the carrier.
PROCEDURES = [(call.name, call.words - 1) for call in CALLS if hasattr(IN_PYTHON, call.name)]


def _state(rng: random.Random) -> HartState:
    """Any words; small ones often, so that comparisons hold now and then."""
    state = HartState()
    for name in _WORDS:
        setattr(state, name, rng.choice((0, 1, 1 << 63, rng.getrandbits(64))))
    for index in range(32):
        state.f_words[index] = rng.getrandbits(64)
    return state


class _Carrier:
    """A virtual hart and its carrier, twice the same."""

    def __init__(self, rng: random.Random) -> None:
        self.pairs = [(_state(random.Random(seed)), _state(random.Random(seed + 1))) for seed in [rng.getrandbits(32)] * 2]

    def all_bytes(self) -> list[bytes]:
        return [bytes(virtual) + bytes(host) for virtual, host in self.pairs]


@pytest.mark.parametrize(("name", "words"), PROCEDURES, ids=[name for name, _ in PROCEDURES])
def test_compiled_as_in_python(name: str, words: int) -> None:
    rng = random.Random(name)
    changed = False
    for _ in range(100):
        carrier = _Carrier(rng)
        (ours, our_host), (theirs, their_host) = carrier.pairs
        before = carrier.all_bytes()[0]
        more = [rng.choice((0, 1, rng.getrandbits(64), ours.satp, ours.stimecmp, our_host.htimedelta)) for _ in range(words)]
        result = getattr(_COMPILED.moves, name)(ctypes.addressof(ours), ctypes.addressof(our_host), *more)
        wanted = getattr(IN_PYTHON, name)(theirs, ctypes.addressof(their_host), *more)
        after, expected = carrier.all_bytes()
        assert after == expected
        assert result == (wanted or 0)
        changed = changed or after != before
    assert changed


def test_every_procedure_is_compared() -> None:
    assert [name for name, _ in PROCEDURES] == sorted(vars(IN_PYTHON), key=[call.name for call in CALLS].index)


def test_arguments_that_are_none() -> None:
    state = ctypes.addressof(HartState())
    for wrong in ((), (state,), (state, 1, 2, 3), (state, 1, "1"), (state, None, 1), (1.5, 1, 1)):
        with pytest.raises(TypeError):
            _COMPILED.translate(*wrong)  # type: ignore[arg-type]


def test_words_are_taken_modulo_what_they_hold() -> None:
    state, host = HartState(reported=7), HartState(steps=3, extra=4, position_base=10)
    _COMPILED.moves.charge(ctypes.addressof(state), ctypes.addressof(host), (1 << 64) - 1)
    assert (state.exit_time, state.exit_position, host.extra) == (7, 12, 3)
    assert state.exit_executed == (1 << 64) - 4
