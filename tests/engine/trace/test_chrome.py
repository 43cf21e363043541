"""Traces for viewers: they keep to the published format, and say what the records say."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from engine.commands import LabError, LabSeek, LabStepBack, StretchQuery
from engine.lab import Lab
from engine.trace.chrome import ChromeSink, Names, to_chrome
from engine.trace.record import RECORD, Action, Level
from engine.trace.rings import Records, Trace
from tests.engine.trace.test_export import _record
from tests.support.labs import guests_of, lab_of, type_line

SCHEMA = json.loads(Path(__file__).with_name("trace_event_format.schema.json").read_text())


def _valid(text: str) -> list[dict[str, Any]]:
    """The events of a file that keeps to the format."""
    content = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    events: list[dict[str, Any]] = content["traceEvents"]
    return events


def _events(records: Records) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads("".join(to_chrome(records.tobytes())))["traceEvents"]
    return events


def _stretch(lab: Lab, begin: int, end: int, guest: int | None = None) -> Records:
    return np.frombuffer(lab.query(StretchQuery(begin, end, guest))["records"], RECORD)


@pytest.fixture(scope="module")
def lab() -> Lab:
    """Two guests that take turns on a host, and one alone on another."""
    made = lab_of(["run=work switch 30", "run=work syscall 200"], [""])
    made.run(150_000)
    type_line(made, guests_of(made)[2], "work pagefault 5")
    for _ in range(3):
        made.run(50_000)
    return made


def test_the_schema_refuses_what_is_wrong() -> None:
    good = {"name": "a", "ph": "X", "ts": 1, "dur": 2, "pid": 1, "tid": 1}
    check = jsonschema.Draft202012Validator(SCHEMA)
    assert check.is_valid({"traceEvents": [good]})
    for change in ({"ph": "Q"}, {"dur": -1}, {"ts": "1"}, {"pid": None}, {"s": "t"}, {"id": 3}, {"ph": "i"}):
        assert not check.is_valid({"traceEvents": [good | change]}), change


def test_a_lab_keeps_to_the_format_and_tells_its_records(lab: Lab) -> None:
    records = _stretch(lab, 0, 100_000)
    assert len(records) > 300
    events = _valid("".join(to_chrome(records.tobytes(), Names({1: "host-1"}, {2: "vm-1"}))))
    told = [event["args"] for event in events if "sequence" in event.get("args", {})]
    # An instant ("i") is an exit that crossed nothing: whether there is one hangs on when the timers come.
    assert {event["ph"] for event in events} - {"i"} == set("XCsfM")
    assert [(args["guest"], args["sequence"]) for args in told] == [
        (int(record["guest"]), int(record["sequence"])) for record in records
    ]
    names = {(event["pid"], event.get("tid")): event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names[1, None] == "host-1"
    assert names[1, 2 << 8] == "vm-1 · vCPU 0"
    assert names[5, None] == "host 5" if (5, None) in names else True
    assert len([key for key in names if key[1] is not None]) == 3


def _slices(events: list[dict[str, Any]]) -> list[tuple[float, float, dict[str, Any]]]:
    """(begin, end, event) of the slices of one vCPU, each ended before the next begins."""
    slices = [(event["ts"], event["ts"] + event["dur"], event) for event in events if event["ph"] == "X"]
    assert all(begin < end for begin, end, _ in slices)
    assert all(end <= begin for (_, end, _), (begin, _, _) in pairwise(slices))
    return slices


def test_slices_of_a_vcpu_follow_one_another_and_cover_its_instructions(lab: Lab) -> None:
    guest = guests_of(lab)[0]
    records = _stretch(lab, 0, 200_000, guest)
    slices = _slices(_events(records))
    ran = [event for _, _, event in slices if event["name"] in ("user", "kernel deprivileged")]
    assert sum(event["args"]["instructions"] for event in ran) >= int(records["executed"][1:].sum()) * 0.9
    handled = [slice_ for slice_ in slices if "sequence" in slice_[2]["args"]]
    assert {event["name"].split(":")[0] for _, _, event in handled} == {
        "hypervisor",
        "hypervisor > device model > hypervisor",
    }
    for begin, end, event in handled:
        assert round(begin * 1000) == event["args"]["time_ns"]
        assert round(end * 1000) == event["args"]["time_ns"] + event["args"]["cost_cycles"]


def test_flows_lead_from_who_was_preempted_to_who_ran_next(lab: Lab) -> None:
    records = _stretch(lab, 0, 250_000)
    events = _events(records)
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert len(starts) == int((records["action"] == Action.PREEMPT).sum()) > 3
    assert len(ends) >= len(starts) - 1
    for flow, end in ends.items():
        assert end["ts"] >= starts[flow]["ts"]
        assert end["tid"] != starts[flow]["tid"]


def test_counters_count_every_trap(lab: Lab) -> None:
    records = _stretch(lab, 0, lab.position)
    events = _events(records)
    last: dict[str, dict[str, int]] = {event["name"]: event["args"] for event in events if event["ph"] == "C"}
    assert sum(sum(counts.values()) for counts in last.values()) == len(records)


def test_a_stretch_is_the_same_however_it_is_had(lab: Lab) -> None:
    whole = _stretch(lab, 0, lab.position)
    middle = _stretch(lab, 100_000, 160_000)
    inside = whole[(whole["position"] >= 100_000) & (whole["position"] < 160_000)]
    assert middle.tobytes() == inside.tobytes()
    copy = Lab.load(lab.save())
    assert _stretch(copy, 100_000, 160_000).tobytes() == middle.tobytes()
    copy.apply(LabSeek(50_000))
    assert _stretch(copy, 100_000, 160_000).tobytes() == middle.tobytes()
    copy.apply(LabStepBack())
    assert _stretch(copy, 0, 2**63 - 1).tobytes() == whole.tobytes()
    assert len(_stretch(lab, 160_000, 100_000)) == 0


def test_a_stretch_that_is_too_full_or_too_long_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.queries.MAX_STRETCH_RECORDS", 100)
    with pytest.raises(LabError, match="more than 100 traps"):
        lab.query(StretchQuery(0, lab.position))
    assert 0 < len(_stretch(lab, 0, 3_000)) <= 100
    monkeypatch.setattr("engine.queries.MAX_STRETCH_STEPS", 1_000)
    with pytest.raises(LabError, match="choose a shorter one"):
        lab.query(StretchQuery(0, lab.position))


def test_the_sink_writes_a_whole_file_and_an_empty_one_is_valid() -> None:
    stream = io.StringIO()
    sink = ChromeSink(stream)
    trace = Trace(sink=sink)
    for time, action in ((1000, Action.WFI), (9000, Action.CSR_READ), (12000, Action.KILL), (15000, Action.CSR_READ)):
        _record(trace, time=time, cost=600, action=action, a=0)
    sink.close()
    events = _valid(stream.getvalue())
    between = [(event["name"], begin, end) for begin, end, event in _slices(events) if "sequence" not in event["args"]]
    assert between == [
        ("waits for an interrupt", 1.6, pytest.approx(9.0)),
        ("kernel deprivileged", 9.6, pytest.approx(12.0)),
    ]
    assert stream.getvalue() == "".join(to_chrome(trace.latest(10).tobytes()))
    assert _valid("".join(to_chrome(b""))) == []


def test_every_level_and_action_keeps_to_the_format() -> None:
    trace = Trace()
    for action in Action:
        for level in Level:
            _record(trace, action=action, to_level=level, a=0, cost=0 if level % 2 else 5, time=trace.written * 100)
    _valid("".join(to_chrome(trace.latest(1000).tobytes())))
