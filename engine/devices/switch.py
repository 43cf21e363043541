"""The Ethernet switch of a lab: it connects the network cards of its guests, and there is no way out.

It learns which address is behind which port from the frames that come in (IEEE 802.1D-2004, 7.8) and sends a
frame on to the port behind its destination; to all ports but the one it came from when it does not know that,
or when the destination is a group. A port is a guest, wherever in the lab it runs: moving a guest does not
pull its cable.

    guest ─ send(time, host, guest, frame) ─> pending ─ forward() ─> the frames for each guest

Frames wait until the end of the epoch in which they were sent (see `engine.world`) and then go in the order
of (time, host, guest), so that no order of executing hosts can be seen in them. A port takes PORT_FRAMES of
them in and gives as many out in an epoch: the rest is lost, which is what a switch with full queues does.
That bounds its memory, with ADDRESSES learned at most; the one heard of longest ago is forgotten first.
"""

from __future__ import annotations

from typing import Any

PORT_FRAMES = 128
ADDRESSES = 1024
_GROUP = 1  # of an address' first byte


class Switch:
    """`pending`: are there frames that wait?"""

    def __init__(self) -> None:
        self._ports: set[int] = set()
        self._behind: dict[bytes, int] = {}  # address -> port, longest unheard of first
        self._waiting: list[tuple[int, int, int, bytes]] = []
        self._taken: dict[int, int] = {}  # port -> frames that it took in this epoch

    def plug(self, port: int) -> None:
        self._ports.add(port)

    def unplug(self, port: int) -> None:
        """Frames that it sent and that wait are lost with it."""
        self._ports.discard(port)
        self._behind = {address: behind for address, behind in self._behind.items() if behind != port}
        self._waiting = [frame for frame in self._waiting if frame[2] != port]

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    def send(self, time: int, host: int, port: int, frame: bytes) -> None:
        """A frame of at least 14 bytes comes in at `time` (ns) from a port on `host`."""
        taken = self._taken[port] = self._taken.get(port, 0) + 1
        if taken <= PORT_FRAMES:
            self._waiting.append((time, host, port, frame))

    def forward(self) -> list[tuple[int, list[bytes]]]:
        """The epoch is over: (port, its frames in order), by port, of all that wait."""
        out: dict[int, list[bytes]] = {}
        for _, _, port, frame in sorted(self._waiting, key=_order):
            destination, source = frame[:6], frame[6:12]
            if not source[0] & _GROUP:
                self._learn(source, port)
            behind = None if destination[0] & _GROUP else self._behind.get(destination)
            for target in self._ports if behind is None else (behind,):
                frames = out.setdefault(target, [])
                if target != port and len(frames) < PORT_FRAMES:
                    frames.append(frame)
        self._waiting.clear()
        self._taken.clear()
        return sorted((port, frames) for port, frames in out.items() if frames)

    def _learn(self, address: bytes, port: int) -> None:
        self._behind.pop(address, None)
        self._behind[address] = port
        if len(self._behind) > ADDRESSES:
            del self._behind[next(iter(self._behind))]

    def save(self) -> dict[str, Any]:
        """Its ports are the lab's guests and not part of this."""
        return {
            "behind": [[address, port] for address, port in self._behind.items()],
            "waiting": [list(frame) for frame in self._waiting],
            "taken": [[port, count] for port, count in self._taken.items()],
        }

    def load(self, state: dict[str, Any]) -> None:
        self._behind = {address: port for address, port in state["behind"] if port in self._ports}
        self._waiting = [
            (time, host, port, frame) for time, host, port, frame in state["waiting"] if port in self._ports
        ]
        self._taken = dict(state["taken"])


def _order(frame: tuple[int, int, int, bytes]) -> tuple[int, int, int]:
    """By time, host, port; those of one port as they came."""
    return frame[:3]
