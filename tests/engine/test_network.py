"""Guests that talk to each other: across hosts and stacks, and the same however the running is cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.commands import (
    ConsoleInput,
    GuestCreate,
    GuestMove,
    GuestPower,
    GuestRemove,
    ImageAssemble,
    LabSeek,
    LabUndo,
)
from engine.hypervisor.guest import IDLE, OFF
from engine.lab import Lab
from tests.support.labs import console, guests_of, host_create

CHATTER = (Path(__file__).parents[1] / "support" / "chatter.s").read_text()
BARE, VM = "bare-metal", "trap-and-emulate"
#: More than the conversation of three guests takes.
STEPS = 300_000
VM_LETTER, OTHER_LETTER, BARE_LETTER = "bB", "cC", "eE"


def _lab(*hosts: tuple[str, int], harts: int = 1) -> Lab:
    """Hosts with so many chattering guests each. Hosts and guests are numbered together, from 1."""
    lab = Lab.new("network")
    image = lab.apply(ImageAssemble("chatter", CHATTER))["image"]
    for stack, guests in hosts:
        host = lab.apply(host_create(stack, harts=harts))["host"]
        for _ in range(guests):
            lab.apply(GuestCreate(host, image, memory_mib=4))
    return lab


def _mixed() -> Lab:
    """Guests 2 and 3 are VMs on one hart, guest 5 has another host for itself."""
    return _lab((VM, 2), (BARE, 1))


def _shown(lab: Lab) -> dict[int, str]:
    return {guest: console(lab, guest).decode() for guest in guests_of(lab)}


@pytest.fixture(scope="module")
def straight() -> tuple[str, dict[int, str]]:
    lab = _mixed()
    assert lab.run(STEPS).idle
    return lab.trace_hash(), _shown(lab)


def test_everybody_hears_everybody(straight: tuple[str, dict[int, str]]) -> None:
    heard = straight[1]
    assert set(heard) == {2, 3, 5}
    for guest, others in ((2, (3, 5)), (3, (2,)), (5, (2, 3))):
        for other in others:
            letter = chr(96 + other)
            assert letter in heard[guest].lower(), f"{guest} heard nothing of {other}"
    # An answer is for the one who asked: nobody gets more of them than there were hellos.
    for guest, text in heard.items():
        for other in heard:
            hellos = heard[other].count(chr(96 + guest))
            assert text.count(chr(64 + other)) == hellos


@pytest.mark.parametrize("seed", range(3))
def test_cut_saved_and_loaded_it_is_the_same_conversation(
    seed: int, straight: tuple[str, dict[int, str]]
) -> None:
    lab, dice = _mixed(), random.Random(seed)
    while True:
        ran = lab.run(dice.choice((1, 100, 5_000, 20_000)), dice.choice((None, None, 1, 3)))
        if not ran.steps:
            break
        if dice.random() < 0.3:
            lab = Lab.load(lab.save())
    assert (lab.trace_hash(), _shown(lab)) == straight


def test_going_back_meets_the_same_frames(straight: tuple[str, dict[int, str]]) -> None:
    lab, dice = _mixed(), random.Random(5)
    seen = {}
    while lab.run(dice.randrange(1, 30_000)).steps:
        seen[lab.position] = (lab.trace_hash(), _shown(lab))
    for position in dice.sample(sorted(seen), len(seen)):
        lab.apply(LabSeek(position))
        assert (lab.trace_hash(), _shown(lab)) == seen[position]


@pytest.mark.parametrize("stop", [41_017, 65_003, 90_001, 120_011])
def test_an_input_with_frames_on_their_way(stop: int) -> None:
    """Typing and switching guests off in the middle: replayed, it is the same."""
    ends = []
    for cuts in ((), (stop - 1,), tuple(range(stop - 40, stop)), (stop + 1, stop + 50)):
        lab = _mixed()
        places = sorted({*cuts, stop, STEPS})
        for place in places:
            if lab.position < place:
                lab.run(place - lab.position)
            if place == stop:
                for command in (ConsoleInput(2, b"x"), GuestPower(3, "off"), GuestPower(5, "reset")):
                    lab.apply(command)
        ends.append((lab.trace_hash(), _shown(lab), lab.position))
    assert all(end == ends[0] for end in ends)
    lab.apply(LabSeek(stop - 5))
    lab.run(STEPS)
    assert lab.trace_hash() == ends[0][0]


def test_with_two_harts_on_every_host() -> None:
    hashes = set()
    for steps in (STEPS, 777):
        lab = _lab((VM, 2), (BARE, 1), (VM, 1), harts=2)
        while lab.run(steps).steps:
            pass
        assert all(len(text) > 3 for text in _shown(lab).values())
        hashes.add(lab.trace_hash())
    assert len(hashes) == 1


def test_a_moved_guest_keeps_its_cable_and_its_address() -> None:
    lab = _lab((VM, 1), (VM, 1), (VM, 0))
    lab.run(40_000)
    lab.apply(GuestMove(2, 5))
    lab.run(STEPS)
    heard = _shown(lab)
    assert "b" in heard[4]
    assert "D" in heard[2]


def test_a_removed_guest_is_not_sent_to_and_one_brought_back_is() -> None:
    lab = _mixed()
    lab.run(60_000)
    lab.apply(GuestRemove(2))
    lab.run(5_000)
    lab.apply(LabUndo())
    before = _shown(lab)
    lab.run(STEPS)
    assert lab.run(1).idle
    assert len(_shown(lab)[2]) > len(before[2])


def test_frames_wake_a_host_that_sleeps_and_guests_that_are_off_get_none() -> None:
    lab = _mixed()
    lab.run(STEPS)
    status = lab.keyframe()["status"]
    assert {status[str(guest)]["state"] for guest in (2, 3, 5)} == {IDLE}
    before = _shown(lab)
    lab.apply(GuestPower(3, "off"))
    lab.apply(GuestPower(5, "reset"))
    assert lab.run(STEPS).idle
    after = _shown(lab)
    assert after[2].removeprefix(before[2]).count("e") == 3
    assert after[5].removeprefix(before[5]).count("B") == 3
    assert after[3] == before[3]
    assert lab.keyframe()["status"]["3"]["state"] == OFF
