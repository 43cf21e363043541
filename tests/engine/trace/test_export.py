"""JSON lines: every number has its name, and no bit is lost on the way through JSON."""

from __future__ import annotations

import io
import json

from engine.trace.export import JsonLinesSink, to_lines
from engine.trace.record import FAILURES, PATHS, Action, Disposition, Kind, Level
from engine.trace.rings import Trace

HIGH = (1 << 64) - 1


def _record(trace: Trace, **fields: int) -> None:
    values = {
        "host": 1, "guest": 2, "vcpu": 0, "kind": Kind.VM_EXIT, "cause": 2, "path": 8,
        "disposition": Disposition.EMULATED, "action": Action.CSR_WRITE,
        "from_level": Level.KERNEL_DEPRIVILEGED, "to_level": Level.KERNEL_DEPRIVILEGED, "time": 4000,
        "position": 40, "pc": 0x80200010, "value": HIGH, "instruction": 0x18029073, "executed": 12,
        "cost": 600, "a": 0x180, "b": HIGH,
    } | fields  # fmt: skip
    trace.record(**values)


def test_a_line_names_everything() -> None:
    trace = Trace()
    _record(trace)
    (line,) = to_lines(trace.latest(1).tobytes())
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "sequence": 1,
        "time_ns": 4000,
        "position": 40,
        "host": 1,
        "guest": 2,
        "vcpu": 0,
        "kind": "vm_exit",
        "cause": "illegal instruction",
        "pc": "0x80200010",
        "value": "0xffffffffffffffff",
        "instruction": "0x18029073",
        "from": "kernel_deprivileged",
        "to": "kernel_deprivileged",
        "path": ["kernel_deprivileged", "hypervisor", "kernel_deprivileged"],
        "disposition": "emulated",
        "action": "csr_write",
        "a": "0x180",
        "b": "0xffffffffffffffff",
        "executed": 12,
        "cost_cycles": 600,
    }


def test_every_name_of_the_vocabulary_comes_out() -> None:
    trace = Trace()
    for path in range(len(PATHS)):
        _record(trace, path=path, a=0)
    for field, members in (("kind", Kind), ("disposition", Disposition), ("action", Action)):
        for member in members:
            _record(trace, **{field: member}, a=0)
    objects = [json.loads(line) for line in to_lines(trace.latest(1000).tobytes())]
    assert {found["kind"] for found in objects} == {kind.name.lower() for kind in Kind}
    assert {found["disposition"] for found in objects} == {one.name.lower() for one in Disposition}
    assert {found["action"] for found in objects} == {action.name.lower() for action in Action}
    assert len({tuple(found["path"]) for found in objects}) == len(PATHS)


def test_a_killed_guest_says_why() -> None:
    trace = Trace()
    for index in range(len(FAILURES)):
        _record(trace, action=Action.KILL, a=index, cause=0x85, instruction=0)
    objects = [json.loads(line) for line in to_lines(trace.latest(100).tobytes())]
    assert [found["failure"] for found in objects] == list(FAILURES)
    assert objects[0]["cause"] == "supervisor timer interrupt"
    assert objects[0]["instruction"] is None


def test_the_sink_writes_as_records_come() -> None:
    stream = io.StringIO()
    trace = Trace(sink=JsonLinesSink(stream))
    for _ in range(3):
        _record(trace)
    assert [json.loads(line)["sequence"] for line in stream.getvalue().splitlines()] == [1, 2, 3]
