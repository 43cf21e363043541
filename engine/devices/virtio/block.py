"""virtio-blk: a disk whose image is never changed. What the guest writes lies over it, in clusters.

    request   type u32, reserved u32, sector u64 │ data to write      (the device reads these)
              data that was read │ status u8                          (the device writes these)

Virtio 1.2, 5.2. The image may be shared by any number of disks; `overlay` has this disk's own clusters and is
all of its content that a snapshot carries. Snapshots share it, and it is copied at the first write after
one.

A write is kept when its request completes, so a flush finds nothing to do. Discarding sectors zeroes them, as
writing zeroes does: what they read afterwards must not depend on anything outside the guest's view.

A request that moves more than SEGMENTS parts of SEGMENT_BYTES, the limits that a driver is told, gets an I/O
error: that bounds what one notification can cost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum

from engine.devices import GuestMemory, State
from engine.devices.virtio.mmio import VirtioDevice
from engine.devices.virtio.queue import DriverError, Virtqueue

SECTOR = 512
CLUSTER = 4096
QUEUE_SIZE = 64
SEGMENTS = QUEUE_SIZE - 2  # a request has a header and a status besides
SEGMENT_BYTES = 16 << 10
MAX_BYTES = SEGMENTS * SEGMENT_BYTES
MAX_ZEROED_SECTORS = 1 << 13

SIZE_MAX, SEG_MAX, RO, BLK_SIZE, FLUSH, DISCARD, WRITE_ZEROES = (
    1 << bit for bit in (1, 2, 5, 6, 9, 13, 14)
)
S_OK, S_IOERR, S_UNSUPP = 0, 1, 2
ID_BYTES = 20

_HEADER = struct.Struct("<IIQ")
_RANGE = struct.Struct("<QII")
_UNMAP = 1
_ZERO = bytes(CLUSTER)
#: capacity, size_max, seg_max, geometry (none), blk_size, topology and cache mode (not offered); discard:
#: most sectors in a range, most ranges in a request, alignment; write zeroes: most sectors, most ranges,
#: may unmap.
_CONFIG = struct.Struct("<QII4xI8x4xIIIIIB3x")


class Request(IntEnum):
    """Types of requests."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class Disk:
    """Present content of a disk: `image`, rounded up to whole sectors with zeroes, and what was written over
    it. It outlives the board around it, as a disk outlives a reboot. `image` may be a view of a file that
    nobody changes."""

    def __init__(self, image: bytes | memoryview, read_only: bool = False) -> None:
        self.image = image
        self.read_only = read_only
        self.capacity = -(-len(image) // SECTOR)  # sectors
        self.overlay: dict[int, bytes] = {}
        self._shared = False  # a snapshot holds `overlay`

    def holds(self, sector: int, length: int) -> bool:
        """Are these whole sectors of the disk? `length` in bytes."""
        return length % SECTOR == 0 and sector + length // SECTOR <= self.capacity

    def read(self, sector: int, length: int) -> bytes:
        """`length` bytes; the disk holds them."""
        begin = sector * SECTOR
        end = begin + length
        parts = []
        while begin < end:
            cluster, at = divmod(begin, CLUSTER)
            parts.append(self._cluster(cluster)[at : at + end - begin])
            begin += CLUSTER - at
        return b"".join(parts)

    def write(self, sector: int, data: bytes) -> None:
        """Put whole sectors where the disk holds them."""
        if self._shared:
            self.overlay, self._shared = dict(self.overlay), False
        begin, done = sector * SECTOR, 0
        while done < len(data):
            cluster, at = divmod(begin + done, CLUSTER)
            piece = data[done : done + CLUSTER - at]
            done += len(piece)
            if len(piece) < CLUSTER:
                old = self._cluster(cluster)
                piece = old[:at] + piece + old[at + len(piece) :]
            self.overlay[cluster] = _ZERO if piece == _ZERO else piece

    def _cluster(self, cluster: int) -> bytes:
        """4096 bytes; what lies beyond the disk's end is zero."""
        own = self.overlay.get(cluster)
        if own is not None:
            return own
        return bytes(self.image[cluster * CLUSTER : (cluster + 1) * CLUSTER]).ljust(CLUSTER, b"\0")

    def save(self) -> dict[int, bytes]:
        """The clusters that were written."""
        self._shared = True
        return self.overlay

    def load(self, overlay: dict[int, bytes]) -> None:
        """Take what `save` gave for the same image. Raises ValueError if it cannot be of this disk."""
        clusters = -(-self.capacity * SECTOR // CLUSTER)
        for cluster, content in overlay.items():
            if not 0 <= cluster < clusters or not isinstance(content, bytes) or len(content) != CLUSTER:
                raise ValueError(f"cluster {cluster} cannot be on a disk of {clusters} clusters")
        self.overlay, self._shared = overlay, True


class Block(VirtioDevice):
    """The device around a disk. `serial`: up to 20 bytes."""

    device_id = 2
    queue_sizes = (QUEUE_SIZE,)

    def __init__(
        self,
        index: int,
        memory: GuestMemory,
        set_line: Callable[[bool], None],
        disk: Disk,
        serial: bytes = b"ringside",
    ) -> None:
        features = SIZE_MAX | SEG_MAX | BLK_SIZE | FLUSH | (RO if disk.read_only else DISCARD | WRITE_ZEROES)
        config = _CONFIG.pack(
            disk.capacity, SEGMENT_BYTES, SEGMENTS, SECTOR,
            MAX_ZEROED_SECTORS, 1, CLUSTER // SECTOR, MAX_ZEROED_SECTORS, 1, 1,
        )  # fmt: skip
        super().__init__("virtio-blk", index, memory, set_line, features, config)
        self.disk = disk
        self.serial = serial[:ID_BYTES].ljust(ID_BYTES, b"\0")

    def work(self, index: int, queue: Virtqueue) -> None:  # noqa: ARG002
        for chain in queue.chains():
            room = chain.room - 1
            if room < 0:
                raise DriverError("a request without a status byte")
            answer = self._request(chain.read(_HEADER.size + MAX_BYTES), room)
            data, status = (b"", answer) if isinstance(answer, int) else (answer, S_OK)
            chain.write(data)
            chain.write(bytes([status]), room)
            # What counts as written goes from the buffer's begin to the first gap (2.7.8.2).
            queue.give(chain, room + 1 if len(data) == room else len(data))

    def _request(self, request: bytes, room: int) -> bytes | int:
        """What was read, or a status."""
        if len(request) < _HEADER.size:
            raise DriverError("a request without a header")
        kind, _, sector = _HEADER.unpack_from(request)
        data = request[_HEADER.size :]
        match kind:
            case Request.IN:
                if room > MAX_BYTES or not self.disk.holds(sector, room):
                    return S_IOERR
                return self.disk.read(sector, room)
            case Request.OUT:
                return self._store(sector, data)
            case Request.FLUSH:
                return S_OK
            case Request.GET_ID:
                return self.serial[:room]
            case Request.DISCARD | Request.WRITE_ZEROES:
                return self._zero(data, may_unmap=kind == Request.WRITE_ZEROES)
        return S_UNSUPP

    def _zero(self, data: bytes, may_unmap: bool) -> int:
        """Discard or write zeroes: one range (5.2.6.2)."""
        if len(data) != _RANGE.size:
            return S_IOERR
        sector, count, flags = _RANGE.unpack(data)
        if flags & ~(_UNMAP if may_unmap else 0):
            return S_UNSUPP
        return S_IOERR if count > MAX_ZEROED_SECTORS else self._store(sector, bytes(count * SECTOR))

    def _store(self, sector: int, data: bytes) -> int:
        if self.disk.read_only or not self.disk.holds(sector, len(data)):
            return S_IOERR
        self.disk.write(sector, data)
        return S_OK

    def save(self) -> State:
        return super().save() | {"overlay": self.disk.save()}

    def load(self, state: State) -> None:
        super().load(state)
        self.disk.load(state["overlay"])
