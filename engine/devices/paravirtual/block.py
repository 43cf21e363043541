"""The disk's back end: READ and WRITE of whole sectors from `place` on, one granted page at most in a request; FLUSH,
which finds nothing to do. The disk is the one that virtio-blk would show (engine.devices.virtio.block)."""

from __future__ import annotations

from collections.abc import Callable

from engine.devices.paravirtual.ring import BrokenRingError, Request, RequestRing, Status
from engine.devices.virtio.block import Disk

READ, WRITE, FLUSH = range(3)


class BlockRing:
    """`disk`: None where there is none. `tell()` is called when requests were answered."""

    def __init__(self, ring: RequestRing, disk: Disk | None, tell: Callable[[], None]) -> None:
        self.ring = ring
        self._disk = disk
        self._tell = tell

    def connect(self, address: int) -> int | None:
        """The disk's sectors; None: there is no disk."""
        if self._disk is None:
            return None
        self.ring.connect(address)
        return self._disk.capacity

    def service(self) -> bool:
        """Answer what waits. False: there is no ring, or its indices are impossible."""
        if not self.ring.connected:
            return False
        try:
            for request in self.ring.requests():
                status = self._serve(request)
                self.ring.answer(request, status, request.bytes if status == Status.OK else 0)
                self._tell()
        except BrokenRingError:
            self.ring.disconnect()
            return False
        return True

    def _serve(self, request: Request) -> Status:
        disk = self._disk
        assert disk is not None
        if request.operation == FLUSH:
            return Status.OK
        if not request.bytes or not disk.holds(request.place, request.bytes):
            return Status.INVALID
        if request.operation == READ:
            return self.ring.store(request, disk.read(request.place, min(request.bytes, 4096)))
        if request.operation != WRITE:
            return Status.INVALID
        data = self.ring.load(request)
        if isinstance(data, Status):
            return data
        if disk.read_only:
            return Status.FAILED
        disk.write(request.place, data)
        return Status.OK
