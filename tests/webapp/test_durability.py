"""kill -9 at any moment loses nothing that was acknowledged: of the server, and of its engine workers."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.support.saved import as_older, rewrite
from tests.support.server import Server
from tests.webapp.browser import Answer, Browser
from tests.webapp.client import Page
from tests.webapp.conftest import create_lab, make_server, workers_of

BROKEN = (ConnectionError, websocket.WebSocketException, OSError)


class Witness:
    """Sends changes and remembers which were acknowledged."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.hosts: dict[int, str] = {}  # acknowledged
        self.unsure: set[str] = set()  # sent, not acknowledged
        self.revision = 0
        self.changes = 0

    def work(self, page: Page) -> None:
        """Change the lab until the connection breaks."""
        try:
            while True:
                self.change(page)
        except BROKEN:
            return

    def change(self, page: Page) -> None:
        self.changes += 1
        name = f"h{self.changes}"
        self.unsure.add(name)
        if self.hosts and (len(self.hosts) >= 8 or self._random.random() < 0.7):
            host = self._random.choice(list(self.hosts))
            command: dict[str, Any] = {"type": "host.update", "host": host, "name": name}
            self.unsure.add(self.hosts[host])
        else:
            host, command = 0, {"type": "host.create", "name": name, "memory_mib": 16}
        answer = page.ask("command", {"command": command})
        if answer["ok"]:
            self.unsure.discard(name)
            host = host or answer["result"]["host"]
            self.unsure.discard(self.hosts.get(host, ""))
            self.hosts[host] = name
            assert answer["revision"] > self.revision
            self.revision = answer["revision"]
        else:
            assert answer["error"]["key"] in {"too-many-commands", "worker-restarted"}, answer
            time.sleep(0.05)

    def check(self, joined: dict[str, Any]) -> None:
        """Everything acknowledged is there; at most the one change under way is more."""
        found = {host["id"]: host["name"] for host in joined["keyframe"]["document"]["hosts"]}
        different = {name for host, name in found.items() if self.hosts.get(host) != name}
        missing = [name for host, name in self.hosts.items() if host not in found]
        assert not missing
        assert len(different) <= 1
        assert different <= self.unsure
        assert joined["revision"] >= self.revision
        self.hosts, self.revision = found, joined["revision"]
        self.unsure.clear()


@pytest.mark.parametrize("seed", range(3))
def test_the_server_is_killed_at_random_moments(own: Server, seed: int) -> None:
    lab = create_lab(own)
    witness, moment = Witness(seed), random.Random(seed)
    for _ in range(4):
        with Page(own.port) as page:
            page.join(lab)
            worker = threading.Thread(target=witness.work, args=(page,))
            worker.start()
            time.sleep(moment.uniform(0.05, 1.2))
            own.kill()
            worker.join(30)
            assert not worker.is_alive()
        own.start()
        with Page(own.port) as after:
            witness.check(after.join(lab))
    assert witness.changes > 8


def test_what_was_typed_into_a_console_has_its_effect_after_a_kill(own: Server) -> None:
    lab = create_lab(own)
    with Page(own.port) as page:
        page.join(lab)
        host = page.command("host.create")["result"]["host"]
        created = page.command("guest.create", host=host, image="ringos", arguments="")
        guest = created["result"]["guest"]
        page.command("lab.speed", speed="max")
        page.command("lab.run")
        _read_until(page, guest, b"$ ")
        page.command("console.input", guest=guest, data=b"echo kept-for-ever\n")
    own.kill()
    own.start()
    with Page(own.port) as page:
        keyframe = page.join(lab)["keyframe"]
        shown = b"".join(data for number, data in keyframe["console"] if number == guest)
        _read_until(page, guest, b"\nkept-for-ever", shown.replace(b"\r", b""))


def spin(page: Page) -> None:
    """Give the page's lab a guest that runs for ever."""
    host = page.command("host.create", stack="bare-metal")["result"]["host"]
    source = ".globl _start\n_start:\n  addi x5, x5, 1\n  j _start\n"
    image = page.command("image.assemble", name="spin", source=source)["result"]["image"]
    page.command("guest.create", host=host, image=image)


def _read_until(page: Page, guest: int, text: bytes, shown: bytes = b"") -> None:
    until = time.monotonic() + 120
    while text not in shown:
        assert time.monotonic() < until, shown
        tick = page.until("tick", timeout=60)
        shown += b"".join(data for number, data in tick["console"] if number == guest).replace(b"\r", b"")


def test_a_lab_goes_on_from_where_it_was(own: Server) -> None:
    lab = create_lab(own)
    with Page(own.port) as page:
        page.join(lab)
        host = page.command("host.create")["result"]["host"]
        page.command("guest.create", host=host, image="ringos")
        for _ in range(5):
            position = page.command("lab.step")["result"]["position"]
    own.kill()
    own.start()
    with Page(own.port) as page:
        keyframe = page.join(lab)["keyframe"]
        assert keyframe["position"] == position
        assert not keyframe["running"]
        assert keyframe["document"]["guests"]


def test_a_polite_end_keeps_even_what_ran_since(own: Server) -> None:
    with Page(own.port) as page:
        page.join("demo")
        position = page.until("tick", lambda tick: tick["position"] > 0)["position"]
    own.stop()
    own.start()
    with Page(own.port) as page:
        assert page.join("demo")["keyframe"]["position"] >= position


def test_a_killed_worker_is_replaced_and_its_labs_come_back(own: Server) -> None:
    labs = [create_lab(own, f"lab {number}") for number in range(4)]
    pages = []
    for lab in labs:
        page = Page(own.port)
        page.join(lab)
        page.command("host.create", name=f"host-of-{lab}")
        pages.append(page)
    before = workers_of(own)
    for process in before:
        os.kill(process, signal.SIGKILL)
    for lab, page in zip(labs, pages, strict=True):
        notice = page.until("notice")
        assert notice["key"] == "worker-restarted"
        assert notice["level"] == "warning"
        document = page.until("keyframe")["keyframe"]["document"]
        assert [host["name"] for host in document["hosts"]] == [f"host-of-{lab}"]
        page.command("host.create")
        page.close()
    after = workers_of(own)
    assert len(after) == len(before)
    assert not set(after) & set(before)


def test_workers_are_killed_under_load(own: Server) -> None:
    lab = create_lab(own)
    witness = Witness(1)
    with Page(own.port) as page:
        page.join(lab)
        worker = threading.Thread(target=witness.work, args=(page,))
        worker.start()
        for _ in range(4):
            time.sleep(0.7)
            for process in workers_of(own):
                os.kill(process, signal.SIGKILL)
        time.sleep(1.5)
    worker.join(30)
    assert not worker.is_alive()
    with Page(own.port) as after:
        found = {host["id"]: host["name"] for host in after.join(lab)["keyframe"]["document"]["hosts"]}
    assert witness.hosts.keys() <= found.keys()
    sent = {f"h{number}" for number in range(1, witness.changes + 1)}
    assert set(found.values()) <= sent
    sure = {host: name for host, name in witness.hosts.items() if name not in witness.unsure}
    assert sum(found[host] != name for host, name in sure.items()) <= 1


def test_a_lab_that_ends_its_worker_again_and_again_is_opened_paused(own: Server) -> None:
    lab = create_lab(own)
    with Page(own.port) as page:
        page.join(lab)
        spin(page)
        page.command("lab.speed", speed="max")
        page.command("lab.run")
        kills = 0
        while True:
            page.until("tick")
            for process in workers_of(own):
                os.kill(process, signal.SIGKILL)
            kills += 1
            assert kills < 20, "the worker was at work for this lab nearly always"
            while "keyframe" not in {event for event, _ in page.events}:
                page.pump()
            page.drain(0.5)
            if "lab-quarantined" in [content["key"] for event, content in page.events if event == "notice"]:
                break
            page.events.clear()
        assert kills >= 3
        keyframe = page.join(lab)["keyframe"]
        assert not keyframe["running"]
        assert keyframe["document"]["guests"]
        page.command("lab.step", unit="instruction")


def _post_afresh(server: Server, lab: str) -> Answer:
    browser = Browser(server)
    browser.get("/labs")
    return browser.request("POST", f"/labs/{lab}/afresh", headers={"X-CSRF-Token": browser.csrf, "Accept": "application/json"})


def test_a_lab_that_cannot_go_on_is_begun_again_when_asked_for(own: Server) -> None:
    lab = create_lab(own)
    with Page(own.port) as page:
        page.join(lab)
        host = page.command("host.create", name="kept")["result"]["host"]
        page.command("guest.create", host=host, image="ringos", arguments="run=demo")
        page.command("lab.speed", speed="max")
        page.command("lab.run")
        page.until("tick", lambda tick: tick["position"] > 100_000)
        assert _post_afresh(own, lab).status == 200
        page.command("lab.pause")
        before = page.join(lab)["keyframe"]
    assert before["position"] > 100_000, "what can go on is left as it is"
    own.stop()
    rewrite(own.data, lab, as_older)
    own.start()
    with Page(own.port) as page:
        refused = page.ask("join", {"lab": lab, "protocol": 1})
        assert refused["error"]["key"] == "checkpoint-older"
        assert _post_afresh(own, lab).status == 200
        after = page.join(lab)["keyframe"]
        assert (after["document"]["hosts"], after["document"]["guests"]) == (
            before["document"]["hosts"], before["document"]["guests"],
        )  # fmt: skip
        assert (after["position"], after["document"]["running"]) == (0, False)
        page.command("guest.rename", guest=after["document"]["guests"][0]["id"], name="later")
    own.kill()
    own.start()
    with Page(own.port) as page:
        assert page.join(lab)["keyframe"]["document"]["guests"][0]["name"] == "later"


def test_a_lab_of_which_nothing_can_be_read_begins_as_it_was_made(own: Server) -> None:
    with Page(own.port) as page:
        page.join("demo")
        page.command("host.create", name="lost")
    own.stop()
    for blob in (own.data / "blobs").glob("*/*"):
        blob.write_bytes(b"damaged")
    own.start()
    with Page(own.port) as page:
        assert page.ask("join", {"lab": "demo", "protocol": 1})["error"]["key"] == "checkpoint-damaged"
        assert _post_afresh(own, "demo").status == 200
        hosts = page.join("demo")["keyframe"]["document"]["hosts"]
        assert [host["name"] for host in hosts] == ["host-1"]
        page.command("host.create", name="new")
    assert _post_afresh(own, "nowhere").status == 404


def test_a_lab_that_nobody_watches_is_put_aside_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGSIDE_UNWATCHED_SECONDS", "1")
    with make_server(tmp_path / "data") as server:
        lab = create_lab(server)
        with Page(server.port) as page:
            page.join(lab)
            spin(page)
            page.command("lab.speed", speed="25", unit="instruction")
            page.command("lab.run")
            tick = page.until("tick")
        time.sleep(4)
        with Page(server.port) as page:
            joined = page.join(lab)
            assert joined["tick"] >= tick["n"]
            assert joined["keyframe"]["running"]
            assert page.until("tick")["position"] >= tick["position"]


def test_the_pages_are_told_when_the_server_ends(own: Server) -> None:
    with Page(own.port) as page:
        page.join("demo")
        page.until("presence")
        ending = threading.Thread(target=own.stop)
        ending.start()
        assert page.until("notice")["key"] == "server-stopping"
        with pytest.raises(BROKEN):
            page.drain(20)
        ending.join()


def test_workers_end_with_the_server(own: Server) -> None:
    workers = workers_of(own)
    assert workers
    own.kill()
    until = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{process}/exe") and _is_worker(process) for process in workers):
        assert time.monotonic() < until
        time.sleep(0.05)
    own.start()


def _is_worker(process: int) -> bool:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return b"engine.worker" in file.read()
    except OSError:
        return False
