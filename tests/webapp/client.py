"""A page without a browser: speaks engine.io, Socket.IO's MessagePack and Ringside's protocol over a plain
websocket.

Written against the protocols' texts (Engine.IO 4, Socket.IO 5) with `websocket-client` and `msgpack`, so
the server is compared with something that shares no code with it.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Self

import msgpack
import websocket

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = range(5)


class Page:
    """One websocket. Ticks and other events are kept in `events` in the order of arrival."""

    def __init__(
        self, port: int, *, origin: str | None = None, host: str | None = None, acknowledge: bool = True
    ) -> None:
        self.acknowledging = acknowledge
        self.events: list[tuple[str, Any]] = []
        self._answers: dict[int, Any] = {}
        self._number = 0
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket",
            timeout=20,
            origin=origin,
            host=host,
            suppress_origin=origin is None,
        )
        opened = self._socket.recv()
        assert isinstance(opened, str)
        assert opened.startswith("0{"), opened
        self.packet({"type": CONNECT, "nsp": "/"})
        packet = self._receive()
        assert packet["type"] == CONNECT, packet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.shutdown()

    def vanish(self) -> None:
        """Go as a machine does whose cable is pulled: the connection is reset, nothing is said."""
        self._socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.shutdown()

    # -- sending -------------------------------------------------------------------------------------
    def raw(self, content: bytes | str) -> None:
        if isinstance(content, bytes):
            self._socket.send_binary(content)
        else:
            self._socket.send(content)

    def packet(self, packet: dict[str, Any]) -> None:
        self.raw(msgpack.packb(packet))

    def send(self, event: Any, content: Any) -> int:
        """Send an event that asks for an acknowledgement; its number."""
        self._number += 1
        self.packet({"type": EVENT, "nsp": "/", "id": self._number, "data": [event, content]})
        return self._number

    def tell(self, event: str, content: Any) -> None:
        """Send an event that asks for none."""
        self.packet({"type": EVENT, "nsp": "/", "data": [event, content]})

    # -- receiving -----------------------------------------------------------------------------------
    def _receive(self, timeout: float = 20) -> Any:
        until = time.monotonic() + timeout
        while True:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            content = self._socket.recv()
            if content == "2":
                self._socket.send("3")
            elif isinstance(content, bytes) and content:
                return msgpack.unpackb(content, strict_map_key=False)
            elif content == "1" or not content:
                raise ConnectionError("the server closed the connection")

    def pump(self, timeout: float = 20) -> None:
        """Take one packet."""
        packet = self._receive(timeout)
        if packet["type"] == ACK:
            self._answers[packet["id"]] = packet["data"][0] if packet["data"] else None
        elif packet["type"] == EVENT:
            event, content = packet["data"]
            self.events.append((event, content))
            if self.acknowledging and event == "tick" and content["n"] % 4 == 0:
                self.tell("ack", {"tick": content["n"]})
            if self.acknowledging and event == "keyframe":
                self.tell("ack", {"tick": content["tick"]})
        elif packet["type"] == DISCONNECT:
            raise ConnectionError("the server disconnected the page")

    def answer(self, number: int, timeout: float = 30) -> Any:
        """The acknowledgement of a message that was sent."""
        until = time.monotonic() + timeout
        while number not in self._answers:
            self.pump(max(0.01, until - time.monotonic()))
        return self._answers.pop(number)

    def ask(self, event: Any, content: Any, timeout: float = 30) -> Any:
        return self.answer(self.send(event, content), timeout)

    def join(self, lab: str = "demo") -> dict[str, Any]:
        answer = self.ask("join", {"lab": lab, "protocol": 1})
        assert answer["ok"], answer
        found: dict[str, Any] = answer
        return found

    def command(self, tag: str, **fields: Any) -> dict[str, Any]:
        answer = self.ask("command", {"command": {"type": tag, **fields}})
        assert answer["ok"], answer
        found: dict[str, Any] = answer
        return found

    def query(self, tag: str, **fields: Any) -> dict[str, Any]:
        answer = self.ask("query", {"query": {"type": tag, **fields}})
        assert answer["ok"], answer
        found: dict[str, Any] = answer["result"]
        return found

    def until(self, event: str, holds: Callable[[Any], bool] = lambda _: True, timeout: float = 30) -> Any:
        """Take packets until an event for which `holds`; its content. What came before it is dropped."""
        end, seen = time.monotonic() + timeout, 0
        while True:
            for name, content in self.events[seen:]:
                seen += 1
                if name == event and holds(content):
                    del self.events[:seen]
                    return content
            self.pump(max(0.01, end - time.monotonic()))

    def drain(self, seconds: float) -> None:
        """Take what arrives within `seconds`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.pump(left)
            except (TimeoutError, websocket.WebSocketTimeoutException):
                return
