"""The trace for people and scripts: one JSON object a record, names instead of numbers, one line each.

Addresses, encodings and operands are hexadecimal texts, because JSON readers lose the low bits of 64-bit
numbers. What the operands `a` and `b` mean follows from the action (`engine.trace.record.Action`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from engine.trace.record import FAILURES, PATHS, Action, Disposition, Kind, Level, cause_name
from engine.trace.rings import LAYOUT

_NAMES: dict[str, list[str]] = {
    "kind": [kind.name.lower() for kind in Kind],
    "disposition": [disposition.name.lower() for disposition in Disposition],
    "action": [action.name.lower() for action in Action],
    "level": [level.name.lower() for level in Level],
}


def to_object(record: bytes) -> dict[str, Any]:
    """One raw record as a JSON object."""
    (
        sequence, time, position, pc, value, a, b, executed, cost, instruction, host, guest,
        vcpu, kind, cause, path, disposition, action, from_level, to_level,
    ) = LAYOUT.unpack(record)  # fmt: skip
    found: dict[str, Any] = {
        "sequence": sequence,
        "time_ns": time,
        "position": position,
        "host": host,
        "guest": guest,
        "vcpu": vcpu,
        "kind": _NAMES["kind"][kind],
        "cause": cause_name(cause),
        "pc": f"{pc:#x}",
        "value": f"{value:#x}",
        "instruction": f"{instruction:#010x}" if instruction else None,
        "from": _NAMES["level"][from_level],
        "to": _NAMES["level"][to_level],
        "path": [_NAMES["level"][level] for level in PATHS[path]],
        "disposition": _NAMES["disposition"][disposition],
        "action": _NAMES["action"][action],
        "a": f"{a:#x}",
        "b": f"{b:#x}",
        "executed": executed,
        "cost_cycles": cost,
    }
    if action == Action.KILL:
        found["failure"] = FAILURES[a]
    return found


def to_lines(records: bytes) -> Iterator[str]:
    """Raw records as JSON texts, each ended by a newline."""
    for at in range(0, len(records), LAYOUT.size):
        yield json.dumps(to_object(records[at : at + LAYOUT.size]), separators=(",", ":")) + "\n"


class JsonLinesSink:
    """A `Trace.sink` that writes every record to a text stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, record: bytes) -> None:
        self._stream.writelines(to_lines(record))
