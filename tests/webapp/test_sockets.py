"""The live half: what pages are answered and see, how a laggard comes back, what hostile ones cannot do."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.server import Server
from tests.webapp.client import EVENT, Page
from tests.webapp.conftest import create_lab

Pages = Callable[..., Page]


def names(document: dict[str, Any]) -> list[str]:
    return [host["name"] for host in document["hosts"]]


# -- joining and ticks -----------------------------------------------------------------------------------
def test_a_page_joins_with_everything_it_needs(page: Pages) -> None:
    joined = page().join("demo")
    assert set(joined) == {"ok", "keyframe", "revision", "tick", "lab", "clients"}
    keyframe = joined["keyframe"]
    assert {"schema", "document", "position", "status", "totals", "console", "records", "history"} <= set(
        keyframe
    )
    assert len(keyframe["records"]) % keyframe["schema"]["size"] == 0


def test_ticks_follow_the_keyframe_without_a_gap(page: Pages) -> None:
    first = page()
    tick = first.join("demo")["tick"]
    for expected in range(tick + 1, tick + 8):
        assert first.until("tick")["n"] == expected


def test_joining_in_the_middle_of_the_stream_leaves_no_gap_either(page: Pages) -> None:
    crowd = [page() for _ in range(12)]
    numbers = [one.send("join", {"lab": "demo", "protocol": 1}) for one in crowd]
    for one, number in zip(crowd, numbers, strict=True):
        tick = one.answer(number)["tick"]
        assert [event for event, _ in one.events if event == "tick"] == []
        assert [one.until("tick")["n"] for _ in range(3)] == [tick + 1, tick + 2, tick + 3]


def test_a_paused_lab_is_silent_and_a_change_in_it_is_not(page: Pages, lab: str) -> None:
    one = page()
    one.join(lab)
    one.drain(1.0)
    assert [event for event, _ in one.events if event == "tick"] == []
    one.command("host.create")
    assert one.until("document")["document"]["hosts"]


def test_presence_counts_the_pages_of_a_lab(page: Pages, lab: str) -> None:
    one, two = page(), page()
    assert one.join(lab)["clients"] == 1
    assert two.join(lab)["clients"] == 2
    one.until("presence", lambda content: content["clients"] == 2)
    two.close()
    one.until("presence", lambda content: content["clients"] == 1)


# -- commands --------------------------------------------------------------------------------------------
def test_two_pages_see_the_same(page: Pages, lab: str) -> None:
    one, two = page(), page()
    one.join(lab)
    two.join(lab)
    revision = one.command("host.create", name="alpha")["revision"]
    for each in (one, two):
        seen = each.until("document", lambda content: content["revision"] == revision)
        assert names(seen["document"]) == ["alpha"]
    two.command("host.update", host=seen["document"]["hosts"][0]["id"], name="beta")
    for each in (one, two):
        each.until("document", lambda content: names(content["document"]) == ["beta"])


def test_going_back_in_time_gives_everybody_a_keyframe(page: Pages, lab: str) -> None:
    one, two = page(), page()
    one.join(lab)
    two.join(lab)
    host = one.command("host.create")["result"]["host"]
    one.command("guest.create", host=host, image="hello")
    for _ in range(3):
        assert one.command("lab.step", unit="instruction")["result"]["reached"]
    before = one.command("lab.step", unit="instruction")["result"]["position"]
    after = one.command("lab.step_back", unit="instruction")["result"]["position"]
    assert after < before
    keyframes = [
        each.until("keyframe", lambda content: content["keyframe"]["position"] == after)
        for each in (one, two)
    ]
    assert keyframes[0] == keyframes[1]


def test_a_refused_command_changes_nothing(page: Pages, lab: str) -> None:
    one = page()
    one.join(lab)
    revision = one.command("host.create")["revision"]
    for wrong in (
        {"type": "host.create", "memory_mib": 3},
        {"type": "host.create", "surprise": 1},
        {"type": "host.remove", "host": 999},
        {"type": "no.such.command"},
        {"type": "image.add", "name": "x", "content": b"x"},
        {},
    ):
        answer = one.ask("command", {"command": wrong})
        assert not answer["ok"]
        assert answer["error"]["message"]
    assert one.command("host.create")["revision"] == revision + 1


def test_a_problem_says_what_was_wrong_and_where(page: Pages, lab: str) -> None:
    one = page()
    one.join(lab)
    error = one.ask("command", {"command": {"type": "host.create", "harts": 99}})["error"]
    assert error["key"] == "bad-message"
    assert "harts" in error["params"]["detail"]
    assert "8" in error["params"]["detail"]


@pytest.mark.parametrize("name", ["", "<b>", " x", "x" * 41])
def test_a_name_that_is_none_is_explained_to_the_person_who_typed_it(
    page: Pages, lab: str, name: str
) -> None:
    one = page()
    one.join(lab)
    error = one.ask("command", {"command": {"type": "lab.rename", "name": name}})["error"]
    assert error["key"] == "bad-name"
    assert "letters" in error["message"]


def test_whole_64_bit_numbers_pass_both_ways(page: Pages, lab: str) -> None:
    one = page()
    one.join(lab)
    host = one.command("host.create")["result"]["host"]
    guest = one.command("guest.create", host=host, image="hello")["result"]["guest"]
    address = 0xFFFF_FFFF_8000_0123
    answer = one.ask("query", {"query": {"type": "memory", "guest": guest, "address": address, "length": 1}})
    assert answer["ok"], answer
    assert answer["result"]["address"] == address


def test_commands_are_carried_out_in_the_order_they_were_sent(page: Pages, lab: str) -> None:
    one = page()
    one.join(lab)
    numbers = [one.send("command", {"command": {"type": "host.create", "name": f"h{n}"}}) for n in range(10)]
    revisions = [one.answer(number)["revision"] for number in numbers]
    assert revisions == list(range(1, 11))
    assert names(one.join(lab)["keyframe"]["document"]) == [f"h{n}" for n in range(10)]


# -- what is refused -------------------------------------------------------------------------------------
def test_nothing_is_done_before_joining(page: Pages) -> None:
    one = page()
    assert one.ask("command", {"command": {"type": "lab.pause"}})["error"]["key"] == "not-joined"
    assert one.ask("query", {"query": {"type": "costs"}})["error"]["key"] == "not-joined"


def test_joining_what_is_not_there(page: Pages) -> None:
    one = page()
    assert one.ask("join", {"lab": "nowhere", "protocol": 1})["error"]["key"] == "lab-not-found"
    assert one.ask("join", {"lab": "../etc", "protocol": 1})["error"]["key"] == "bad-message"
    assert one.ask("join", {"lab": "demo", "protocol": 2})["error"]["key"] == "protocol-version"


def test_another_sites_page_cannot_connect(shared: Server) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        Page(shared.port, origin="http://evil.example")
    assert refused.value.status_code == 400
    with pytest.raises(websocket.WebSocketBadStatusException) as rebound:
        Page(shared.port, origin="http://evil.example:8000", host="evil.example:8000")
    assert rebound.value.status_code == 421
    Page(shared.port, origin=f"http://127.0.0.1:{shared.port}").close()


def test_a_page_that_floods_is_told_and_then_disconnected(page: Pages, lab: str) -> None:
    one = page()
    one.join(lab)
    numbers = [one.send("command", {"command": {"type": "lab.pause"}}) for _ in range(100)]
    answers = [one.answer(number) for number in numbers]
    refused = [answer["error"]["key"] for answer in answers if not answer["ok"]]
    assert refused
    assert set(refused) == {"too-many-commands"}
    with pytest.raises((ConnectionError, websocket.WebSocketException, OSError)):  # noqa: PT012
        for _ in range(5000):
            one.tell("ack", {"tick": 1})
        one.drain(5)


def test_a_message_that_is_too_large_ends_the_connection_and_nothing_else(page: Pages, lab: str) -> None:
    one, two = page(), page()
    one.join(lab)
    two.join(lab)
    with pytest.raises((ConnectionError, websocket.WebSocketException, OSError)):  # noqa: PT012
        one.raw(bytes((512 << 10) + 1))
        one.drain(10)
    two.command("host.create")


def test_pages_that_vanish_leave_no_trace(page: Pages, shared: Server) -> None:
    witness = page()
    witness.join("demo")
    for _ in range(20):
        one = Page(shared.port)
        one.join("demo")
        one.vanish()
    witness.until("presence", lambda content: content["clients"] == 1)
    for _ in range(5):
        witness.until("tick")


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from(
        [
            "join",
            "command",
            "query",
            "ack",
            "tick",
            "connect",
            "disconnect",
            "lab",
            "type",
            "demo",
            "lab.step",
        ]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.sampled_from(["join", "command", "query", "ack", "connect", "disconnect", "malformed", "tick"])


@pytest.fixture(scope="module")
def target(shared: Server) -> Iterator[tuple[Page, str]]:
    lab = create_lab(shared, "target")
    with Page(shared.port) as one:
        one.join(lab)
        one.command("host.create", name="untouched")
        yield one, lab


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    event=EVENTS | JSON_LIKE,
    content=JSON_LIKE,
    number=st.integers(0, 10) | JSON_LIKE,
    kind=st.integers(-1, 8) | JSON_LIKE,
)
def test_malformed_packets_change_nothing(
    shared: Server, target: tuple[Page, str], event: Any, content: Any, number: Any, kind: Any
) -> None:
    witness, lab = target
    with Page(shared.port) as hostile:
        hostile.join(lab)
        for packet in (
            {"type": EVENT, "nsp": "/", "id": number, "data": [event, content]},
            {"type": kind, "nsp": "/", "data": [event, content]},
            {"type": EVENT, "nsp": event, "data": content},
            {"type": EVENT, "nsp": "/", "data": [event, content, content]},
            content,
        ):
            try:
                hostile.raw(msgpack.packb(packet))
            except (OSError, websocket.WebSocketException):
                break
    time.sleep(0.05)  # the limit of messages is for each page; this is for the witness's
    assert names(witness.join(lab)["keyframe"]["document"]) == ["untouched"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=300) | st.text(max_size=50))
def test_noise_on_the_socket_changes_nothing(
    shared: Server, target: tuple[Page, str], content: bytes | str
) -> None:
    witness, lab = target
    with Page(shared.port) as hostile:
        try:
            hostile.raw(content)
        except (OSError, websocket.WebSocketException):
            return
    time.sleep(0.05)
    assert names(witness.join(lab)["keyframe"]["document"]) == ["untouched"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(event=st.sampled_from(["join", "command", "query"]), content=JSON_LIKE)
def test_every_malformed_message_is_answered_with_a_problem(
    shared: Server, target: tuple[Page, str], event: str, content: Any
) -> None:
    with Page(shared.port) as one:
        answer = one.ask(event, content)
        assert answer["ok"] is False
        assert set(answer["error"]) == {"key", "message", "params"}
        assert answer["error"]["key"] in {"bad-message", "not-joined"}


# -- laggards --------------------------------------------------------------------------------------------
def test_a_page_that_does_not_acknowledge_is_sent_no_more_until_it_has_caught_up(page: Pages) -> None:
    laggard, other = page(acknowledge=False), page()
    first = laggard.join("demo")["tick"]
    other.join("demo")
    for _ in range(30):
        other.until("tick")
    laggard.drain(0.5)
    ticks = [content["n"] for event, content in laggard.events if event == "tick"]
    assert ticks == list(range(first + 1, first + 1 + len(ticks)))
    assert len(ticks) == 9  # one more than may be unacknowledged
    assert not [event for event, _ in laggard.events if event == "keyframe"]

    laggard.events.clear()
    laggard.tell("ack", {"tick": first + 4})
    laggard.drain(0.5)
    assert not laggard.events, "it has not acknowledged the last tick it was sent"

    laggard.tell("ack", {"tick": ticks[-1]})
    keyframe = laggard.until("keyframe")
    assert keyframe["tick"] > ticks[-1]
    assert keyframe["keyframe"]["document"]
    following = [laggard.until("tick")["n"] for _ in range(3)]
    assert following == list(itertools.islice(itertools.count(keyframe["tick"] + 1), 3))


def test_acknowledging_what_was_never_sent_brings_nothing_forward(page: Pages) -> None:
    laggard = page(acknowledge=False)
    laggard.join("demo")
    for _ in range(40):
        laggard.tell("ack", {"tick": 2**50})
    laggard.until("tick")
    laggard.drain(2)
    ticks = [content["n"] for event, content in laggard.events if event == "tick"]
    assert len(ticks) <= 10
