"""How Socket.IO's packets become bytes on a websocket: encoded once, sent whole, bounded.

Three things that the libraries leave to us:
- `Packet` writes MessagePack with msgspec, so bytes that a worker has encoded (`msgspec.Raw`) are spliced
  in as they are, and python-socketio, which encodes one packet for a whole room, sends the same bytes to
  everybody. What a client sends is checked here first: only our own events, only in the default namespace;
  anything else becomes a "malformed" event.
- `WholeSocket`: simple-websocket writes with `send`, which under gevent may write only a part and may be
  interleaved by another greenlet; a keyframe is larger than a socket's buffer. Every write is whole, one at
  a time, and has an end.
- `WebSocket`: messages are bounded while they arrive, and per-message compression is not negotiated (on a
  classroom's network it costs more than it saves, for every client and tick, and bounds could not be told
  before inflating).

Socket.IO protocol 5 (MessagePack parser), RFC 6455.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import IPPROTO_TCP, TCP_NODELAY
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
from engineio.async_drivers import gevent as driver
from gevent.lock import RLock
from socketio.packet import CONNECT, DISCONNECT, EVENT
from socketio.packet import Packet as BasePacket

WRITE_SECONDS = 30.0

CLIENT_EVENTS = frozenset({"join", "command", "query", "ack"})
MALFORMED = "malformed"
TEXTS = frozenset({"1", "2", "3", "6"})  # Engine.IO's close, ping, pong and noop; messages are binary


class _Incoming(msgspec.Struct):
    type: int
    nsp: str = "/"
    data: list[Any] | dict[str, Any] | None = None
    id: int | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Incoming).decode


class Packet(BasePacket):  # type: ignore[misc]
    """A Socket.IO packet as one MessagePack map {type, nsp, data, id?}."""

    uses_binary_events = False

    def __init__(
        self,
        packet_type: int = EVENT,
        data: Any = None,
        namespace: str | None = None,
        id: int | None = None,  # noqa: A002 - python-socketio passes it by this name
        binary: bool | None = None,
        encoded_packet: bytes | str | None = None,
    ) -> None:
        super().__init__(packet_type, data, namespace, id, binary)
        if encoded_packet is not None:
            self.decode(encoded_packet)

    def encode(self) -> bytes:
        return _encode(self._to_dict())

    def decode(self, encoded_packet: bytes | str) -> int:
        self.packet_type, self.namespace, self.id = EVENT, "/", None
        self.data: Any = [MALFORMED]
        try:
            incoming = _decode(encoded_packet if isinstance(encoded_packet, bytes) else b"")
        except (msgspec.DecodeError, RecursionError):
            return 0
        if incoming.id is not None and 0 <= incoming.id < 2**53:
            self.id = incoming.id
        data = incoming.data
        if incoming.type in (CONNECT, DISCONNECT):
            self.packet_type, self.namespace, self.data = incoming.type, incoming.nsp, None
        elif incoming.type == EVENT and incoming.nsp == "/" and isinstance(data, list) and len(data) == 2:  # noqa: SIM102
            if isinstance(data[0], str) and data[0] in CLIENT_EVENTS:
                self.data = data
        return 0


class WholeSocket:
    """A gevent socket whose `send` writes everything, one caller at a time, within `WRITE_SECONDS`."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._lock = RLock()
        with suppress(OSError):  # not on a Unix socket
            socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # or ticks wait for acknowledgements

    def send(self, data: bytes) -> int:
        try:
            with self._lock, gevent.Timeout(WRITE_SECONDS, TimeoutError("the client does not read")):
                self._socket.sendall(data)
        except OSError as error:
            raise BrokenPipeError(str(error)) from error  # what simple-websocket expects when it closes
        return len(data)

    def dup(self) -> WholeSocket:
        return WholeSocket(self._socket.dup())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def bounded_websocket(max_message_bytes: int) -> type[Any]:
    """The class that engineio makes for each websocket, with messages of at most `max_message_bytes`."""

    class WebSocket(driver.WebSocketWSGI):  # type: ignore[misc]
        def __init__(self, handler: Callable[..., Any], server: Any) -> None:
            super().__init__(handler, server)
            self.server_args["max_message_size"] = max_message_bytes

        def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
            stream = environ["wsgi.input"]
            stream = stream if hasattr(stream, "raw") else stream.rfile
            environ["wsgi.input"] = SimpleNamespace(raw=SimpleNamespace(_sock=WholeSocket(stream.raw._sock)))
            answer: Iterable[bytes] = super().__call__(environ, start_response)
            return answer

        def wait(self) -> bytes | str | None:
            """The next message; None, as at the end, for a text that a page never sends."""
            content: bytes | str | None = super().wait()
            return None if isinstance(content, str) and content not in TEXTS else content

    return WebSocket
