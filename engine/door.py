"""A port on which one gdb at a time talks to a stub. Nothing here waits: the caller looks when a socket is ready.

Who comes while another client is there is turned away. A client that reads nothing is let go once `UNREAD_BYTES` wait
for it, so that it holds up nobody; what it sends is bounded by the stub (engine.gdb).
"""

from __future__ import annotations

import socket

from engine.gdb import Stub

READ_BYTES = 1 << 16
UNREAD_BYTES = 1 << 20


class Door:
    """Listens at once; port 0 is any that is free. Raises OSError when it cannot."""

    def __init__(self, stub: Stub, address: str, port: int = 0) -> None:
        self.stub = stub
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._server = socket.create_server((address, port), family=family)
        self._server.setblocking(False)
        self._client: socket.socket | None = None
        self._unread = bytearray()
        self.address: str = address
        self.port: int = self._server.getsockname()[1]

    @property
    def attached(self) -> bool:
        """Is a client there?"""
        return self._client is not None

    def readers(self) -> list[socket.socket]:
        """What to wait for: somebody knocks or says something."""
        return [self._server] if self._client is None else [self._server, self._client]

    def writers(self) -> list[socket.socket]:
        """What to wait for besides: the client can take more."""
        return [self._client] if self._client is not None and self._unread else []

    def exchange(self) -> None:
        """Let a client in, hear what it says and answer."""
        self._greet()
        if self._client is None:
            return
        try:
            said = self._client.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            self.say(b"")
        except OSError:
            self.hang_up()
        else:
            if said:
                self.say(self.stub.feed(said))
            else:
                self.hang_up()

    def say(self, data: bytes) -> None:
        """Send what the stub has for the client, as far as it takes it."""
        if self._client is None:
            return
        self._unread += data
        try:
            if self._unread:
                del self._unread[: self._client.send(self._unread)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.hang_up()
        if len(self._unread) > UNREAD_BYTES:
            self.hang_up()

    def hang_up(self) -> None:
        """The client is gone, or has to go."""
        if self._client is not None:
            self._client.close()
            self._client = None
            self._unread.clear()
            self.stub.hang_up()

    def close(self) -> None:
        self.hang_up()
        self._server.close()

    def _greet(self) -> None:
        try:
            client, _ = self._server.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return  # it left before it was let in
        if self._client is not None:
            client.close()
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        self.stub.attach()
