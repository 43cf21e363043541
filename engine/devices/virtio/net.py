"""virtio-net: an Ethernet card. Frames go to the lab's switch and nowhere else.

    header   flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16,
             num_buffers u16

Virtio 1.2, 5.1: one pair of queues, no control queue, no offloads, so the header of a frame is empty. Queue 0
takes frames from the wire, queue 1 has those that the guest sends. The card is promiscuous, as one without
a control queue is. A frame that finds no buffer of its size is lost, as on a real wire.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from engine.devices import GuestMemory, State
from engine.devices.virtio.mmio import VirtioDevice
from engine.devices.virtio.queue import DriverError, Virtqueue

RECEIVE, TRANSMIT = 0, 1
QUEUE_SIZE = 128
MTU, MAC, STATUS = 1 << 3, 1 << 5, 1 << 16
LINK_UP = 1
MTU_BYTES = 1500
ETHERNET_HEADER = 14
#: The largest frame: an Ethernet header, a VLAN tag, and the payload.
FRAME_BYTES = ETHERNET_HEADER + 4 + MTU_BYTES
HEADER_BYTES = 12
_RECEIVED = bytes(10) + (1).to_bytes(2, "little")  # one buffer
#: mac, status, max_virtqueue_pairs, mtu
_CONFIG = struct.Struct("<6sHHH")


def mac_address(guest: int) -> bytes:
    """The address of a guest's card: locally administered, "RS", its number."""
    return b"\x02RS\0" + guest.to_bytes(2, "big")


class Net(VirtioDevice):
    """`send(frame)` gets each frame of ETHERNET_HEADER to FRAME_BYTES bytes that the guest sends."""

    device_id = 1
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(
        self,
        index: int,
        memory: GuestMemory,
        set_line: Callable[[bool], None],
        mac: bytes,
        send: Callable[[bytes], None],
    ) -> None:
        config = _CONFIG.pack(mac, LINK_UP, 1, MTU_BYTES)
        super().__init__("virtio-net", index, memory, set_line, MTU | MAC | STATUS, config)
        self._send = send
        self._arriving: Sequence[bytes] = ()

    def receive(self, frames: Sequence[bytes]) -> None:
        """Frames arrive together: those for which the driver has no buffer are lost."""
        self._arriving = frames
        self.service(RECEIVE)
        self._arriving = ()

    def work(self, index: int, queue: Virtqueue) -> None:
        if index == RECEIVE:
            self._deliver(queue)
            return
        for chain in queue.chains():
            packet = chain.read(HEADER_BYTES + FRAME_BYTES)
            if len(packet) < HEADER_BYTES + ETHERNET_HEADER:
                raise DriverError(f"a packet of {len(packet)} bytes")
            self._send(packet[HEADER_BYTES:])
            queue.give(chain, 0)

    def _deliver(self, queue: Virtqueue) -> None:
        waiting = queue.waiting()
        for frame in self._arriving:
            if not waiting:
                break
            chain = queue.take()
            if chain.room < HEADER_BYTES + len(frame):
                queue.put_back()
                continue
            chain.write(_RECEIVED + frame)
            queue.give(chain, HEADER_BYTES + len(frame))
            waiting -= 1

    def save(self) -> State:
        return super().save() | {"config": self.config}

    def load(self, state: State) -> None:
        super().load(state)
        if len(state["config"]) != _CONFIG.size:
            raise ValueError(f"a network card's configuration of {len(state['config'])} bytes")
        self.config = bytes(state["config"])
