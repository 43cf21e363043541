"""Where a guest stops does not depend on how it is run in between: natively, up to its breakpoints, or one instruction
at a time in the reference tier, which looks before each."""

from __future__ import annotations

import random
from itertools import islice

import msgspec
import pytest

from engine import guests
from engine.debugger import Debugger, Running, Stop
from engine.document import GuestRow, HostRow
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.machine.loader import LoadedImage, inspect
from engine.machine.tiers import Tier
from tests.support.machine import ASSISTED, BARE, PARAVIRTUAL, TRANSLATED, VM

WORK = "run=work switch 2;work pagefault 3;work syscall 3;poweroff"
#: Steps of ringos in which breakpoints are chosen, and how many.
STRETCH, BREAKPOINTS = 70_000, 4
#: A loop that is hot, beside another that changes its own code.
LOOPS = """
_start: li   s0, 3000
1:      addi s1, s1, 3
inside: xor  s2, s2, s1
        addi s0, s0, -1
        bnez s0, 1b
        li   s0, 4
2:      la   t0, patched
        lw   t1, 0(t0)
        li   t2, 1 << 20
        add  t1, t1, t2
        sw   t1, 0(t0)
        fence.i
patched: addi s3, s3, 0
        addi s0, s0, -1
        bnez s0, 2b
        li   t0, 0x100000
        li   t1, 0x5555
        sw   t1, 0(t0)
3:      j    3b
"""


def debugger(image: LoadedImage, on: str, tier: Tier, arguments: str = "") -> Debugger:
    host = HostRow(1, "host", 0.0, 0.0, 1, 64, *msgspec.structs.astuple(Configuration.parse(on)))
    return Debugger.alone(host, GuestRow(1, "guest", 1, "image", 1, 16, arguments), image, lambda _data: None, tier)


def stop(running: Running) -> Stop:
    return next(stopped for stopped in running if stopped is not None)


def seen(it: Debugger, stopped: Stop) -> tuple[object, ...]:
    hart = it.hart(0)
    return stopped.reason, it.world.position, hart.pc, hart.privilege, list(hart.x), it.world.trace.hash()


def kernel(on: str) -> LoadedImage:
    name = "ringos-pv" if on == PARAVIRTUAL else "ringos"
    return inspect(guests.load_image(name), name)


@pytest.mark.parametrize("on", [BARE, VM, ASSISTED, PARAVIRTUAL, TRANSLATED])
def test_breakpoints_are_met_where_the_reference_meets_them(on: str) -> None:
    """Kernel and user code, the same virtual addresses in several processes, forward and back."""
    chance = random.Random(on)
    fast, slow = (debugger(kernel(on), on, tier, WORK) for tier in (Tier.JIT, Tier.REFERENCE))
    addresses = set()
    for position in sorted(chance.sample(range(STRETCH), BREAKPOINTS)):
        slow.history.run(position - slow.world.position)
        addresses.add(slow.hart(0).pc)
    slow.history.seek(0)
    for it in (fast, slow):
        for address in addresses:
            assert it.stop_at(address)
    met = [[seen(it, stop(it.go())) for _ in range(12)] for it in (fast, slow)]
    assert met[0] == met[1]
    assert {reason for reason, *_ in met[0]} == {"breakpoint"}
    back = [[seen(it, stop(it.go_back())) for _ in range(11)] for it in (fast, slow)]
    assert back[0] == back[1] == met[0][-2::-1]
    assert seen(fast, stop(fast.step_back(0)))[1] < met[0][0][1]


def test_a_breakpoint_in_a_loop_that_is_compiled_and_in_code_that_changes() -> None:
    program = assemble(LOOPS, "loops.s")
    image = inspect(program.elf(), "loops")
    inside, patched = (image.symbols.address(name) for name in ("inside", "patched"))
    assert inside is not None
    assert patched is not None
    it = debugger(image, BARE, Tier.JIT)
    while not it.guest.ended:  # so that its regions are there
        it.history.run(100_000)
    it.history.seek(0)
    assert it.stop_at(inside)
    assert [it.hart(0).x[9] for _ in islice(iter(lambda: stop(it.go()), None), 5)] == [3, 6, 9, 12, 15]
    it.breakpoints = {patched}
    found = []
    while stop(it.go()).reason == "breakpoint":
        found.append((it.hart(0).pc, it.hart(0).x[19]))
    assert found == [(patched, value) for value in (0, 1, 3, 6)]
    it.breakpoints = {inside}
    assert stop(it.go_back()).reason == "breakpoint"
    assert it.hart(0).x[9] == 9000


def test_a_stop_that_is_met_more_often_than_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.debugger.MAX_HITS", 7)
    image = inspect(assemble(LOOPS, "loops.s").elf(), "loops")
    inside, patched = (image.symbols.address(name) for name in ("inside", "patched"))
    assert inside is not None
    assert patched is not None
    it = debugger(image, BARE, Tier.JIT)
    assert it.stop_at(patched)
    assert stop(it.go()).reason == "breakpoint"
    it.breakpoints = {inside}
    assert stop(it.go_back()).reason == "breakpoint"
    assert it.hart(0).x[9] == 9000
