"""Every message between page and server over the socket, as msgspec structs; version 1.

    page -> server   join, command, query (answered by Socket.IO's acknowledgement), ack (not answered)
    server -> page   tick, document, keyframe, notice, presence, progress, fetch (webapp.fetching),
                    comparison (webapp.comparing.Progress)

An answer is {"ok": true, ...} or {"ok": false, "error": Problem}. A message that does not fit its struct
changes nothing and is answered with what was wrong and where. Commands and queries themselves are defined
in engine.commands. DESIGN.md "To the browser".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from engine.commands import AnyCommand, AnyQuery, ImageAdd, LabError, Problem, SnapshotQuery, StretchQuery

VERSION = 1
ACKNOWLEDGE_EVERY = 4  # ticks
LAGGING_TICKS = 8  # not acknowledged: the page leaves the live room

LabId = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Join(Struct, forbid_unknown_fields=True, frozen=True):
    lab: LabId
    protocol: int


class CommandMessage(Struct, forbid_unknown_fields=True, frozen=True):
    command: AnyCommand


class QueryMessage(Struct, forbid_unknown_fields=True, frozen=True):
    query: AnyQuery


class Ack(Struct, forbid_unknown_fields=True, frozen=True):
    """Every tick up to `tick` has been drawn, or dropped by the page itself."""

    tick: Annotated[int, Meta(ge=0, le=2**53)]


class Joined(Struct, frozen=True):
    keyframe: Raw
    revision: int
    tick: int
    lab: str
    clients: int
    ok: Literal[True] = True


class Accepted(Struct, frozen=True):
    result: Raw
    revision: int
    ok: Literal[True] = True


class Answered(Struct, frozen=True):
    result: Raw
    ok: Literal[True] = True


class Refusal(Struct, frozen=True):
    error: Problem
    ok: Literal[False] = False


class DocumentEvent(Struct, frozen=True):
    revision: int
    document: Raw


class KeyframeEvent(Struct, frozen=True):
    tick: int
    revision: int
    keyframe: Raw


class NoticeEvent(Struct, frozen=True):
    level: Literal["info", "warning", "error"]
    key: str
    params: dict[str, str | int] = {}


class PresenceEvent(Struct, frozen=True):
    clients: int


class ProgressEvent(Struct, frozen=True):
    """How far a long step, seek or step back of the lab is, 0 to 1; 1 ends it. `lab.pause` cancels it."""

    fraction: float


Incoming = TypeVar("Incoming", Join, CommandMessage, QueryMessage, Ack)


def read(content: Any, shape: type[Incoming]) -> Incoming:
    """`content` (plain MessagePack values) as a message. Raises LabError "bad-message" that says what is
    wrong and where, and "bad-name" for what people type themselves.
    """
    try:
        message = msgspec.convert(content, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        if str(error).endswith("at `$.command.name`"):
            raise LabError(
                "bad-name",
                "A name has 1 to 40 letters, digits, spaces, dots or dashes; first a letter or digit.",
            ) from None
        raise LabError(
            "bad-message", f"This message was not understood: {error}.", detail=str(error)
        ) from None
    if isinstance(message, CommandMessage) and isinstance(message.command, ImageAdd):
        raise LabError(
            "bad-message", "Images are uploaded as files, not sent as messages.", detail="image.add"
        )
    if isinstance(message, QueryMessage) and isinstance(message.query, SnapshotQuery | StretchQuery):
        raise LabError(
            "bad-message",
            "Snapshots and stretches of the trace are downloaded as files, not sent as messages.",
            detail=str(message.query.__struct_config__.tag),
        )
    return message
