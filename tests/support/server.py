"""A Ringside server of one test: started as users start it, in a process of its own, ended by its own process
id.

Invariants: the data folder outlives a restart (that is what restart tests are about); a server whose log
holds a traceback has failed its test, whatever the browser saw.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.checks import ROOT

TRACEBACK = "Traceback (most recent call last)"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`ringside serve` on a free port of 127.0.0.1 with `data` as its data folder.

    `command` starts the program (default: the checkout's code, by this interpreter) from `folder`.
    """

    def __init__(
        self,
        data: Path,
        command: Sequence[str | Path] = (sys.executable, "-m", "webapp.cli"),
        folder: Path = ROOT,
    ) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [str(part) for part in command]
        self._folder = folder
        self._log_path = data.with_name(f"{data.name}.log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def log(self) -> str:
        """Everything the server wrote since it was first started."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        """Start and wait until /healthz answers. Raises AssertionError with the log when it does not."""
        assert self._process is None, "the server is running already"
        environment = {**os.environ, "RINGSIDE_DATA": str(self.data), "PYTHONUNBUFFERED": "1"}
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "serve", "--host", "127.0.0.1", "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self._folder,
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                status, self._process = self._process.returncode, None
                raise AssertionError(f"the server ended with status {status}:\n{self.log()}")
            if self._healthy():
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the server did not answer within {START_SECONDS:.0f} s:\n{self.log()}")

    def stop(self) -> None:
        """End it politely, and for certain; nothing happens when it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._end(signal.SIGKILL)
            raise AssertionError(f"the server ignored SIGTERM:\n{self.log()}") from None
        self._process = None

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, without notice."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)
        self._process.wait()
        self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
