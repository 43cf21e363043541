"""Every lab of this server: which worker holds it, what is asked of it, and when what it did is kept.

A command's way, and why an acknowledged change outlives anything:

    page ─ command ─> worker applies, stamps ─ Done ─> store commits document and log ─> page is answered
                                                                                     └─> all are told

Invariants
- What the workers say is taken in order by one greenlet; what must be kept goes through one queue to one
  writing thread.
- A lab is opened when somebody needs it and closed when nobody has looked at it for
  `Config.unwatched_seconds`; it is in one worker at most.
- A worker's death, a defect on one lab or a change that could not be kept end the same way: the lab is
  opened again from the store, requests under way are refused, the pages are told and get a keyframe.
- A lab for which its worker died `FATAL_DEATHS` times within `SURVIVED_SECONDS` of opening is quarantined:
  opened at its checkpoint, paused. Its structure is kept, the time since the checkpoint is not run again.
- A lab that cannot be opened as it was left is opened afresh when somebody asks for that, and never by itself.
"""

from __future__ import annotations

import enum
import itertools
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import gevent
import msgspec
from gevent.event import AsyncResult, Event
from gevent.queue import Queue
from gevent.threadpool import ThreadPool
from msgspec import Raw

from engine import wire
from engine.checkpoint import damaged
from engine.commands import AnyCommand, AnyQuery, LabError, Problem
from engine.compare import Difference, Together
from engine.library import Manifest
from webapp import library
from webapp.comparing import Comparing, Outline, Progress, decode, outline
from webapp.comparisons import Comparison
from webapp.config import Config
from webapp.fetching import Fetch, Fetcher
from webapp.library import NewImage, library_folder
from webapp.protocol import Accepted, Answered, NoticeEvent
from webapp.store import Change, LabRow, Saved, Store, document_name
from webapp.workers import Pool, WorkerProcess

FATAL_DEATHS = 3
SURVIVED_SECONDS = 60.0
LIBRARY_SECONDS = 2.0
DEMO = "demo"
#: Why a lab may be opened afresh; its pages are told so in the problem's params.
_LOST = ("checkpoint-damaged", "checkpoint-older", "lab-poisoned")
_NOT_KEPT = Problem("not-kept", "The change was taken back: the server could not write it to its disk.")

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Viewer = Callable[[wire.Picture | Problem], None]


class Audience(Protocol):
    """Who is shown what happens in the labs. Called in order; must not wait."""

    def tick(self, lab: str, number: int, content: Raw) -> None: ...
    def document(self, lab: str, revision: int, document: Raw) -> None: ...
    def picture(self, lab: str, picture: wire.Picture) -> None: ...
    def progress(self, lab: str, fraction: float) -> None: ...
    def notice(self, lab: str, notice: NoticeEvent) -> None: ...
    def watched(self, lab: str) -> bool: ...
    def fetch(self, state: Fetch) -> None: ...
    def comparison(self, lab: str, progress: Progress) -> None: ...


class State(enum.Enum):
    CLOSED = enum.auto()
    OPENING = enum.auto()
    OPEN = enum.auto()
    CLOSING = enum.auto()


@dataclass(eq=False, slots=True)
class Lab:
    """What the web process knows of one lab."""

    id: str
    origin: str
    name: str
    state: State = State.CLOSED
    settled: Event = field(default_factory=Event)  # set unless OPENING or CLOSING
    worker: WorkerProcess | None = None
    slot: int = 0
    tick: int = 0
    document: Raw = field(default_factory=lambda: Raw(b""))
    problem: Problem | None = None  # why it could not be opened
    opened_at: float = 0.0
    watched_at: float = 0.0
    deaths: int = 0
    reopening: bool = False  # its pages have seen it before
    discarding: bool = False  # what its worker holds is not what is kept
    afresh: bool = False  # it is being opened with every guest about to start
    requests: dict[int, AsyncResult] = field(default_factory=dict)
    viewers: list[Viewer] = field(default_factory=list)
    showing: bool = False  # a Show is under way


@dataclass(frozen=True, slots=True)
class _Commit:
    """A command to be kept; `result` waits for its acknowledgement."""

    lab: Lab
    done: wire.Done
    result: AsyncResult | None

    def resolve(self, answer: wire.Done | Problem) -> None:
        if self.result is not None:
            self.result.set(answer)


@dataclass(frozen=True, slots=True)
class _Save:
    lab: Lab
    checkpoint: wire.Checkpoint


@dataclass(frozen=True, slots=True)
class _Work:
    call: Callable[[], Any]
    result: AsyncResult


_Write = _Commit | _Save | _Work


class Labs:
    """See the module. `audience` is set before `start`."""

    audience: Audience

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._store = store
        self._labs: dict[str, Lab] = {row.id: Lab(row.id, row.origin, row.name) for row in store.labs()}
        for lab in self._labs.values():
            lab.settled.set()
        self._library = library_folder(config.data)
        self._library_seen = 0
        self.fetcher = Fetcher(config.data, self._fetched, self.look_at_library)
        self._pool = Pool(config.workers, self, self._library)
        self._comparing = Comparing(self._pool, self._compared, self._keep_comparison)
        self._requests = itertools.count(1)
        self._slots = itertools.count(1)
        self._disk = ThreadPool(1)
        self._writes: Queue[_Write] = Queue()
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Start the workers, and the demo lab, so that it runs before the first page asks for it."""
        self._pool.start()
        self._greenlets = [
            gevent.spawn(self._write),
            gevent.spawn(self._close_unwatched),
            gevent.spawn(self._watch_library),
        ]
        if DEMO not in self._labs:
            self._make(DEMO, "demo", "Demo")
        self._open(self._labs[DEMO])

    def announce_stop(self) -> None:
        """Tell every page that the server is about to end."""
        for lab in self._labs.values():
            self.audience.notice(lab.id, NoticeEvent("warning", "server-stopping"))

    def stop(self) -> None:
        """Save everything and end the workers."""
        self.fetcher.cancel()
        self._pool.stop()
        self._kept(lambda: None)
        gevent.killall(self._greenlets)
        self._disk.kill()
        self.close_store()

    def close_store(self) -> None:
        """Give the data folder free."""
        self._store.close()

    # -- what pages ask --------------------------------------------------------------------------------
    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return self._pool.processes

    def rows(self) -> list[LabRow]:
        return self._store.labs()

    def row(self, lab: str) -> LabRow:
        """What is kept of a lab. Raises LabError "lab-not-found"."""
        row = self._store.lab(lab)
        if row is None:
            raise _not_found(lab)
        return row

    def create(self, name: str) -> str:
        """Make a lab and return its id. Raises LabError when there are too many."""
        if len(self._labs) >= self._config.max_labs:
            raise LabError(
                "server-limit-labs",
                f"This server keeps at most {self._config.max_labs} labs.",
                limit=self._config.max_labs,
            )
        lab = secrets.token_hex(5)
        self._make(lab, "new", name)
        self._opened(lab)
        return lab

    def open_afresh(self, lab: str) -> None:
        """Open a lab that cannot be opened as it was left: its structure, with every guest about to start; it is kept when this
        returns. A lab that can be opened is left as it is. Raises LabError when it cannot be had like that either."""
        try:
            self._opened(lab)
        except LabError as error:
            if "afresh" not in error.problem.params:
                raise
            lost = self._labs[lab]
            lost.afresh, lost.deaths = True, 0
            self._opened(lab)
            self._kept(lambda: None)

    def command(self, lab: str, command: AnyCommand) -> Accepted:
        """Carry out and keep a command. Raises LabError: nothing has changed."""
        done = self._request(lab, lambda number: wire.Do(lab, number, Raw(wire.encode(command))))
        return Accepted(done.result, done.entry.revision)

    def query(self, lab: str, query: AnyQuery) -> Answered:
        """Answer a query. Raises LabError."""
        return Answered(
            self._request(lab, lambda number: wire.Ask(lab, number, Raw(wire.encode(query)))).result
        )

    def show(self, lab: str, viewer: Viewer) -> None:
        """Have `viewer` called with a picture between the tick it is of and the next one, or with the
        reason why not.

        Raises LabError when the lab cannot be opened. One picture serves all who wait for it.
        """
        self._show(self._opened(lab), viewer)

    # -- the library -----------------------------------------------------------------------------------
    def _fetched(self, state: Fetch) -> None:
        self.audience.fetch(state)

    def add_image(self, image: NewImage) -> Manifest:
        """Keep an image for all labs. Raises LabError when it cannot be started."""

        def work() -> Manifest | LabError:
            try:
                return library.add(self._library, image)
            except LabError as error:
                return error  # raised in a thread of gevent's it would also be written to the log

        added: Manifest | LabError = gevent.get_hub().threadpool.apply(work)
        if isinstance(added, LabError):
            raise added
        self.look_at_library()
        return added

    def look_at_library(self) -> None:
        """Have every worker look at the library again if its folder has changed."""
        try:
            changed = self._library.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed != self._library_seen:
            self._library_seen = changed
            self._pool.send_all(wire.Refresh())

    def _watch_library(self) -> None:
        """`ringside images add` is another process."""
        while True:
            self.look_at_library()
            gevent.sleep(LIBRARY_SECONDS)

    # -- comparisons -----------------------------------------------------------------------------------
    def compare(self, lab: str, asked: Comparison) -> str:
        """Begin a comparison, of which a lab's pages are told; its id. Raises LabError."""
        self.row(lab)
        return self._comparing.start(lab, asked, len(self._store.comparisons(lab)))

    def lock_step(self, lab: str, asked: Together) -> Difference:
        """Step two configurations together. Raises LabError."""
        self.row(lab)
        return self._comparing.together(lab, asked)

    def comparisons(self, lab: str) -> list[Outline]:
        """Those of a lab: kept ones, oldest first, then those under way. Raises LabError "lab-not-found"."""
        self.row(lab)
        kept = {row.id: outline(row) for row in self._store.comparisons(lab)}
        under_way = {one.id: one.outline for one in self._comparing.under_way(lab)}
        return [*kept.values(), *(one for one in under_way.values() if one.id not in kept)]

    def comparison(self, lab: str, comparison: str) -> tuple[Outline, Comparison]:
        """One of a lab, as far as it is. Raises LabError "compare-gone"."""
        self.row(lab)
        for row in self._store.comparisons(lab):
            if row.id == comparison:
                return outline(row), decode(row.content)
        for one in self._comparing.under_way(lab):
            if one.id == comparison:
                return one.outline, one.comparison
        raise LabError("compare-gone", "This comparison is not in the lab any more.")

    def drop_comparison(self, lab: str, comparison: str) -> None:
        """Cancel a comparison, or delete it."""
        self.row(lab)
        if not self._comparing.cancel(lab, comparison):
            self._kept(lambda: self._store.drop_comparison(lab, comparison))
            self._compared(lab, Progress(comparison, 0, 0, "gone"))

    def _compared(self, lab: str, progress: Progress) -> None:
        self.audience.comparison(lab, progress)

    def _keep_comparison(self, lab: str, comparison: str, content: bytes, progress: Progress) -> None:
        def keep() -> None:
            try:
                self._kept(lambda: self._store.keep_comparison(lab, comparison, content))
            except Exception:
                log.exception("a comparison of lab %s could not be kept", lab)
                self._comparing.kept(comparison)
                self._compared(lab, msgspec.structs.replace(progress, state="gone"))
                self.audience.notice(lab, NoticeEvent("error", "compare-not-kept"))
            else:
                self._comparing.kept(comparison)
                self._compared(lab, progress)

        gevent.spawn(keep)

    # -- opening and closing ---------------------------------------------------------------------------
    def _make(self, lab: str, origin: str, name: str) -> None:
        self._kept(lambda: self._store.create(lab, origin, name))
        self._labs[lab] = made = Lab(lab, origin, name)
        made.settled.set()

    def _opened(self, name: str) -> Lab:
        lab = self._labs.get(name)
        if lab is None:
            raise _not_found(name)
        lab.watched_at = time.monotonic()
        while lab.state is not State.OPEN:
            if lab.state is State.CLOSED:
                lab.problem = None
                self._open(lab)
            lab.settled.wait()
            if lab.problem is not None:
                raise problem_error(lab.problem)
        return lab

    def _open(self, lab: Lab) -> None:
        lab.state, lab.watched_at = State.OPENING, time.monotonic()
        lab.settled.clear()
        gevent.spawn(self._hand_over, lab)

    def _hand_over(self, lab: Lab) -> None:
        """Give a lab to a worker; `Opened` or `OpenFailed` comes back."""
        if lab.deaths >= 2 * FATAL_DEATHS:
            lab.deaths = FATAL_DEATHS
            self._unopened(
                lab,
                Problem("lab-poisoned", "This lab ends the engine's process even when it is opened paused."),
            )
            return
        saved = self._kept(lambda: self._store.saved(lab.id))
        if saved is None:
            if not lab.afresh:
                self._unopened(lab, damaged("none of its files in the data folder can be read").problem)
                return
            saved = Saved(None, self.row(lab.id).revision, [])
        worker = self._pool.choose()
        lab.worker, lab.slot = worker, next(self._slots)
        worker.labs[lab.slot] = lab.id
        quarantined = lab.deaths >= FATAL_DEATHS
        self._pool.send(
            worker,
            wire.Open(
                lab.id, lab.slot, "demo" if lab.origin == "demo" else "new", lab.name,
                saved.checkpoint, saved.revision, saved.log, lab.tick, quarantined, lab.afresh, self._config.lab_limits(),
                None if self._config.gdb == "off" else self._config.gdb,
            ),
        )  # fmt: skip

    def _unopened(self, lab: Lab, problem: Problem) -> None:
        log.error("lab %s cannot be opened: %s", lab.id, problem.message)
        if problem.key in _LOST:
            problem = msgspec.structs.replace(problem, params={**problem.params, "afresh": True})
        self._let_go(lab)
        lab.problem, lab.afresh = problem, False
        for viewer in self._take_viewers(lab):
            viewer(problem)
        lab.settled.set()

    def _let_go(self, lab: Lab) -> None:
        if lab.worker is not None:
            lab.worker.labs.pop(lab.slot, None)
        lab.worker, lab.state, lab.discarding, lab.showing = None, State.CLOSED, False, False

    def _close_unwatched(self) -> None:
        while True:
            gevent.sleep(min(self._config.unwatched_seconds, 10))
            now = time.monotonic()
            for lab in self._labs.values():
                if self.audience.watched(lab.id) or lab.requests or lab.viewers:
                    lab.watched_at = now
                elif lab.state is State.OPEN and now - lab.watched_at > self._config.unwatched_seconds:
                    self._close(lab)

    def _close(self, lab: Lab) -> None:
        assert lab.worker is not None
        lab.state = State.CLOSING
        lab.settled.clear()
        self._pool.send(lab.worker, wire.Close(lab.id))

    def _again(self, lab: Lab, problem: Problem) -> None:
        """Open a lab again after its worker lost it; requests under way are refused with `problem`."""
        self._let_go(lab)
        for result in lab.requests.values():
            result.set(problem)
        lab.requests.clear()
        if time.monotonic() - lab.opened_at > SURVIVED_SECONDS and lab.opened_at:
            lab.deaths = min(lab.deaths, 1)
        lab.opened_at = 0.0
        lab.reopening = True
        self._open(lab)

    # -- requests --------------------------------------------------------------------------------------
    def _request(self, name: str, message: Callable[[int], wire.ToWorker]) -> Any:
        lab = self._opened(name)
        assert lab.worker is not None
        number = next(self._requests)
        result = lab.requests[number] = AsyncResult()
        self._pool.send(lab.worker, message(number))
        answer = result.get()
        if isinstance(answer, Problem):
            raise problem_error(answer)
        return answer

    def _waiter(self, lab: Lab, request: int | None) -> AsyncResult | None:
        return None if request is None else lab.requests.pop(request, None)

    def _resolve(self, lab: Lab, request: int, answer: object) -> None:
        result = self._waiter(lab, request)
        if result is not None:
            result.set(answer)

    def _show(self, lab: Lab, viewer: Viewer) -> None:
        lab.viewers.append(viewer)
        if not lab.showing and lab.state is State.OPEN and lab.worker is not None:
            lab.showing = True
            self._pool.send(lab.worker, wire.Show(lab.id, 0))

    def _take_viewers(self, lab: Lab) -> list[Viewer]:
        viewers, lab.viewers, lab.showing = lab.viewers, [], False
        return viewers

    def _show_everybody(self, lab: Lab) -> None:
        def viewer(picture: wire.Picture | Problem) -> None:
            if isinstance(picture, wire.Picture):
                self.audience.picture(lab.id, picture)

        self._show(lab, viewer)

    # -- what workers say ------------------------------------------------------------------------------
    def arrived(self) -> None:
        self._comparing.hand_out()

    def heard(self, worker: WorkerProcess, message: wire.FromWorker) -> None:
        if isinstance(message, wire.Compared):
            self._comparing.heard(message)
            return
        lab = self._labs[message.lab]  # type: ignore[attr-defined]
        if lab.worker is not worker or (
            lab.discarding and not isinstance(message, wire.Closed | wire.Broken)
        ):
            return
        match message:
            case wire.Tick():
                lab.tick = message.tick
                self.audience.tick(lab.id, message.tick, message.content)
            case wire.Done():
                self._writes.put(_Commit(lab, message, self._waiter(lab, message.request)))
            case wire.Changed():
                document = bytes(message.document)
                kept: AsyncResult = AsyncResult()
                self._writes.put(_Work(lambda: self._store.describe(lab.id, document, document_name(document)), kept))
                gevent.spawn(self._changed, lab, message, kept)
            case wire.Checkpoint():
                self._writes.put(_Save(lab, message))
            case wire.Answer():
                self._resolve(lab, message.request, message)
            case wire.Refused():
                self._resolve(lab, message.request, message.problem)
            case wire.Picture():
                for viewer in self._take_viewers(lab):
                    viewer(message)
            case wire.Progress():
                self.audience.progress(lab.id, message.fraction)
            case wire.Opened():
                self._is_open(lab, message)
            case wire.OpenFailed():
                self._unopened(lab, message.problem)
            case wire.Closed():
                self._let_go(lab)
                lab.deaths = 0
                if lab.requests or lab.viewers or lab.reopening:
                    self._open(lab)
                else:
                    lab.settled.set()
            case wire.Broken():
                lab.deaths += 1
                reference = {"reference": message.reference}
                sentence = f"Something went wrong on our side (reference {message.reference})."
                self._again(lab, Problem("internal", sentence, {**reference}))

    def died(self, worker: WorkerProcess, culprit: str | None) -> None:
        self._comparing.died(worker)
        for name in list(worker.labs.values()):
            lab = self._labs[name]
            if name == culprit:
                lab.deaths += 1
            self._again(
                lab,
                Problem("worker-restarted", "The engine process of this lab ended and was started again."),
            )

    def _is_open(self, lab: Lab, message: wire.Opened) -> None:
        lab.state, lab.problem, lab.opened_at = State.OPEN, None, time.monotonic()
        lab.afresh = False
        changed, lab.document = bytes(lab.document) != bytes(message.document), message.document
        if changed:
            document = bytes(message.document)
            self._writes.put(
                _Work(lambda: self._store.describe(lab.id, document, document_name(document)), AsyncResult())
            )
        if lab.reopening:
            lab.reopening = False
            self.audience.notice(lab.id, NoticeEvent("warning", "worker-restarted"))
            self._show_everybody(lab)
        elif lab.viewers:
            self._show(lab, lab.viewers.pop())
        if lab.deaths >= FATAL_DEATHS:
            self.audience.notice(lab.id, NoticeEvent("error", "lab-quarantined"))
        lab.settled.set()

    # -- keeping ---------------------------------------------------------------------------------------
    def _kept(self, work: Callable[[], Result]) -> Result:
        """Have the writing thread do `work` after everything that is to be kept already; its result."""
        result: AsyncResult = AsyncResult()
        self._writes.put(_Work(work, result))
        outcome: Result = result.get()
        return outcome

    def _write(self) -> None:
        while True:
            write = self._writes.get()
            match write:
                case _Work():
                    try:
                        write.result.set(self._disk.apply(write.call))
                    except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the result
                        write.result.set_exception(error)
                case _Save():
                    self._write_checkpoint(write.lab, write.checkpoint)
                case _Commit():
                    batch = [write]
                    while not self._writes.empty() and isinstance(following := self._writes.peek(), _Commit):
                        batch.append(following)
                        self._writes.get()
                    self._write_commands(batch)

    def _write_commands(self, batch: list[_Commit]) -> None:
        for write in batch:
            if write.lab.discarding:
                write.resolve(_NOT_KEPT)
        batch = [write for write in batch if not write.lab.discarding]
        changes = [
            Change(
                write.lab.id,
                write.done.entry,
                bytes(write.done.document),
                document_name(bytes(write.done.document)),
            )
            for write in batch
        ]
        try:
            if changes:
                self._disk.apply(self._store.commit, (changes,))
        except Exception:
            log.exception("commands could not be kept")
            for write in batch:
                self._discard(write.lab)
                write.resolve(_NOT_KEPT)
            return
        for write in batch:
            write.resolve(write.done)
            gevent.spawn(self._announce, write.lab, write.done)  # runs after the greenlet that acknowledges

    def _announce(self, lab: Lab, done: wire.Done) -> None:
        if bytes(done.document) != bytes(lab.document):
            lab.document = done.document
            self.audience.document(lab.id, done.entry.revision, done.document)
        if done.jumped:
            self._show_everybody(lab)

    def _changed(self, lab: Lab, message: wire.Changed, kept: AsyncResult) -> None:
        """Say what a document has become without a command, after the documents of all commands before it."""
        try:
            kept.get()
        except Exception:
            log.exception("a document could not be kept")
        if not lab.discarding:
            lab.document = message.document
            self.audience.document(lab.id, message.revision, message.document)

    def _write_checkpoint(self, lab: Lab, checkpoint: wire.Checkpoint) -> None:
        if lab.discarding:
            return
        try:
            self._disk.apply(
                self._store.checkpoint, (lab.id, checkpoint.revision, checkpoint.position, checkpoint.content)
            )
        except Exception:
            log.exception(
                "a checkpoint of lab %s could not be kept", lab.id
            )  # the one before it and the log still are

    def _discard(self, lab: Lab) -> None:
        """Take a lab away from its worker, which holds what is not kept, and open it again from what is."""
        if lab.state is State.OPEN and not lab.discarding:
            lab.reopening = True
            self._close(lab)
            lab.discarding = True


def problem_error(problem: Problem) -> LabError:
    """A problem that was reported, as the exception that it was."""
    return LabError(problem.key, problem.message, **problem.params)


def _not_found(lab: str) -> LabError:
    return LabError("lab-not-found", f"There is no lab {lab!r} on this server.", lab=lab)
