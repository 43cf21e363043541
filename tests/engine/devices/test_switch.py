"""The lab's Ethernet switch, port by port."""

from __future__ import annotations

import random

import msgpack
import pytest

from engine.devices.switch import ADDRESSES, PORT_FRAMES, Switch

ALL = b"\xff" * 6
GROUP = b"\x01\x00\x5e\x00\x00\x01"


def _mac(number: int) -> bytes:
    return b"\x02RS" + number.to_bytes(3, "big")


def _frame(destination: bytes, source: bytes, payload: bytes = b"") -> bytes:
    return destination + source + b"\x08\x00" + payload


def _switch(ports: int = 3) -> Switch:
    switch = Switch()
    for port in range(1, ports + 1):
        switch.plug(port)
    return switch


def _send(switch: Switch, port: int, frame: bytes, time: int = 0, host: int = 1) -> dict[int, list[bytes]]:
    switch.send(time, host, port, frame)
    return dict(switch.forward())


@pytest.mark.parametrize("destination", [ALL, GROUP, _mac(9)])
def test_groups_and_strangers_are_told_to_everybody_else(destination: bytes) -> None:
    frame = _frame(destination, _mac(2))
    assert _send(_switch(), 2, frame) == {1: [frame], 3: [frame]}


def test_a_frame_goes_where_its_destination_was_heard() -> None:
    switch = _switch()
    _send(switch, 1, _frame(ALL, _mac(1)))
    answer = _frame(_mac(1), _mac(3))
    assert _send(switch, 3, answer) == {1: [answer]}
    assert _send(switch, 1, _frame(_mac(1), _mac(1))) == {}, "not back where it came from"
    _send(switch, 2, _frame(ALL, _mac(1)))
    assert _send(switch, 3, answer) == {2: [answer]}, "the address moved"


def test_a_group_address_is_no_source() -> None:
    switch = _switch()
    _send(switch, 1, _frame(ALL, GROUP))
    frame = _frame(GROUP, _mac(2))
    assert sorted(_send(switch, 2, frame)) == [1, 3]


def test_frames_arrive_by_time_host_and_port_however_they_were_sent() -> None:
    sent = [
        (time, host, 2 * host - odd, _frame(ALL, _mac(9), bytes([time, host, odd, number])))
        for time in (5, 7)
        for host in (1, 2)
        for odd in (1, 0)
        for number in range(2)
    ]
    arrived = []
    for seed in range(4):
        order = {port: [frame for frame in sent if frame[2] == port] for port in range(1, 5)}
        switch, dice = _switch(5), random.Random(seed)
        while any(order.values()):
            switch.send(*order[dice.choice([port for port in order if order[port]])].pop(0))
        arrived.append(dict(switch.forward())[5])
    assert arrived == [[frame[3] for frame in sent]] * 4


def test_ports_take_and_give_a_bounded_number_of_frames() -> None:
    switch = _switch(4)
    for number in range(3 * PORT_FRAMES):
        for port in (1, 2, 3):
            switch.send(number, 1, port, _frame(_mac(4), _mac(port)))
    assert len(switch.save()["waiting"]) == 3 * PORT_FRAMES
    out = dict(switch.forward())
    assert {port: len(frames) for port, frames in out.items()} == {
        1: PORT_FRAMES, 2: PORT_FRAMES, 3: PORT_FRAMES, 4: PORT_FRAMES,
    }  # fmt: skip
    assert not switch.pending
    assert _send(switch, 1, _frame(ALL, _mac(1))), "the next epoch begins anew"


def test_addresses_are_forgotten_when_there_are_too_many() -> None:
    switch = _switch()
    for number in range(ADDRESSES + 1):
        switch.send(number, 1, 1, _frame(_mac(0), _mac(number)))
        switch.forward()
        switch.send(number, 1, 2, _frame(_mac(0), _mac(1 << 20)))
        switch.forward()
    assert len(switch.save()["behind"]) == ADDRESSES
    assert sorted(_send(switch, 3, _frame(_mac(1), _mac(99)))) == [1, 2], "forgotten"
    assert sorted(_send(switch, 3, _frame(_mac(1 << 20), _mac(99)))) == [2], "heard all the time"


def test_a_cable_that_is_pulled() -> None:
    switch = _switch()
    _send(switch, 1, _frame(ALL, _mac(1)))
    switch.send(0, 1, 1, _frame(ALL, _mac(1)))
    switch.send(0, 1, 2, _frame(_mac(1), _mac(2)))
    switch.unplug(1)
    assert dict(switch.forward()) == {3: [_frame(_mac(1), _mac(2))]}


def test_a_snapshot_goes_on_alike() -> None:
    switch, other = _switch(), _switch()
    _send(switch, 1, _frame(ALL, _mac(1)))
    for number in range(PORT_FRAMES + 5):
        switch.send(number, 1, 2, _frame(_mac(1), _mac(2)))
    other.load(msgpack.unpackb(msgpack.packb(switch.save())))
    for each in (switch, other):
        each.send(9999, 1, 2, _frame(_mac(1), _mac(2)))
    assert other.save() == switch.save()
    assert other.forward() == switch.forward()


def test_a_snapshot_names_no_port_that_is_not_there() -> None:
    switch, smaller = _switch(), _switch(1)
    _send(switch, 3, _frame(ALL, _mac(3)))
    switch.send(0, 1, 3, _frame(_mac(3), _mac(2)))
    smaller.load(switch.save())
    assert not smaller.pending
    assert _send(smaller, 1, _frame(_mac(3), _mac(1))) == {}
