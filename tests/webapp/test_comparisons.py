"""Comparisons of a lab on a real server: carried out on its workers, told, kept, exported, cancelled, repeated."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec
import pytest

from tests.support.server import Server
from tests.webapp.browser import Answer, Browser
from tests.webapp.client import Page
from tests.webapp.conftest import create_lab, workers_of
from webapp.comparisons import FIGURES

WORKLOADS = ["syscall:60", "io:40"]
CONFIGURATIONS = ["bare-metal", "kvm/trap-and-emulate", "kvm/hardware-assist"]


class Asking:
    """A page's requests about the comparisons of one lab."""

    def __init__(self, server: Server, lab: str) -> None:
        self.browser = Browser(server)
        self.browser.get("/")
        self.folder = f"/labs/{lab}/comparisons"

    def send(self, method: str, path: str, body: object = None) -> Answer:
        headers = {"X-CSRF-Token": self.browser.csrf, "Accept": "application/json", "Content-Type": "application/json"}
        return self.browser.request(method, path, json.dumps(body).encode(), headers)

    def begin(self, workloads: list[str] = WORKLOADS, configurations: list[str] = CONFIGURATIONS) -> str:
        answer = self.send("POST", self.folder, {"workloads": workloads, "configurations": configurations})
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["id"])

    def of(self, comparison: str) -> Any:
        return json.loads(self.browser.get(f"{self.folder}/{comparison}", Accept="application/json").body)

    def all(self) -> Any:
        return json.loads(self.browser.get(self.folder, Accept="application/json").body)


def finished(page: Page, comparison: str) -> None:
    page.until("comparison", lambda told: told["id"] == comparison and told["state"] == "kept")


def joined(server: Server, lab: str) -> Page:
    page = Page(server.port)
    assert page.ask("join", {"lab": lab, "protocol": 1})["ok"]
    return page


def figures(found: Any) -> list[Any]:
    """What another run repeats."""
    repeat = {figure.name for figure in FIGURES if figure.repeats}
    return [
        {**run, "figures": {name: value for name, value in run["figures"].items() if name in repeat}}
        for run in found["runs"]
    ]


def test_a_comparison_is_told_kept_and_exported(shared: Server, lab: str) -> None:
    asking = Asking(shared, lab)
    with joined(shared, lab) as page:
        began = asking.begin()
        told = page.until("comparison")
        assert (told["id"], told["total"], told["state"]) == (began, 6, "running")
        finished(page, began)
    found = asking.of(began)
    assert (found["done"], found["total"]) == (6, 6)
    assert [(run["workload"], run["configuration"]) for run in found["runs"]] == [
        (workload, way) for workload in ("syscall", "io") for way in CONFIGURATIONS
    ]
    by_way = {run["configuration"]: run["figures"] for run in found["runs"] if run["workload"] == "syscall"}
    assert [by_way[way]["exits"] for way in CONFIGURATIONS] == [0, 420, 0]
    rows = list(csv.DictReader(io.StringIO(asking.browser.get(f"{asking.folder}/{began}.csv", Accept="application/json").text)))
    assert [float(row["exits"]) for row in rows] == [run["figures"]["exits"] for run in found["runs"]]
    file = asking.browser.get(f"{asking.folder}/{began}.json", Accept="application/json")
    assert json.loads(file.body)["runs"] == found["runs"]
    assert file.headers["Content-Disposition"] == f'attachment; filename="ringside-compare-{began}.json"'


def test_its_link_asks_for_the_same_and_gets_the_same_numbers(shared: Server, lab: str) -> None:
    asking = Asking(shared, lab)
    with joined(shared, lab) as page:
        first = asking.begin()
        finished(page, first)
        found = asking.of(first)
        again = asking.begin(*(part.split("=")[1].split(",") for part in found["query"].split("&")))
        finished(page, again)
    assert figures(asking.of(again)) == figures(found)
    opened = asking.browser.get(f"/compare?{found['query']}")
    assert opened.status == 302
    assert opened.headers["Location"].startswith("/?workload=syscall")
    assert asking.browser.get(opened.headers["Location"]).status == 200


def test_a_configuration_that_was_asked_for_in_short_is_kept_written_out(shared: Server, lab: str) -> None:
    """The page's title has words for a stack and for a technique."""
    asking = Asking(shared, lab)
    short = ["trap-and-emulate", "kvm/trap-and-emulate", "cloud", "hardware-assist+shadow-paging+no-vmid"]
    with joined(shared, lab) as page:
        began = asking.begin(["syscall:5"], short)
        finished(page, began)
    found = asking.of(began)
    assert found["configurations"] == [
        "kvm/trap-and-emulate", "cloud/hardware-assist", "kvm/hardware-assist+no-vmid+shadow-paging",
    ]  # fmt: skip
    assert [run["configuration"] for run in found["runs"]] == found["configurations"]


def test_the_labs_own_costs_can_be_used_and_are_in_link_and_file(shared: Server, lab: str) -> None:
    asking = Asking(shared, lab)
    with joined(shared, lab) as page:
        command = {"type": "costs.set", "profile": "dall-x86-2016", "overrides": {"exit": 1000, "entry": 500}}
        assert page.ask("command", {"command": command})["ok"]
        own = asking.all()["choices"]["own_costs"]
        assert own == "dall-x86-2016+entry:500+exit:1000"
        body = {"workloads": ["syscall:10"], "configurations": ["kvm/trap-and-emulate"], "costs": own}
        began = json.loads(asking.send("POST", asking.folder, body).body)["id"]
        finished(page, began)
    found = asking.of(began)
    counted = found["runs"][0]["figures"]
    assert counted["modelled_cycles"] == counted["exits"] * 1500 > 0
    assert found["costs"]["profile"] == "dall-x86-2016"
    assert found["costs"]["overrides"] == {"exit": 1000, "entry": 500}
    assert all(row["source"] for row in found["costs"]["rows"])
    assert found["query"].endswith(f"&costs={own}")
    opened = asking.browser.get(f"/compare?{found['query']}")
    assert opened.headers["Location"].endswith("costs=dall-x86-2016%2Bentry:500%2Bexit:1000")


def test_it_outlives_the_server_and_can_be_deleted(own: Server) -> None:
    lab = create_lab(own)
    asking = Asking(own, lab)
    with joined(own, lab) as page:
        began = asking.begin(["syscall:5"])
        finished(page, began)
    before = asking.of(began)
    own.stop()
    own.start()
    asking = Asking(own, lab)
    assert asking.of(began) == before
    assert [one["id"] for one in asking.all()["comparisons"]] == [began]
    with joined(own, lab) as page:
        assert asking.send("DELETE", f"{asking.folder}/{began}").status == 200
        assert page.until("comparison")["state"] == "gone"
    assert asking.all()["comparisons"] == []
    gone = asking.browser.get(f"{asking.folder}/{began}", Accept="application/json")
    assert gone.status == 404
    assert json.loads(gone.body)["error"]["key"] == "compare-gone"


def test_it_can_be_cancelled_and_leaves_nothing(shared: Server, lab: str) -> None:
    asking = Asking(shared, lab)
    with joined(shared, lab) as page:
        began = asking.begin(["switch:50000", "io:50000"])
        (row,) = asking.all()["comparisons"]
        assert (row["id"], row["created"], row["total"]) == (began, None, 6)
        assert asking.send("DELETE", f"{asking.folder}/{began}").status == 200
        page.until("comparison", lambda told: told["state"] == "gone")
        assert asking.all()["comparisons"] == []
        quick = asking.begin(["syscall:5"], ["bare-metal"])
        finished(page, quick)


def test_a_lab_can_have_so_many_under_way(shared: Server, lab: str) -> None:
    asking = Asking(shared, lab)
    began = [asking.begin(["switch:90000"], ["kvm/trap-and-emulate"]) for _ in range(4)]
    refused = asking.send("POST", asking.folder, {"workloads": ["io"], "configurations": ["bare-metal"]})
    assert (refused.status, json.loads(refused.body)["error"]["key"]) == (422, "compare-busy")
    for one in began:
        asking.send("DELETE", f"{asking.folder}/{one}")


def test_a_worker_that_dies_costs_a_run_nothing_but_time(own: Server) -> None:
    lab = create_lab(own)
    asking = Asking(own, lab)
    with joined(own, lab) as page:
        began = asking.begin(["switch:3000"], ["kvm/trap-and-emulate", "bare-metal"])
        page.until("comparison")
        for worker in workers_of(own):
            os.kill(worker, signal.SIGKILL)
        page.until("comparison", lambda told: told["id"] == began and told["state"] == "kept", timeout=60)
    assert all("figures" in run for run in asking.of(began)["runs"])


def test_two_configurations_in_lock_step(shared: Server, lab: str) -> None:
    asking = Asking(shared, lab)
    asked = {"workload": "syscall:20", "left": "kvm/trap-and-emulate", "right": "kvm/hardware-assist"}
    found = json.loads(asking.send("POST", f"/labs/{lab}/lock-step", asked).body)
    assert (found["ok"], found["stretch"], found["same"], found["apart"], found["console"]) == (True, 0, 0, None, True)
    assert len(found["left"]) > len(found["right"]) > 0
    same = json.loads(asking.send("POST", f"/labs/{lab}/lock-step", {**asked, "left": asked["right"]}).body)
    assert same["stretch"] is None


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("comparisons", {"workloads": ["sycall"], "configurations": ["bare-metal"]}, "compare-workload"),
        ("comparisons", {"workloads": ["io"], "configurations": ["type3"]}, "no-such-configuration"),
        ("comparisons", {"workloads": [], "configurations": []}, "compare-size"),
        ("comparisons", {"workloads": "io"}, "bad-message"),
        ("comparisons", {"workloads": ["io" * 200], "configurations": ["bare-metal"]}, "bad-message"),
        ("comparisons", None, "bad-message"),
        ("lock-step", {"workload": "io", "left": "bare-metal", "right": "xen/warp"}, "no-such-configuration"),
        ("lock-step", {"workload": "io", "left": "bare-metal", "right": "xen", "skip": -1}, "bad-message"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    shared: Server, lab: str, path: str, body: object, key: str
) -> None:
    answer = Asking(shared, lab).send("POST", f"/labs/{lab}/{path}", body)
    assert answer.status in (400, 422)
    assert json.loads(answer.body)["error"]["key"] == key


def test_a_lab_that_is_not_there_has_none(shared: Server) -> None:
    asking = Asking(shared, "nowhere")
    for method, path in (("GET", asking.folder), ("POST", asking.folder), ("POST", "/labs/nowhere/lock-step")):
        body = {"workloads": ["io"], "configurations": ["bare-metal"]}
        if path.endswith("lock-step"):
            body = {"workload": "io", "left": "bare-metal", "right": "kvm"}  # type: ignore[dict-item]
        assert asking.send(method, path, body).status == 404


def test_nobody_begins_one_without_the_pages_token(shared: Server, lab: str) -> None:
    browser = Browser(shared)
    body = json.dumps({"workloads": ["io"], "configurations": ["bare-metal"]}).encode()
    assert browser.request("POST", f"/labs/{lab}/comparisons", body, {"Accept": "*/*"}).status == 403


def test_another_labs_comparison_is_out_of_reach(shared: Server, page: Callable[[], Page]) -> None:
    mine, theirs = (create_lab(shared) for _ in range(2))
    asking, others = Asking(shared, mine), Asking(shared, theirs)
    with joined(shared, mine) as listening:
        began = asking.begin(["syscall:5"], ["bare-metal"])
        finished(listening, began)
    assert others.of(began)["error"]["key"] == "compare-gone"
    others.send("DELETE", f"{others.folder}/{began}")
    assert asking.of(began)["done"] == 1


def test_one_that_another_version_kept_is_listed_and_says_so(own: Server) -> None:
    lab = create_lab(own)
    with joined(own, lab) as page:
        began = Asking(own, lab).begin(["syscall:5"], ["bare-metal"])
        finished(page, began)
    own.stop()
    strange = {"workloads": ["juggle"], "configurations": ["xen/telepathy"], "costs": "", "measures": [{"type": "?"}]}
    with closing(sqlite3.connect(own.data / "ringside.sqlite")) as database:
        database.execute("UPDATE comparisons SET content = ?", (msgspec.msgpack.encode(strange),))
        database.commit()
    own.start()
    asking = Asking(own, lab)
    assert [one["workloads"] for one in asking.all()["comparisons"]] == [["juggle"]]
    assert asking.of(began)["error"]["key"] == "compare-unreadable"
    assert asking.send("DELETE", f"{asking.folder}/{began}").status == 200
