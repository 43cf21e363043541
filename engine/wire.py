"""The messages between the web process and an engine worker: one definition for both ends.

    web process (ROUTER, bound) ── one MessagePack map per message ── worker (DEALER, connected)

Invariants: both directions are ordered; every `Do`, `Ask` and `Show` is answered exactly once, by `Done`,
`Answer`, `Picture` or `Refused` with the same `request`, and every `Compare` by a `Compared`; a worker opens
none of the store's files but the library's, which never change (engine.library), so a checkpoint travels as
bytes. `revision` counts the commands that a lab accepted since it was made, and `tick` numbers the ticks of a
lab across all the workers that ever held it. Payloads that a browser will see are encoded once, in the worker,
and travel on as they are (`msgspec.Raw`). DESIGN.md "Processes".
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from engine.commands import Problem
from engine.compare import Difference, Measure, Task, Together


class Entry(Struct, frozen=True, array_like=True):
    """A command that a lab accepted: its number, the position at which it took effect, and the command as
    MessagePack.
    """

    revision: int
    position: int
    command: Raw


class ToWorker(Struct, tag_field="type", frozen=True):
    """Base of what the web process sends."""


class Open(ToWorker, tag="open", frozen=True):
    """Hold a lab from now on; answered by `Opened` or `OpenFailed`.

    Without a checkpoint the lab is made (`origin`), with one it is loaded; then `log` is replayed, each
    entry at its position. A quarantined lab does not run on to the entries' positions, takes them where its
    checkpoint stands, and is paused. So does a lab that is opened afresh, of whose checkpoint only the structure is
    used; a `Checkpoint` of it comes before `Opened`. `slot` (from 1) is what the worker writes into its marker while it
    works for this lab.
    """

    lab: str
    slot: int
    origin: Literal["new", "demo"]
    name: str
    checkpoint: bytes | None
    revision: int  # of the checkpoint
    log: list[Entry]
    tick: int  # the last tick number that pages have seen
    quarantined: bool
    afresh: bool
    limits: dict[str, int]  # fields of engine.lab.Limits that the server's configuration sets
    gdb: str | None = None  # the address of gdb's ports; None: there are none


class Close(ToWorker, tag="close", frozen=True):
    """Save a lab and let it go; answered by `Checkpoint` (when it changed) and `Closed`."""

    lab: str


class Do(ToWorker, tag="do", frozen=True):
    """Carry out a command; answered by `Done` or `Refused`."""

    lab: str
    request: int
    command: Raw


class Ask(ToWorker, tag="ask", frozen=True):
    """Carry out a query; answered by `Answer` or `Refused`."""

    lab: str
    request: int
    query: Raw


class Show(ToWorker, tag="show", frozen=True):
    """Everything that a joining page needs; answered by `Picture`, after a tick with all that happened
    before it.
    """

    lab: str
    request: int


class Compare(ToWorker, tag="compare", frozen=True):
    """Carry out one run of a comparison, which has nothing to do with any lab; answered by `Compared`."""

    number: int
    work: Task | Together


class CompareNoMore(ToWorker, tag="compare-no-more", frozen=True):
    """Give up a run; it is answered all the same."""

    number: int


class Refresh(ToWorker, tag="refresh", frozen=True):
    """The library's folder has changed; answered by `Changed` of every lab that is open."""


class Stop(ToWorker, tag="stop", frozen=True):
    """Save every lab, say `Bye`, end."""


class FromWorker(Struct, tag_field="type", frozen=True):
    """Base of what a worker sends."""


class Hello(FromWorker, tag="hello", frozen=True):
    """The worker is ready."""

    process: int


class Beat(FromWorker, tag="beat", frozen=True):
    """The worker is alive: sent every `BEAT_SECONDS`, between two pieces of work."""


class Opened(FromWorker, tag="opened", frozen=True):
    lab: str
    revision: int
    document: Raw


class OpenFailed(FromWorker, tag="open-failed", frozen=True):
    lab: str
    problem: Problem


class Closed(FromWorker, tag="closed", frozen=True):
    lab: str


class Done(FromWorker, tag="done", frozen=True):
    """A command was carried out and is entry `entry` of the lab's log. `jumped`: the lab is somewhere else
    in time now, and what a page knows of it is void. `request` is None for a command that the worker gave
    itself."""

    lab: str
    request: int | None
    entry: Entry
    result: Raw
    document: Raw
    jumped: bool


class Changed(FromWorker, tag="changed", frozen=True):
    """A lab's document is another one without a command: the server's library has changed, or a guest that migrated runs
    on another host now."""

    lab: str
    revision: int
    document: Raw


class Answer(FromWorker, tag="answer", frozen=True):
    lab: str
    request: int
    result: Raw


class Picture(FromWorker, tag="picture", frozen=True):
    """A keyframe as of tick `tick`."""

    lab: str
    request: int
    tick: int
    revision: int
    keyframe: Raw


class Refused(FromWorker, tag="refused", frozen=True):
    """Nothing was changed by the request."""

    lab: str
    request: int
    problem: Problem


class Tick(FromWorker, tag="tick", frozen=True):
    """`content` is what pages get: {"n": tick, ...what the lab drained}."""

    lab: str
    tick: int
    content: Raw


class Progress(FromWorker, tag="progress", frozen=True):
    """How far a long command is, 0 to 1; 1 when it has ended."""

    lab: str
    fraction: float


class Checkpoint(FromWorker, tag="checkpoint", frozen=True):
    """The lab as it was after entry `revision`, at `position`."""

    lab: str
    revision: int
    position: int
    content: bytes


class Broken(FromWorker, tag="broken", frozen=True):
    """The engine failed on this lab (a defect of ours); the worker let it go without saving. `reference` is
    in its log.
    """

    lab: str
    reference: str


class Compared(FromWorker, tag="compared", frozen=True):
    """What came of a run, or why nothing did."""

    number: int
    result: Measure | Difference | None
    problem: Problem | None = None


class Bye(FromWorker, tag="bye", frozen=True):
    """Everything is saved; the worker ends."""


AnyToWorker = Open | Close | Do | Ask | Show | Compare | CompareNoMore | Refresh | Stop
AnyFromWorker = (
    Hello
    | Beat
    | Opened
    | OpenFailed
    | Closed
    | Done
    | Changed
    | Answer
    | Picture
    | Refused
    | Tick
    | Progress
    | Checkpoint
    | Broken
    | Compared
    | Bye
)

BEAT_SECONDS = 1.0

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(AnyToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(AnyFromWorker).decode
