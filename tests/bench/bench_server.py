"""What a page waits for: the size of a tick, and how late it and an answer arrive with 1, 50 and 200 pages
on one lab.

The server is a process of its own, so are the pages (this module, run as a program), on the same machine.
The interval is from tick to tick at one page: a late tick makes it long. Lateness is the time between the
first page's receiving a tick and the last one's. An answer is a query's way there and back through web
process and worker. All pages look at the demo lab, running at 25 traps a second.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import msgpack

from tests.bench import Figure
from tests.support.checks import ROOT
from tests.support.server import Server
from tests.webapp.client import EVENT, Page

CROWDS = (1, 50, 200)
SECONDS = 8.0


def figures() -> list[Figure]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data", (sys.executable, "-m", "webapp.cli"), ROOT)
        with server:
            for crowd in CROWDS:
                before = processor_seconds(server.pid)
                measured = json.loads(
                    subprocess.run(
                        [sys.executable, "-m", __spec__.name, str(server.port), str(crowd)],
                        check=True,
                        capture_output=True,
                        cwd=ROOT,
                    ).stdout
                )
                used = processor_seconds(server.pid) - before
                found += in_words(crowd, measured, used / measured["seconds"])
    return found


def in_words(crowd: int, measured: dict[str, float], share: float) -> list[Figure]:
    pages = f"{crowd} pages" if crowd > 1 else "1 page"
    interval, answer = "from tick to tick at one page", "one page asks 10 times a second"
    found = [
        Figure(f"tick size, {pages}", measured["tick_bytes"], "bytes", "median of the packets received"),
        Figure(f"tick interval p50, {pages}", measured["interval_p50"] * 1e3, "ms", interval),
        Figure(f"tick interval p99, {pages}", measured["interval_p99"] * 1e3, "ms", interval),
    ]
    if crowd > 1:
        late = "last page after first, per tick"
        found += [
            Figure(f"tick lateness p50, {pages}", measured["late_p50"] * 1e3, "ms", late),
            Figure(f"tick lateness p99, {pages}", measured["late_p99"] * 1e3, "ms", late),
        ]
    return [
        *found,
        Figure(f"query answer p50, {pages}", measured["answer_p50"] * 1e3, "ms", answer),
        Figure(f"query answer p99, {pages}", measured["answer_p99"] * 1e3, "ms", answer),
        Figure(
            f"web process, {pages}",
            share * 100,
            "% of a core",
            f"over {measured['seconds']:.0f} s, with joining",
        ),
    ]


def processor_seconds(process: int) -> float:
    """User and system time of a process (proc(5), fields 14 and 15 of stat, in ticks of 1/100 s)."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(port: int, crowd: int) -> dict[str, float]:
    """Be `crowd` pages for `SECONDS`."""
    began = time.monotonic()
    pages = [Page(port) for _ in range(crowd)]
    for page in pages:
        page.join("demo")
    asker = pages[0]
    guest = asker.join("demo")["keyframe"]["document"]["guests"][0]["id"]
    asker.command("lab.speed", speed="25")
    selector = selectors.DefaultSelector()
    for page in pages:
        selector.register(page._socket.sock, selectors.EVENT_READ, page)
    arrivals: dict[int, list[float]] = {}
    ticked: list[float] = []  # at the page that asks
    sizes: list[int] = []
    asked: dict[int, float] = {}
    answers: list[float] = []
    next_question = time.monotonic()
    until = next_question + SECONDS
    while (now := time.monotonic()) < until:
        if now >= next_question:
            next_question = now + 0.1
            asked[asker.send("query", {"query": {"type": "registers", "guest": guest}})] = now
        for key, _ in selector.select(max(0.0, next_question - now)):
            content = key.data._socket.recv()
            arrived = time.monotonic()
            if content == "2":
                key.data.raw("3")
                continue
            packet = msgpack.unpackb(content, strict_map_key=False)
            if packet["type"] != EVENT:
                if packet["id"] in asked:
                    answers.append(arrived - asked.pop(packet["id"]))
            elif packet["data"][0] == "tick":
                number = packet["data"][1]["n"]
                arrivals.setdefault(number, []).append(arrived)
                if key.data is asker:
                    ticked.append(arrived)
                sizes.append(len(content))
                if number % 4 == 0:
                    key.data.tell("ack", {"tick": number})
    late = sorted(max(times) - min(times) for times in arrivals.values() if len(times) == crowd)
    intervals = sorted(after - before for before, after in pairwise(ticked))
    for page in pages:
        page.close()
    answers.sort()
    return {
        "tick_bytes": median(sizes),
        "interval_p50": median(intervals),
        "interval_p99": intervals[int(len(intervals) * 0.99)],
        "late_p50": median(late),
        "late_p99": late[int(len(late) * 0.99)],
        "answer_p50": median(answers),
        "answer_p99": answers[int(len(answers) * 0.99)],
        "seconds": time.monotonic() - began,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
