"""The worker's loop with a clock of the test's own: pace, fairness, long commands, replay, and labs that
fail.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec import Raw

from engine import wire
from engine.commands import (
    AnyCommand,
    AnyQuery,
    ConsoleInput,
    CostsQuery,
    GuestCreate,
    GuestMigrate,
    HostCreate,
    ImageAssemble,
    LabPause,
    LabRename,
    LabRun,
    LabSpeed,
    LabStep,
    LabStepBack,
    RegistersQuery,
)
from engine.compare import Difference, Measure, Task, Together
from engine.hypervisor.stacks import Configuration
from engine.lab import Lab
from engine.worker import TICK_SECONDS, Pace, Worker
from tests.support.saved import as_older

Message = TypeVar("Message", bound=wire.FromWorker)


class Clock:
    """The monotonic clock, which the test can put forward."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


class Bench:
    """A worker without a process, and everything it said."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.said: list[wire.FromWorker] = []
        self.marks: list[int] = []
        self.worker = Worker(
            lambda content: self.said.append(wire.decode_from_worker(content)), self.clock, self.marks.append
        )
        self._requests = itertools.count(1)

    def ask_to_open(self, lab: str = "one", **fields: Any) -> None:
        values: dict[str, Any] = {
            "slot": 1, "origin": "new", "name": lab, "checkpoint": None, "revision": 0, "log": [], "tick": 0,
            "quarantined": False, "afresh": False, "limits": {},
        }  # fmt: skip
        self.worker.receive(wire.Open(lab=lab, **{**values, **fields}))

    def open(self, lab: str = "one", **fields: Any) -> wire.Opened:
        self.ask_to_open(lab, **fields)
        return self.until(wire.Opened)

    def turn(self, seconds: float = 0.0) -> float:
        self.clock.skipped += seconds
        return self.worker.turn()

    def until(
        self, kind: type[Message], holds: Callable[[Message], bool] = lambda _: True, turns: int = 2000
    ) -> Message:
        for _ in range(turns):
            for index, message in enumerate(self.said):
                if isinstance(message, kind) and holds(message):
                    del self.said[: index + 1]
                    return message
            self.turn(0.01)
        raise AssertionError(f"no {kind.__name__} came")

    def do(self, command: AnyCommand, lab: str = "one") -> int:
        """Send a command; its request."""
        request = next(self._requests)
        self.worker.receive(wire.Do(lab, request, Raw(wire.encode(command))))
        return request

    def done(self, command: AnyCommand, lab: str = "one") -> Any:
        """Carry out a command; its result."""
        request = self.do(command, lab)
        return msgspec.msgpack.decode(
            self.until(wire.Done, lambda message: message.request == request).result
        )

    def ask(self, query: AnyQuery, lab: str = "one") -> int:
        request = next(self._requests)
        self.worker.receive(wire.Ask(lab, request, Raw(wire.encode(query))))
        return request

    def lab(self, lab: str = "one") -> Lab:
        return self.worker._seats[lab].ready

    def guest(self, lab: str = "one", image: str = "ringos") -> int:
        host = self.done(HostCreate(), lab)["host"]
        guest: int = self.done(GuestCreate(host, image), lab)["guest"]
        return guest


@pytest.fixture
def bench() -> Bench:
    return Bench()


#: Nothing that would trap, for ever.
SPIN = ".globl _start\n_start:\n  addi x5, x5, 1\n  j _start\n"


# -- pace ------------------------------------------------------------------------------------------------
def test_at_a_slow_speed_one_unit_is_due_each_interval() -> None:
    pace = Pace("5", "trap", 0.0)
    assert pace.budget(1000, 0.0) == (1000, 1)
    pace.ran(1000, 0, 1000, 0.01)
    assert pace.budget(1000, 0.02) == (1000, 1), "no trap yet: go on"
    pace.ran(10, 1, 10, 0.03)
    assert pace.budget(1000, 0.1) == (0, None)
    assert pace.budget(1000, 0.21) == (1000, 1)


def test_time_that_was_missed_is_not_caught_up() -> None:
    pace = Pace("10", "instruction", 0.0)
    assert pace.budget(1000, 50.0) == (1, None)
    pace.ran(1, 0, 1, 50.0)
    assert pace.budget(1000, 50.0) == (1, None)
    pace.ran(1, 0, 1, 50.0)
    assert pace.budget(1000, 50.05) == (0, None)


def test_real_time_follows_the_clock_and_gives_up_what_cannot_be_reached() -> None:
    pace = Pace("real", "trap", 0.0)
    assert pace.budget(10**9, 0.001) == (1_000_000, None)
    pace.ran(1_000_000, 0, 1_000_000, 0.002)
    assert pace.budget(10**9, 0.001) == (0, None)
    pace.ran(1, 1, 50_000_000, 0.002)  # an idle skip of 50 ms
    assert pace.budget(10**9, 0.04) == (0, None)
    steps, _ = pace.budget(10**12, 100.0)
    assert steps <= Pace.SLACK_NS


# -- commands --------------------------------------------------------------------------------------------
def test_accepted_commands_are_numbered_and_stamped(bench: Bench) -> None:
    assert bench.open(revision=7).revision == 7
    first = bench.do(HostCreate())
    done = bench.until(wire.Done)
    assert (done.request, done.entry.revision, done.entry.position) == (first, 8, 0)
    assert (
        msgspec.msgpack.decode(done.document)["hosts"][0]["id"] == msgspec.msgpack.decode(done.result)["host"]
    )
    wrong = bench.do(GuestCreate(99, "ringos"))
    refused = bench.until(wire.Refused)
    assert refused.request == wrong
    assert refused.problem.message
    bench.do(LabRename("next"))
    assert bench.until(wire.Done).entry.revision == 9


def test_a_structural_change_is_saved_at_once_and_nothing_twice(bench: Bench) -> None:
    bench.open()
    bench.until(wire.Checkpoint)
    bench.do(HostCreate())
    saved = bench.until(wire.Checkpoint)
    assert saved.revision == 1
    assert Lab.load(saved.content).document() == bench.lab().document()
    for _ in range(50):
        bench.turn(1.0)
    assert not [message for message in bench.said if isinstance(message, wire.Checkpoint)]


def test_a_running_lab_is_saved_about_every_ten_seconds(bench: Bench) -> None:
    bench.open()
    bench.guest()
    bench.done(LabRun())
    bench.turn()
    bench.said.clear()
    for _ in range(250):
        bench.turn(0.1)
    saved = [message for message in bench.said if isinstance(message, wire.Checkpoint)]
    assert 1 <= len(saved) <= 4
    assert saved[-1].position > 0


def test_ticks_are_numbered_on_and_sent_only_when_something_happened(bench: Bench) -> None:
    bench.open(tick=41)
    bench.turn(1)
    assert not [message for message in bench.said if isinstance(message, wire.Tick)]
    bench.guest()
    bench.done(LabRun())
    ticks = [bench.until(wire.Tick) for _ in range(3)]
    assert [tick.tick for tick in ticks] == [42, 43, 44]
    content = msgspec.msgpack.decode(ticks[-1].content)
    assert content["n"] == 44
    assert content["running"]
    bench.done(LabPause())
    bench.turn(1)
    bench.said.clear()
    for _ in range(10):
        bench.turn(1)
    assert not [message for message in bench.said if isinstance(message, wire.Tick)]


def test_a_picture_comes_after_a_tick_with_all_that_was_before(bench: Bench) -> None:
    bench.open()
    bench.done(HostCreate())
    bench.said.clear()
    bench.worker.receive(wire.Show("one", 5))
    tick, picture = bench.said
    assert isinstance(tick, wire.Tick)
    assert isinstance(picture, wire.Picture)
    assert (picture.tick, picture.revision, picture.request) == (tick.tick, 1, 5)


def test_labs_that_run_share_the_worker(bench: Bench) -> None:
    for name in ("one", "two", "three"):
        bench.open(name)
        spinning(bench, name)
        bench.done(LabSpeed("max"), name)
        bench.done(LabRun(), name)
    before = {name: bench.lab(name).position for name in ("one", "two", "three")}
    for _ in range(5):
        assert bench.turn() == 0
    assert all(bench.lab(name).position > before[name] for name in before)


def test_nothing_is_due_while_everything_is_paused(bench: Bench) -> None:
    bench.open()
    bench.guest()
    bench.turn(1)
    bench.turn(1)
    assert bench.turn(TICK_SECONDS) > 0.1


# -- long commands ---------------------------------------------------------------------------------------
def spinning(bench: Bench, lab: str = "one") -> int:
    host = bench.done(HostCreate(stack="bare-metal"), lab)["host"]
    image = bench.done(ImageAssemble("spin", SPIN), lab)["image"]
    guest: int = bench.done(GuestCreate(host, image), lab)["guest"]
    return guest


def test_a_step_that_takes_long_leaves_time_for_others_and_can_be_cancelled(bench: Bench) -> None:
    bench.open()
    guest = spinning(bench)
    bench.open("two")
    step = bench.do(LabStep())
    bench.turn()
    assert bench.done(HostCreate(), "two")["host"]
    query = bench.ask(RegistersQuery(guest))
    bench.turn()
    assert not [message for message in bench.said if isinstance(message, wire.Answer)], "the lab is at work"
    pause = bench.do(LabPause())
    stepped = bench.until(wire.Done)
    assert stepped.request == step
    result = msgspec.msgpack.decode(stepped.result)
    assert not result["reached"]
    assert result["position"] > 0
    assert bench.until(wire.Answer).request == query
    assert bench.until(wire.Done).request == pause


def test_a_cancelled_step_is_replayed_to_where_it_was_cancelled(bench: Bench) -> None:
    bench.open()
    spinning(bench)
    checkpoint = bench.until(wire.Checkpoint, lambda saved: saved.revision == 3)
    bench.do(LabStep())
    bench.turn()
    bench.turn()
    bench.do(LabPause())
    entries = [bench.until(wire.Done).entry for _ in range(2)]
    position = bench.lab().position
    again = Bench()
    again.open(checkpoint=checkpoint.content, revision=checkpoint.revision, log=entries)
    assert again.lab().position == position


def test_progress_is_told_and_ended(bench: Bench) -> None:
    bench.open()
    spinning(bench)
    bench.do(LabStep())
    fractions = []
    while not fractions or fractions[-1] < 1:
        fractions.append(bench.until(wire.Progress).fraction)
        if len(fractions) == 3:
            bench.do(LabPause())
    assert fractions == sorted(fractions)


# -- replay ----------------------------------------------------------------------------------------------
def test_checkpoint_and_log_give_the_same_lab(bench: Bench) -> None:
    bench.open()
    guest = bench.guest()
    checkpoint = bench.until(wire.Checkpoint, lambda saved: saved.revision == 2)
    commands: list[AnyCommand] = [
        LabSpeed("max"),
        LabRun(),
        ConsoleInput(guest, b"echo hello\n"),
        LabPause(),
        LabStep(),
        LabStepBack(),
        LabStep("instruction"),
        LabRun(),
        ConsoleInput(guest, b"ls\n"),
        HostCreate(name="other"),
        LabPause(),
    ]
    entries = []
    for command in commands:
        bench.do(command)
        entries.append(bench.until(wire.Done).entry)
        for _ in range(3):
            bench.turn(0.02)
    again = Bench()
    opened = again.open(checkpoint=checkpoint.content, revision=checkpoint.revision, log=entries)
    assert opened.revision == entries[-1].revision
    assert again.lab().position == bench.lab().position
    assert again.lab().document()["hosts"] == bench.lab().document()["hosts"]
    assert again.lab().trace_hash() == bench.lab().trace_hash()


def test_a_guest_that_migrated_is_where_the_next_document_says(bench: Bench) -> None:
    bench.open()
    guest = bench.guest()
    target = bench.done(HostCreate())["host"]
    bench.done(LabSpeed("max"))
    bench.done(LabRun())
    bench.done(GuestMigrate(guest, target))
    changed = bench.until(wire.Changed)
    [row] = msgspec.msgpack.decode(changed.document)["guests"]
    assert row["host"] == target
    tick = bench.until(wire.Tick, lambda tick: bool(msgspec.msgpack.decode(tick.content)["migrations"]))
    assert msgspec.msgpack.decode(tick.content)["migrations"][-1]["phase"] == "done"


def test_a_quarantined_lab_keeps_its_structure_and_is_paused(bench: Bench) -> None:
    bench.open()
    guest = bench.guest()
    checkpoint = bench.until(wire.Checkpoint, lambda saved: saved.revision == 2)
    entries = []
    for command in (LabSpeed("max"), LabRun(), ConsoleInput(guest, b"x"), HostCreate(name="kept")):
        bench.do(command)
        entries.append(bench.until(wire.Done).entry)
        bench.turn(0.02)
    again = Bench()
    again.open(checkpoint=checkpoint.content, revision=2, log=entries, quarantined=True)
    pause = again.until(wire.Done)
    assert (pause.request, pause.entry.revision) == (None, entries[-1].revision + 1)
    document = again.lab().document()
    assert not document["running"]
    assert "kept" in [host["name"] for host in document["hosts"]]
    assert again.lab().position == checkpoint.position


def test_a_lab_that_is_opened_afresh_is_paused_and_kept_at_once(bench: Bench) -> None:
    bench.open()
    guest = bench.guest()
    bench.done(LabSpeed("max"))
    bench.done(LabRun())
    kept = bench.until(wire.Checkpoint, lambda saved: saved.position > 0)
    created = bench.do(HostCreate(name="kept"))
    entry = bench.until(wire.Done, lambda done: done.request == created).entry
    again = Bench()
    again.ask_to_open(checkpoint=as_older(kept.content), revision=kept.revision, log=[entry], afresh=True)
    fresh = again.until(wire.Checkpoint)
    assert again.until(wire.Opened).revision == entry.revision, "what was kept is kept again before it is open"
    document = again.lab().document()
    assert not document["running"]
    assert "kept" in [host["name"] for host in document["hosts"]]
    assert [row["id"] for row in document["guests"]] == [guest]
    assert (fresh.revision, fresh.position) == (entry.revision, 0)
    assert Lab.load(fresh.content).document()["hosts"] == document["hosts"]


def test_a_damaged_checkpoint_is_refused(bench: Bench) -> None:
    bench.ask_to_open(checkpoint=b"not a checkpoint")
    assert bench.until(wire.OpenFailed).problem.key == "checkpoint-damaged"


# -- what goes wrong -------------------------------------------------------------------------------------
def test_a_defect_costs_one_lab_a_reload_and_the_others_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        bench.open(name)
        bench.guest(name)
        bench.done(LabSpeed("max"), name)
        bench.done(LabRun(), name)
    broken, run = bench.lab("one"), Lab.run

    def explode(lab: Lab, *arguments: Any) -> Any:
        if lab is broken:
            raise ZeroDivisionError("a defect")
        return run(lab, *arguments)

    monkeypatch.setattr(Lab, "run", explode)
    failure = bench.until(wire.Broken)
    assert failure.lab == "one"
    assert f"[{failure.reference}]" in capsys.readouterr().err
    position = bench.lab("two").position
    bench.turn()
    assert bench.lab("two").position > position
    assert bench.do(LabPause(), "one") == bench.until(wire.Refused).request


def test_a_defect_in_a_query_costs_only_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.open()

    def explode(*_: Any) -> Any:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(Lab, "query", explode)
        bench.ask(CostsQuery())
        problem = bench.until(wire.Refused).problem
    assert problem.key == "internal"
    assert "ZeroDivisionError" not in problem.message
    assert str(problem.params["reference"]) in capsys.readouterr().err
    bench.ask(CostsQuery())
    assert bench.until(wire.Answer)


def test_the_marker_names_the_lab_worked_for(bench: Bench) -> None:
    bench.open(slot=3)
    assert 3 in bench.marks
    assert bench.marks[-1] == 0


def test_stopping_saves_every_lab(bench: Bench) -> None:
    for name in ("one", "two"):
        bench.open(name)
        bench.until(wire.Checkpoint)
        bench.do(LabSpeed("max"), name)
    bench.said.clear()
    bench.worker.receive(wire.Stop())
    assert [message.lab for message in bench.said if isinstance(message, wire.Checkpoint)] == ["one", "two"]
    assert isinstance(bench.said[-1], wire.Bye)
    assert bench.worker.stopped


def test_closing_saves_and_lets_go(bench: Bench) -> None:
    bench.open()
    bench.until(wire.Checkpoint)
    bench.do(LabSpeed("max"))
    bench.worker.receive(wire.Close("one"))
    assert bench.until(wire.Checkpoint).revision == 1
    assert bench.until(wire.Closed).lab == "one"
    bench.do(LabPause())
    assert bench.until(wire.Refused).problem.key == "lab-not-open"


def test_a_log_of_former_days_is_replayed(bench: Bench) -> None:
    entry = wire.Entry(1, 0, Raw(msgspec.msgpack.encode({"type": "host.create", "stack": "type1-hardware-assist"})))
    bench.open(log=[entry])
    assert bench.lab().document()["hosts"][0]["technique"] == "hardware-assist"


# -- comparisons ---------------------------------------------------------------------------------------
def a_run(count: int = 20) -> Task:
    return Task(Configuration.parse("trap-and-emulate"), "syscall", count)


def test_a_run_of_a_comparison_is_carried_out_beside_the_labs() -> None:
    bench = Bench()
    bench.open()
    host = bench.done(HostCreate())["host"]
    bench.done(GuestCreate(host, "ringos", arguments="run=spin"))
    bench.done(LabSpeed("max"))
    bench.done(LabRun())
    bench.worker.receive(wire.Compare(7, a_run(2000)))
    bench.until(wire.Tick)
    compared = bench.until(wire.Compared)
    assert compared.number == 7
    assert isinstance(compared.result, Measure)
    assert compared.result.work.exits == 14_000
    bench.until(wire.Tick)


def test_lock_step_is_a_run_too() -> None:
    bench = Bench()
    sides = Configuration.parse("trap-and-emulate"), Configuration.parse("hardware-assist")
    bench.worker.receive(wire.Compare(8, Together(*sides, "syscall", 20)))
    compared = bench.until(wire.Compared)
    assert isinstance(compared.result, Difference)
    assert compared.result.left != compared.result.right


def test_a_run_can_be_given_up() -> None:
    bench = Bench()
    bench.worker.receive(wire.Compare(9, a_run(100_000)))
    bench.turn()
    bench.worker.receive(wire.CompareNoMore(9))
    bench.worker.receive(wire.CompareNoMore(10))
    compared = bench.until(wire.Compared, turns=3)
    assert compared.number == 9
    assert compared.result is None
    assert compared.problem is not None
    assert compared.problem.key == "cancelled"
    assert bench.turn() > 0, "nothing is left to do"


def test_a_defect_in_a_run_costs_only_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench()
    bench.open()
    monkeypatch.setattr("engine.worker.measure", lambda *_: 1 // 0)
    bench.worker.receive(wire.Compare(11, a_run()))
    compared = bench.until(wire.Compared)
    assert compared.problem is not None
    assert compared.problem.key == "internal"
    assert compared.problem.params["reference"] in capsys.readouterr().err
    bench.done(LabRename("still here"))
