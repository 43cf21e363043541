"""The pages of a lab: who is in its live room, who lags behind, and what each is sent.

A page is in one of four states:

    arriving ──join answered──> live ──LAGGING_TICKS unacknowledged──> lagging ──has caught up──> waiting
                                 ^─────────────────────────── keyframe ──────────────────────────────┘

Invariants
- A page sees ticks in order and without a gap after each keyframe: between the picture it was given and the
  moment its answer has left, ticks are kept for it (`backlog`); a lagging page is sent none.
- What may lie in the queue of a page is bounded: LAGGING_TICKS ticks, one keyframe, answers to requests
  that are bounded in rate; a page whose queue still grows beyond `DEEPEST_QUEUE` is disconnected.
- Ticks are encoded once in the worker and sent as the same bytes to the whole room (webapp.transport).
- No handler lets an exception out: a LabError is answered with its problem, anything else with a reference
  into the log. DESIGN.md "To the browser".
"""

from __future__ import annotations

import enum
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import msgspec
from flask import request
from flask_socketio import SocketIO
from gevent.event import AsyncResult
from msgspec import Raw

from engine import wire
from engine.commands import LabError, Problem
from webapp import protocol, transport
from webapp.comparing import Progress
from webapp.config import Config
from webapp.fetching import Fetch
from webapp.labs import Labs, problem_error

DEEPEST_QUEUE = 256
MESSAGES_PER_SECOND = 300
PRESENCE_SECONDS = 0.3

log = logging.getLogger(__name__)


class State(enum.Enum):
    ARRIVING = enum.auto()
    LIVE = enum.auto()
    LAGGING = enum.auto()
    WAITING = enum.auto()


class Bucket:
    """A token bucket: `rate` a second on average, twice as many at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._tokens, self._at = 2 * rate, clock()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        now = self._clock()
        self._tokens = min(2 * self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(eq=False, slots=True)
class Client:
    """One connected page."""

    sid: str
    commands: Bucket
    queries: Bucket
    messages: Bucket = field(default_factory=lambda: Bucket(MESSAGES_PER_SECOND))
    lab: str | None = None
    state: State = State.ARRIVING
    sent: int = 0  # the last tick that was sent, or that its keyframe is of
    acknowledged: int = 0
    backlog: list[tuple[int, Raw]] = field(default_factory=list)


class Rooms:
    """The clients of every lab, and the `webapp.labs.Audience` that they are."""

    def __init__(self, socketio: SocketIO, labs: Labs, config: Config) -> None:
        self._socketio = socketio
        self._labs = labs
        self._config = config
        self._clients: dict[str, Client] = {}
        self._members: dict[str, set[Client]] = {}
        self._presence_due: set[str] = set()

    # -- the audience ----------------------------------------------------------------------------------
    def tick(self, lab: str, number: int, content: Raw) -> None:
        for client in self._members.get(lab, ()):
            if client.state is State.LIVE:
                client.sent = number
            elif client.state is State.ARRIVING:
                client.backlog.append((number, content))
        self._socketio.emit("tick", content, to=_live(lab))
        for client in self._members.get(lab, ()):
            if client.state is State.LIVE and client.sent - client.acknowledged > protocol.LAGGING_TICKS:
                client.state = State.LAGGING
                self._socketio.server.leave_room(client.sid, _live(lab))

    def document(self, lab: str, revision: int, document: Raw) -> None:
        self._socketio.emit("document", protocol.DocumentEvent(revision, document), to=_live(lab))

    def picture(self, lab: str, picture: wire.Picture) -> None:
        self._socketio.emit("keyframe", _keyframe(picture), to=_live(lab))

    def progress(self, lab: str, fraction: float) -> None:
        self._socketio.emit("progress", protocol.ProgressEvent(fraction), to=_live(lab))

    def notice(self, lab: str, notice: protocol.NoticeEvent) -> None:
        self._socketio.emit("notice", notice, to=_all(lab))

    def fetch(self, state: Fetch) -> None:
        self._socketio.emit("fetch", state)

    def comparison(self, lab: str, progress: Progress) -> None:
        self._socketio.emit("comparison", progress, to=_all(lab))

    def watched(self, lab: str) -> bool:
        return bool(self._members.get(lab))

    # -- coming and going ------------------------------------------------------------------------------
    def connected(self, sid: str) -> bool:
        """A socket was opened; False when there are too many."""
        if len(self._clients) >= self._config.max_clients:
            return False
        self._clients[sid] = Client(
            sid, Bucket(self._config.commands_per_second), Bucket(self._config.queries_per_second)
        )
        return True

    def disconnected(self, sid: str) -> None:
        client = self._clients.pop(sid, None)
        if client is not None:
            self._leave(client)

    def client(self, sid: str) -> Client | None:
        """The client of a message; None when it had to be disconnected: it floods us or does not read."""
        client = self._clients.get(sid)
        if client is None:
            return None
        server = self._socketio.server
        socket = server.eio.sockets.get(server.manager.eio_sid_from_sid(sid, "/"))
        if socket is None:
            return None
        if client.messages.take() and socket.queue.qsize() <= DEEPEST_QUEUE:
            return client
        log.warning("a page of lab %s was disconnected: it sends too much or does not read", client.lab)
        server.disconnect(sid)
        return None

    def join(self, client: Client, message: protocol.Join) -> protocol.Joined:
        """Put a page into a lab. It is live as soon as the answer is on its way. Raises LabError."""
        if message.protocol != protocol.VERSION:
            raise LabError(
                "protocol-version",
                f"This page speaks version {message.protocol} of the protocol, "
                f"the server {protocol.VERSION}: reload it.",
                page=message.protocol,
                server=protocol.VERSION,
            )
        self._leave(client)
        client.lab, client.state, client.backlog = message.lab, State.ARRIVING, []
        arrived: AsyncResult = AsyncResult()

        def viewer(picture: wire.Picture | Problem) -> None:
            if (
                isinstance(picture, wire.Picture)
                and client.lab == message.lab
                and client.sid in self._clients
            ):
                client.sent = client.acknowledged = picture.tick
                self._members.setdefault(message.lab, set()).add(client)
            arrived.set(picture)

        self._labs.show(message.lab, viewer)
        picture = arrived.get()
        if isinstance(picture, Problem):
            raise problem_error(picture)
        gevent.spawn(self._land, client, message.lab)  # runs after this greenlet has answered
        return protocol.Joined(
            picture.keyframe,
            picture.revision,
            picture.tick,
            message.lab,
            len(self._members.get(message.lab, ())),
        )

    def _land(self, client: Client, lab: str) -> None:
        if client.lab != lab or client.sid not in self._clients or client.state is not State.ARRIVING:
            return
        for number, content in client.backlog:
            client.sent = number
            self._socketio.emit("tick", content, to=client.sid)
        client.backlog = []
        self._go_live(client, lab)
        self._socketio.server.enter_room(client.sid, _all(lab))
        self._presence_changed(lab)

    def _go_live(self, client: Client, lab: str) -> None:
        client.state = State.LIVE
        self._socketio.server.enter_room(client.sid, _live(lab))

    def _leave(self, client: Client) -> None:
        if client.lab is None:
            return
        if client.sid in self._clients:
            self._socketio.server.leave_room(client.sid, _live(client.lab))
            self._socketio.server.leave_room(client.sid, _all(client.lab))
        members = self._members.get(client.lab, set())
        members.discard(client)
        if not members:
            self._members.pop(client.lab, None)
        self._presence_changed(client.lab)
        client.lab = None

    def _presence_changed(self, lab: str) -> None:
        if lab not in self._presence_due:
            self._presence_due.add(lab)
            gevent.spawn_later(PRESENCE_SECONDS, self._tell_presence, lab)

    def _tell_presence(self, lab: str) -> None:
        self._presence_due.discard(lab)
        self._socketio.emit("presence", protocol.PresenceEvent(len(self._members.get(lab, ()))), to=_all(lab))

    # -- keeping up ------------------------------------------------------------------------------------
    def acknowledge(self, client: Client, tick: int) -> None:
        """A page has drawn everything up to `tick`. A laggard that has everything it was sent gets a
        keyframe.

        Pages acknowledge the ticks whose number is a multiple of ACKNOWLEDGE_EVERY, so the last such tick
        that was sent is as good as the last one.
        """
        client.acknowledged = max(client.acknowledged, min(tick, client.sent))
        lab = client.lab
        if (
            client.state is not State.LAGGING
            or lab is None
            or client.acknowledged <= client.sent - protocol.ACKNOWLEDGE_EVERY
        ):
            return
        client.state = State.WAITING

        def viewer(picture: wire.Picture | Problem) -> None:
            if client.state is State.WAITING and client.lab == lab and isinstance(picture, wire.Picture):
                self._socketio.emit("keyframe", _keyframe(picture), to=client.sid)
                client.sent = client.acknowledged = picture.tick
                self._go_live(client, lab)

        self._labs.show(lab, viewer)


def _live(lab: str) -> str:
    return f"live:{lab}"


def _all(lab: str) -> str:
    return f"all:{lab}"


def _keyframe(picture: wire.Picture) -> protocol.KeyframeEvent:
    return protocol.KeyframeEvent(picture.tick, picture.revision, picture.keyframe)


Answer = msgspec.Struct | None


def register(socketio: SocketIO, labs: Labs, config: Config) -> Rooms:
    """Give `socketio` the handlers of the protocol; the rooms they fill."""
    rooms = Rooms(socketio, labs, config)

    def answered(handler: Callable[[Client, Any], Answer]) -> Callable[[Any], Answer]:
        def guarded(content: Any = None) -> Answer:
            client = rooms.client(request.sid)  # type: ignore[attr-defined]
            if client is None:
                return None
            try:
                return handler(client, content)
            except LabError as error:
                return protocol.Refusal(error.problem)
            except Exception:
                reference = secrets.token_hex(4)
                log.exception("[%s] a message to lab %s", reference, client.lab)
                return protocol.Refusal(
                    Problem(
                        "internal",
                        f"Something went wrong on our side (reference {reference}).",
                        {"reference": reference},
                    )
                )

        return guarded

    def on_connect(_auth: Any = None) -> bool:
        return rooms.connected(request.sid)  # type: ignore[attr-defined]

    def on_disconnect(_reason: Any = None) -> None:
        rooms.disconnected(request.sid)  # type: ignore[attr-defined]

    def on_join(client: Client, content: Any) -> Answer:
        return rooms.join(client, protocol.read(content, protocol.Join))

    def on_command(client: Client, content: Any) -> Answer:
        message = protocol.read(content, protocol.CommandMessage)
        if not client.commands.take():
            raise LabError(
                "too-many-commands",
                f"At most {config.commands_per_second} commands a second are taken from one page.",
            )
        return labs.command(_lab(client), message.command)

    def on_query(client: Client, content: Any) -> Answer:
        message = protocol.read(content, protocol.QueryMessage)
        if not client.queries.take():
            raise LabError(
                "too-many-queries",
                f"At most {config.queries_per_second} queries a second are taken from one page.",
            )
        return labs.query(_lab(client), message.query)

    def on_ack(client: Client, content: Any) -> Answer:
        rooms.acknowledge(client, protocol.read(content, protocol.Ack).tick)
        return None

    def on_malformed(_client: Client, _content: Any) -> Answer:
        raise LabError(
            "bad-message", "This is no message of the protocol: [event, content] in the default namespace."
        )

    socketio.on_event("connect", on_connect)
    socketio.on_event("disconnect", on_disconnect)
    handlers = {"join": on_join, "command": on_command, "query": on_query, "ack": on_ack}
    for event, handler in {**handlers, transport.MALFORMED: on_malformed}.items():
        socketio.on_event(event, answered(handler))
    return rooms


def _lab(client: Client) -> str:
    if client.lab is None or client.state is State.ARRIVING:
        raise LabError("not-joined", "Join a lab first.")
    return client.lab
