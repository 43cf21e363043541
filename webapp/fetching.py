"""Fetching Debian for the page: one download at a time, for everybody, with its progress, and an end at any
time.

The work is the command `ringside images add debian` in a process of its own (webapp.images_command): it
blocks, unpacks and hashes, none of which may hold up the web process. Its JSON lines become a `Fetch` that
every page is told. Invariant: at most one such process, and none outlives the server.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import gevent.subprocess
import msgspec
from msgspec import Struct

import engine
from engine.commands import Problem
from webapp import debian

log = logging.getLogger(__name__)


class Fetch(Struct, frozen=True):
    """How far it is. `stage`: "" (nothing was asked for yet), a stage of webapp.debian, "keep" or "done".

    `done` and `total` are bytes, 0 where they say nothing; `problem` is why the last one failed.
    """

    stage: str = ""
    done: int = 0
    total: int = 0
    running: bool = False
    problem: Problem | None = None


class Fetcher:
    """`told` hears of every change; `added` is called when there is something new in the library."""

    def __init__(self, data: Path, told: Callable[[Fetch], None], added: Callable[[], None]) -> None:
        self._data = data
        self._told = told
        self._added = added
        self._process: gevent.subprocess.Popen | None = None
        self._cancelled = False
        self.state = Fetch()

    def start(self) -> None:
        """Begin, unless it is under way."""
        if self._process is not None:
            return
        source = str(Path(engine.__file__).resolve().parent.parent)
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-m", "webapp.cli", "images", "add", debian.NAME, "--progress", "json"]
        self._cancelled = False
        self._process = gevent.subprocess.Popen(
            [*command, "--data", str(self._data)],
            stdin=gevent.subprocess.DEVNULL,
            stdout=gevent.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        self._say(Fetch("lists", running=True))
        gevent.spawn(self._follow, self._process)

    def cancel(self) -> None:
        """End it, with everything it started. Nothing is kept of what was fetched so far."""
        self._cancelled = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _follow(self, process: gevent.subprocess.Popen) -> None:
        problem: Problem | None = None
        added = False
        for line in process.stdout:
            said = _said(line)
            if "stage" in said:
                self._say(Fetch(said["stage"], said["done"], said["total"], running=True))
            problem = msgspec.convert(said["error"], Problem) if "error" in said else problem
            added = added or "added" in said
        status = process.wait()
        process.stdout.close()
        self._process = None
        if added and status == 0:
            self._added()
            self._say(Fetch("done"))
        elif self._cancelled:
            self._say(Fetch())
        else:
            log.warning("fetching %s ended with status %s", debian.NAME, status)
            stopped = Problem(
                "fetch-stopped", f"The download ended unexpectedly (status {status}).", {"status": status}
            )
            self._say(Fetch(problem=problem or stopped))

    def _say(self, state: Fetch) -> None:
        self.state = state
        self._told(state)


def _said(line: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}
    return said if isinstance(said, dict) else {}
