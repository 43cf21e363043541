"""The classification of the machine's instructions (engine.machine.popek_goldberg), run once for all who look.

It executes every instruction thousands of times, and the web process runs no guest code: so it happens in a process of its
own, at the workers' priority, when somebody first asks. What it says is kept until the server ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import gevent.lock
import gevent.subprocess

import engine

SECONDS = 60
NICE = 15
_PROGRAM = f"""
import json, os
os.nice({NICE})
from engine.machine.popek_goldberg import classify
plain, silent = classify(), classify(silent=True)
print(json.dumps({{
    "plain": [verdict.plain() for verdict in plain],
    "silent": [new.plain() for old, new in zip(plain, silent, strict=True) if old != new],
}}))
"""


class Classification:
    """`json`: {"plain": [verdicts], "silent": [those that differ on the machine with silent instructions]}."""

    def __init__(self) -> None:
        self._lock = gevent.lock.Semaphore()
        self._json: bytes | None = None

    def json(self) -> bytes:
        """Waits for it. Raises CalledProcessError or TimeoutExpired when it cannot be had."""
        with self._lock:
            if self._json is None:
                source = str(Path(engine.__file__).resolve().parent.parent)
                paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
                done = gevent.subprocess.run(
                    [sys.executable, "-c", _PROGRAM],
                    stdout=gevent.subprocess.PIPE,
                    timeout=SECONDS,
                    check=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                )
                self._json = done.stdout
            return self._json
