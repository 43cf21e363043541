"""The network card's back end: a ring of frames to send, and one of empty buffers for those that arrive. The wire is
the lab's switch, the address the one that virtio-net would show. A frame for which there is no buffer of its size is
lost, as on a real wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.devices.paravirtual.ring import BrokenRingError, RequestRing, Status
from engine.devices.virtio.net import ETHERNET_HEADER, FRAME_BYTES


class NetRings:
    """`send(frame)` gets each frame that the guest sends; `tell()` is called when a ring has answers."""

    def __init__(
        self, sending: RequestRing, receiving: RequestRing, send: Callable[[bytes], None], tell: Callable[[], None]
    ) -> None:
        self.sending = sending
        self.receiving = receiving
        self._send = send
        self._tell = tell

    def service(self) -> bool:
        """Send what waits. False: there is no ring, or its indices are impossible."""
        if not self.sending.connected:
            return False
        try:
            for request in self.sending.requests():
                frame = self.sending.load(request) if ETHERNET_HEADER <= request.bytes <= FRAME_BYTES else Status.INVALID
                if isinstance(frame, Status):
                    self.sending.answer(request, frame)
                else:
                    self._send(frame)
                    self.sending.answer(request, Status.OK, len(frame))
                self._tell()
        except BrokenRingError:
            self.sending.disconnect()
            return False
        return True

    def receive(self, frames: Sequence[bytes]) -> None:
        """Frames arrive together."""
        try:
            waiting = self.receiving.waiting()
            for frame in frames:
                if not waiting:
                    break
                request = self.receiving.first()
                if request.bytes < len(frame):
                    continue
                status = self.receiving.store(request, frame)
                self.receiving.answer(request, status, len(frame) if status == Status.OK else 0)
                waiting -= 1
                self._tell()
        except BrokenRingError:
            self.receiving.disconnect()
