"""`ringside serve` at a terminal: the address, and the sentences for what goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.support.checks import ROOT
from tests.support.server import Server


def serve(data: Path, *options: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "webapp.cli", "serve", "--data", str(data), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
    )


def failure(data: Path, *options: str, **environ: str) -> str:
    """What a server that cannot start says; one line."""
    with serve(data, *options, **environ) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert errors.count("\n") == 1, errors
    assert errors.startswith("ringside: ")
    return errors


def test_it_says_where_it_is_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    with serve(tmp_path, "--port", "0", "--workers", "1") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Ringside is at http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Port {port} is taken" in failure(tmp_path, "--port", str(port))
        assert f"Port {port} is taken" in failure(tmp_path, PORT=str(port))


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    assert "PORT is 'http'" in failure(tmp_path, PORT="http")
    assert "RINGSIDE_WORKERS is '0'" in failure(tmp_path, "--workers", "0")
    assert "Cannot listen on" in failure(tmp_path, "--host", "256.1.1.1", "--port", "0")


def test_a_folder_in_use_or_from_the_future(own: Server, tmp_path: Path) -> None:
    assert f"process {own.pid}" in failure(own.data, "--port", "0")
    newer = tmp_path / "newer"
    newer.mkdir()
    with sqlite3.connect(newer / "ringside.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert "newer Ringside" in failure(newer, "--port", "0")


def test_help_names_every_command() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "webapp.cli", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert all(command in answer.stdout for command in ("serve", "run", "asm", "disasm"))
