"""A lab is a function of its commands: however the running is cut, saved, loaded or travelled, the trace is
the same.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.commands import (
    AnyCommand,
    ConsoleInput,
    GuestPower,
    HostCreate,
    LabError,
    LabSeek,
    LabStep,
    LabStepBack,
    TimelineQuery,
    TraceQuery,
)
from engine.history import MAX_CHECKPOINTS
from engine.lab import Lab
from engine.trace.record import RECORD
from tests.support.labs import console, crowded, guests_of, lab_of, registers, run_to

STEPS = 60_000


def _record(lab: Lab, guest: int | None = None) -> np.void:
    """The latest record."""
    return np.frombuffer(lab.query(TraceQuery(guest, limit=1))["records"], RECORD)[-1]


@pytest.fixture(scope="module")
def straight() -> tuple[str, bytes]:
    """Hash and state of the crowded lab after STEPS steps in one go."""
    lab = crowded()
    run_to(lab, STEPS)
    return lab.trace_hash(), lab.save()


def test_two_runs_are_the_same(straight: tuple[str, bytes]) -> None:
    lab = crowded()
    run_to(lab, STEPS)
    assert (lab.trace_hash(), lab.save()) == straight


def test_paused_and_resumed_a_hundred_times(straight: tuple[str, bytes]) -> None:
    lab, chance = crowded(), random.Random(1)
    stops = sorted(chance.sample(range(1, STEPS), 100))
    for stop in [*stops, STEPS]:
        run_to(lab, stop)
        lab.drain()
        lab.keyframe()
        for guest in guests_of(lab):
            registers(lab, guest)
    assert lab.trace_hash() == straight[0]


@pytest.mark.parametrize(
    ("hosts", "stack", "harts"),
    [
        ([["run=demo", "run=work switch 1000", "run=work syscall 1000"]], "trap-and-emulate", 2),
        ([["run=demo", "run=work switch 1000", "run=work syscall 1000"]], "hardware-assist", 2),
        ([["run=demo", "run=work switch 1000", "run=work syscall 1000"]], "binary-translation", 2),
        ([["run=demo"], ["run=work pagefault 1000"]], "bare-metal", 1),
        ([["run=demo"], ["run=work switch 1000"]], "bare-metal", 2),
    ],
    ids=["three guests on two harts", "hardware assist", "binary translation", "bare metal", "bare metal with two harts"],
)
def test_cut_into_pieces_on_other_hosts(hosts: list[list[str]], stack: str, harts: int) -> None:
    lab, again, chance = (*(lab_of(*hosts, configuration=stack, harts=harts) for _ in range(2)), random.Random(4))
    run_to(lab, STEPS)
    for stop in [*sorted(chance.sample(range(1, STEPS), 40)), STEPS]:
        run_to(again, stop)
        again = Lab.load(again.save()) if stop % 5 == 0 else again
    assert again.trace_hash() == lab.trace_hash()
    assert again.keyframe()["time"] == lab.keyframe()["time"]


def test_paced_by_traps(straight: tuple[str, bytes]) -> None:
    lab = crowded()
    while lab.position < STEPS:
        lab.run(STEPS - lab.position, stop_after_traps=1)
    assert lab.trace_hash() == straight[0]


def test_saved_and_loaded_at_random_positions(straight: tuple[str, bytes]) -> None:
    lab, chance = crowded(), random.Random(2)
    for stop in [*sorted(chance.sample(range(1, STEPS), 6)), STEPS]:
        run_to(lab, stop)
        lab = Lab.load(lab.save())
        assert lab.position == stop
    assert lab.trace_hash() == straight[0]


def test_travelling_changes_nothing(straight: tuple[str, bytes]) -> None:
    """What was seen at a position on the first visit is seen there again, and the end is the same end."""
    lab, chance = crowded(), random.Random(3)
    seen = {}
    for stop in sorted(chance.sample(range(1, STEPS), 12)):
        run_to(lab, stop)
        seen[stop] = (lab.trace_hash(), [registers(lab, guest) for guest in guests_of(lab)])
    run_to(lab, STEPS)
    for stop in chance.sample(sorted(seen), len(seen)):
        assert lab.apply(LabSeek(stop)) == {"position": stop, "reached": True}
        assert (lab.trace_hash(), [registers(lab, guest) for guest in guests_of(lab)]) == seen[stop]
    lab.apply(LabSeek(STEPS))
    assert lab.trace_hash() == straight[0]


def test_inputs_happen_again_when_time_does() -> None:
    lab = lab_of(["run="])
    [guest] = guests_of(lab)
    lab.run(400_000)
    begin = lab.position
    for character in b"help\r":
        lab.apply(ConsoleInput(guest, bytes([character])))
        lab.run(3_000)
    lab.run(100_000)
    end, digest, text = lab.position, lab.trace_hash(), console(lab, guest)
    assert b"help" in text
    lab.apply(LabSeek(begin - 1))
    assert b"help" not in console(lab, guest)
    again = Lab.load(lab.save())
    for back in (lab, again):
        back.run(end - back.position)
        assert (back.position, back.trace_hash(), console(back, guest)) == (end, digest, text)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 70, 73])
def test_a_log_of_commands_is_the_lab(seed: int) -> None:
    """Commands stamped with their positions, given again to a new lab that is run otherwise, make the same
    lab.
    """
    chance = random.Random(seed)
    stack: str = "bare-metal" if seed % 4 == 3 else "trap-and-emulate"
    hosts = [["run=demo"], ["run="]] if seed % 4 == 3 else [["run=demo", "run="], ["run="]]

    def fresh() -> Lab:
        return lab_of(*hosts, configuration=stack, harts=1 + seed % 2)

    lab, log = fresh(), []
    for _ in range(60):
        lab.run(chance.choice([1, 10, 300, 5_000, 40_000]), chance.choice([None, None, 1, 5]))
        guest = chance.choice(guests_of(lab))
        command: AnyCommand = ConsoleInput(
            guest, chance.choice([b"ps\r", b"echo a\r", b"\x03", b"x", b"sleep 1\r"])
        )
        if chance.random() < 0.1:
            command = GuestPower(guest, chance.choice(["off", "on", "reset"]))
        try:
            lab.apply(command)
        except LabError:
            continue
        log.append((lab.position, command))
    lab.run(50_000)
    again = fresh()
    for position, command in log:
        while again.position < position:
            again.run(min(position - again.position, chance.choice([7, 1_000, 100_000])))
        again.apply(command)
    run_to(again, lab.position)
    assert again.trace_hash() == lab.trace_hash()
    assert again.keyframe()["time"] == lab.keyframe()["time"]
    assert [console(again, guest) for guest in guests_of(lab)] == [
        console(lab, guest) for guest in guests_of(lab)
    ]
    begin = lab.keyframe()["history"]["begin"]
    lab.apply(LabSeek(begin + (lab.position - begin) // 3))
    run_to(lab, again.position)
    assert again.trace_hash() == lab.trace_hash()


def test_a_new_input_in_the_past_drops_what_came_after() -> None:
    lab = lab_of(["run="])
    [guest] = guests_of(lab)
    lab.run(400_000)
    middle = lab.position
    lab.apply(ConsoleInput(guest, b"ps\r"))
    lab.run(50_000)
    lab.apply(LabSeek(middle - 10))
    assert lab.keyframe()["history"]["end"] > middle
    lab.apply(ConsoleInput(guest, b"echo new\r"))
    assert lab.keyframe()["history"]["end"] == middle - 10
    lab.run(100_000)
    assert b"echo new" in console(lab, guest)
    assert b"ps" not in console(lab, guest)


def test_power_is_an_input() -> None:
    lab = crowded()
    guest = guests_of(lab)[0]
    run_to(lab, 20_000)
    lab.apply(GuestPower(guest, "off"))
    run_to(lab, 30_000)
    lab.apply(GuestPower(guest, "on"))
    run_to(lab, 40_000)
    digest = lab.trace_hash()
    lab.apply(LabSeek(25_000))
    assert lab.keyframe()["status"][str(guest)]["state"] == 0
    lab.apply(LabSeek(40_000))
    assert lab.trace_hash() == digest


def test_step_goes_just_past_a_trap_and_step_back_just_before_it() -> None:
    lab = crowded()
    run_to(lab, 30_000)
    visited = []
    for _ in range(5):
        assert lab.apply(LabStep())["reached"]
        record = _record(lab)
        assert lab.position == record["position"] + 1
        visited.append((int(record["position"]), lab.trace_hash()))
    for position, _ in reversed(visited):
        assert lab.apply(LabStepBack()) == {"position": position, "reached": True}
    for _, digest in visited:
        lab.apply(LabStep())
        assert lab.trace_hash() == digest


def test_step_back_shows_the_trapping_instruction_about_to_run() -> None:
    lab = lab_of(["run=demo"])
    [guest] = guests_of(lab)
    run_to(lab, 30_000)
    synchronous = 0
    for _ in range(20):
        lab.apply(LabStep())
        record = _record(lab)
        lab.apply(LabStepBack())
        if not record["cause"] & 0x80:
            synchronous += 1
            assert registers(lab, guest)["pc"] == record["pc"]
        lab.apply(LabStep())
    assert synchronous > 5


def test_step_of_one_guest_among_several() -> None:
    lab = crowded()
    run_to(lab, 10_000)
    for guest in guests_of(lab):
        before = lab.query(TraceQuery(guest))["total"][str(guest)]
        assert lab.apply(LabStep(guest=guest))["reached"]
        assert lab.query(TraceQuery(guest))["total"][str(guest)] == before + 1
        assert lab.apply(LabStepBack(guest=guest))["position"] == _record_position(lab, guest)


def _record_position(lab: Lab, guest: int) -> int:
    """Where the guest's next record is written."""
    position = lab.position
    lab.apply(LabStep(guest=guest))
    found = int(_record(lab, guest)["position"])
    lab.apply(LabSeek(position))
    return found


def test_instructions_forth_and_back() -> None:
    lab = crowded()
    run_to(lab, 20_000)
    for guest in guests_of(lab):
        count = lab.keyframe()["status"][str(guest)]["instructions"]
        assert lab.apply(LabStep("instruction", guest))["reached"]
        assert lab.keyframe()["status"][str(guest)]["instructions"] == count + 1
        assert lab.apply(LabStepBack("instruction", guest))["reached"]
        assert lab.keyframe()["status"][str(guest)]["instructions"] == count
    position = lab.position
    assert lab.apply(LabStep("instruction")) == {"position": position + 1, "reached": True}
    assert lab.apply(LabStepBack("instruction")) == {"position": position, "reached": True}


def test_nothing_before_the_begin_and_nothing_after_the_end() -> None:
    lab = lab_of(["run=demo"])
    assert lab.apply(LabStepBack()) == {"position": 0, "reached": False}
    run_to(lab, 5_000)
    lab.apply(HostCreate())
    run_to(lab, 6_000)
    for wrong in (4_999, 6_001):
        with pytest.raises(LabError) as caught:
            lab.apply(LabSeek(wrong))
        assert caught.value.problem.key == "seek-outside-history"
        assert caught.value.problem.params == {"position": wrong, "begin": 5_000, "end": 6_000}
    assert lab.position == 6_000
    lab.apply(LabSeek(5_000))
    assert lab.apply(LabStepBack("instruction"))["reached"] is False


def test_a_long_replay_can_be_given_up_and_reports_how_far_it_is() -> None:
    lab = lab_of(["run=demo"])
    run_to(lab, 90_000)
    told: list[float] = []

    def until_half(fraction: float) -> bool:
        told.append(fraction)
        return fraction < 0.5

    result = lab.apply(LabSeek(80_000), until_half)
    assert result == {"position": lab.position, "reached": False}
    assert told == sorted(told)
    assert 40_000 <= lab.position < 80_000
    assert lab.apply(LabSeek(80_000))["reached"]


def test_checkpoints_stay_few_however_long_it_runs() -> None:
    lab = lab_of(["run=demo"])
    history = lab._history
    for _ in range(3 * MAX_CHECKPOINTS):
        run_to(lab, lab.position + 1_500)
        history._checkpoint()
    assert len(history.checkpoints) == MAX_CHECKPOINTS
    assert history.checkpoints[0].position == 0
    gaps = np.diff([point.position for point in history.checkpoints])
    assert gaps[:5].mean() > gaps[-5:].mean()
    history.memory_bytes = sum(point.own_bytes for point in history.checkpoints) // 2
    history._thin()
    assert 2 <= len(history.checkpoints) < MAX_CHECKPOINTS


def test_the_timeline_still_knows_the_future_after_going_back() -> None:
    lab = crowded()
    run_to(lab, STEPS)
    marks = lab.query(TimelineQuery())["marks"]
    lab.apply(LabSeek(STEPS // 2))
    back = lab.query(TimelineQuery())
    assert (back["position"], back["end"]) == (STEPS // 2, STEPS)
    assert back["marks"] == marks
