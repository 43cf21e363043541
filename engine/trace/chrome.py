"""The trace for trace viewers: Chrome's Trace Event Format, JSON object flavour, which ui.perfetto.dev reads too.

    process   a host                          X     a slice: a level that ran, or a handler that had the guest's hart
    thread    one vCPU of one guest           i     a trap that took no modelled time
    counter   a guest's traps by disposition  s, f  a preemption and who ran next

Time is the host's virtual time in microseconds: nanoseconds are the third decimal. A slice's begin and length never
add up to more than the next one's begin, in floating point either: readers would take that for nesting. Between two
records of a vCPU it was in the level in which the first one resumed; a handler's slice is as long as the cost modelled
for its path. What the operands mean is in `engine.trace.export`, whose object of the record is each handler's `args`.

Source: N. Duca, D. Sinclair, "Trace Event Format" (Google, 2016 and later).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

from engine.trace.export import to_object
from engine.trace.record import Action, Disposition, Level
from engine.trace.rings import LAYOUT

Event = dict[str, Any]
#: A slice's name where the vCPU did not run in its level, by what the record before it did.
_RESTING = {
    Action.WFI: "waits for an interrupt", Action.BLOCK: "waits for an event", Action.PREEMPT: "waits for its turn",
}  # fmt: skip
_ENDING = (Action.KILL, Action.SHUTDOWN)
_VCPUS = 256


class Names(NamedTuple):
    """What people call hosts and guests, by id."""

    hosts: Mapping[int, str] = {}
    guests: Mapping[int, str] = {}


#: Hosts and guests are called by their ids.
NUMBERED = Names()


class _Last(NamedTuple):
    """What the latest record of a vCPU left behind."""

    resumes: int  # ns
    level: int
    action: int


@dataclass
class ChromeTrace:
    """Turns records, in the order in which they were written, into events. One for each file."""

    names: Names = NUMBERED
    _hosts: set[int] = field(default_factory=set)
    _tracks: dict[tuple[int, int], _Last] = field(default_factory=dict)
    _counts: dict[int, dict[str, int]] = field(default_factory=dict)
    _preempted: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # (host, next guest) -> flow ids
    _flows: int = 0

    def events(self, record: bytes) -> Iterator[Event]:
        """The events that one more record makes known."""
        found = to_object(record)
        host, guest, vcpu, time = found["host"], found["guest"], found["vcpu"], found["time_ns"]
        thread = guest * _VCPUS + vcpu
        where: Event = {"pid": host, "tid": thread}
        yield from self._introduce(host, guest, vcpu, thread)
        last = self._tracks.get((host, thread))
        if last is not None and last.action not in _ENDING and time > last.resumes:
            level = Level(last.level).name.lower()
            name = _RESTING.get(Action(last.action), level.replace("_", " "))
            yield _slice(name, level, last.resumes, time, where, {"instructions": found["executed"]})
        for flow in self._preempted.pop((host, guest), ()):
            yield _flow("f", flow, time, where) | {"bp": "e"}
        cost = found["cost_cycles"]
        handler = " > ".join(level.replace("_", " ") for level in found["path"][1:-1]) or found["path"][-1]
        name, category = f"{handler}: {found['action'].replace('_', ' ')}", found["kind"]
        if cost:
            yield _slice(name, category, time, time + cost, where, found)
        else:
            at = {"ts": _microseconds(time), **where}
            yield {"name": name, "cat": category, "ph": "i", "s": "t", **at, "args": found}
        action = Action[found["action"].upper()]
        if action == Action.PREEMPT:
            self._flows += 1
            self._preempted.setdefault((host, int(found["a"], 16)), []).append(self._flows)
            yield _flow("s", self._flows, time, where)
        counts = self._counts.setdefault(guest, dict.fromkeys((one.name.lower() for one in Disposition), 0))
        counts[found["disposition"]] += 1
        name = f"traps of {self.names.guests.get(guest, f'guest {guest}')}"
        yield {"name": name, "ph": "C", "ts": _microseconds(time), "pid": host, "args": dict(counts)}
        self._tracks[host, thread] = _Last(time + cost, Level[found["to"].upper()], action)

    def _introduce(self, host: int, guest: int, vcpu: int, thread: int) -> Iterator[Event]:
        if host not in self._hosts:
            self._hosts.add(host)
            yield _name("process_name", host, None, self.names.hosts.get(host, f"host {host}"))
        if (host, thread) not in self._tracks:
            name = self.names.guests.get(guest, f"guest {guest}")
            yield _name("thread_name", host, thread, f"{name} · vCPU {vcpu}")


def _name(what: str, host: int, thread: int | None, name: str) -> Event:
    track = {} if thread is None else {"tid": thread}
    return {"name": what, "ph": "M", "pid": host, **track, "args": {"name": name}}


def _slice(name: str, category: str, begin: int, end: int, where: Event, arguments: Event) -> Event:
    first, last = _microseconds(begin), _microseconds(end)
    length = last - first
    if first + length > last:
        length = math.nextafter(length, 0)
    return {"name": name, "cat": category, "ph": "X", "ts": first, "dur": length, **where, "args": arguments}


def _flow(phase: str, flow: int, time: int, where: Event) -> Event:
    return {"name": "next in turn", "cat": "preemption", "ph": phase, "id": flow, "ts": _microseconds(time), **where}


def _microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1000


def to_chrome(records: bytes, names: Names = NUMBERED) -> Iterator[str]:
    """Raw records as the text of a file, in pieces."""
    trace = ChromeTrace(names)
    objects = (records[at : at + LAYOUT.size] for at in range(0, len(records), LAYOUT.size))
    yield _OPENING
    yield from _separated(event for record in objects for event in trace.events(record))
    yield _CLOSING


def _separated(events: Iterable[Event], first: bool = True) -> Iterator[str]:
    for event in events:
        yield ("" if first else ",\n") + json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        first = False


class ChromeSink:
    """A `Trace.sink` that writes to a text stream; `close` ends the file."""

    def __init__(self, stream: TextIO, names: Names = NUMBERED) -> None:
        self._stream = stream
        self._trace = ChromeTrace(names)
        self._first = True
        stream.write(_OPENING)

    def __call__(self, record: bytes) -> None:
        for piece in _separated(self._trace.events(record), self._first):
            self._first = False
            self._stream.write(piece)

    def close(self) -> None:
        self._stream.write(_CLOSING)


_ABOUT = {"displayTimeUnit": "ns", "otherData": {"creator": "Ringside", "clock": "virtual time of each host"}}
_OPENING = json.dumps(_ABOUT)[:-1] + ', "traceEvents": [\n'
_CLOSING = "\n]}\n"
