"""`ringside images` and the page's dialog: fetching Debian (from an apt of the tests' own), files, and what goes
wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.library import manifests
from tests.support.apt import KERNEL, Apt, make_apt
from tests.support.checks import ROOT
from tests.support.server import TRACEBACK, Server
from tests.webapp.browser import Browser
from tests.webapp.client import Page
from tests.webapp.conftest import create_lab, make_server


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory) -> Apt:
    return make_apt(tmp_path_factory.mktemp("apt"))


@pytest.fixture
def environment(apt: Apt, tmp_path: Path) -> dict[str, str]:
    """With the tests' apt and a data folder of the test's own."""
    for behaviour in ("slow", "unreachable", "parts"):
        apt.tell(behaviour, on=False)
    return {
        **os.environ, "PATH": f"{apt.folder}:{os.environ['PATH']}", "RINGSIDE_DATA": str(tmp_path / "data"),
    }  # fmt: skip


def ringside(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "webapp.cli", *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


# -- in a terminal -------------------------------------------------------------------------------------
def test_debian_is_fetched_listed_run_and_removed(environment: dict[str, str]) -> None:
    assert "There is no image" in ringside(environment, "images", "list").stdout
    added = ringside(environment, "images", "add", "debian")
    assert (added.returncode, added.stdout.count("\n")) == (0, 1)
    assert [line.split(" ")[0] for line in added.stderr.splitlines()] == [
        "reading", "downloading", "unpacking", "building", "keeping",
    ]  # fmt: skip
    assert "Debian 13, Linux 6.99, BusyBox" in ringside(environment, "images", "list").stdout
    ran = ringside(environment, "run", "debian", "--on", "bare-metal")
    assert (ran.returncode, ran.stdout) == (0, "Hello from supervisor mode!\n")
    assert ringside(environment, "images", "remove", "debian").returncode == 0
    gone = ringside(environment, "run", "debian")
    assert gone.returncode == 126
    assert "ringside images list: none" in gone.stderr


def test_packages_that_are_here_already_need_no_apt(environment: dict[str, str], apt: Apt) -> None:
    apt.tell("unreachable", on=True)
    added = ringside(environment, "images", "add", "local", "--deb", *apt.packages)
    assert added.returncode == 0, added.stderr
    assert "local:" in added.stdout


def test_the_next_debian_is_taken_while_a_mirror_has_this_one_in_parts(environment: dict[str, str], apt: Apt) -> None:
    apt.tell("parts", on=True)
    assert ringside(environment, "images", "add", "debian").returncode == 0


def test_files_of_ones_own(environment: dict[str, str], tmp_path: Path) -> None:
    kernel, disk = tmp_path / "kernel.elf", tmp_path / "disk.cpio"
    kernel.write_bytes(KERNEL)
    disk.write_bytes(b"070701")
    added = ringside(
        environment, "images", "add", "mine", "--kernel", kernel, "--initrd", disk, "--append", "quiet", "--memory", 64
    )
    assert added.returncode == 0, added.stderr
    (manifest,) = manifests(tmp_path / "data" / "images")
    assert (manifest.name, manifest.title, manifest.arguments, manifest.memory_mib) == (
        "mine",
        "kernel.elf",
        "quiet",
        64,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "mine"), "name its kernel: --kernel FILE"),
        (("add", "mine", "--kernel", "/nowhere"), "/nowhere: No such file"),
        (("add", "Mine!", "--kernel", "{kernel}"), "cannot be an image"),
        (("add", "mine", "--kernel", "{kernel}", "--deb", "{kernel}"), "not both"),
        (("add", "debian", "--deb", "{kernel}"), "no Debian package"),
        (("remove", "nothing"), "There is no image nothing"),
    ],
)
def test_refusals_are_one_sentence(
    arguments: tuple[str, ...], said: str, environment: dict[str, str], tmp_path: Path
) -> None:
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes(KERNEL)
    done = ringside(environment, "images", *(word.format(kernel=kernel) for word in arguments))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ringside: ")
    assert said in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "data" / "images").glob("*.json"))


def test_what_to_do_when_the_registry_cannot_be_reached(environment: dict[str, str], apt: Apt) -> None:
    apt.tell("unreachable", on=True)
    done = ringside(environment, "images", "add", "debian")
    assert done.returncode == 1
    assert "could not be fetched: Could not resolve archive.invalid" in done.stderr
    assert "--kernel FILE" in done.stderr
    bare = {**environment, "PATH": str(Path(sys.executable).parent)}
    assert "fetched with apt, which this machine does not have" in ringside(bare, "images", "add", "debian").stderr


def test_an_interrupted_fetch_leaves_nothing(environment: dict[str, str], apt: Apt, tmp_path: Path) -> None:
    apt.tell("slow", on=True)
    command = [sys.executable, "-m", "webapp.cli", "images", "add", "debian", "--progress", "json"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**environment, "TMPDIR": str(temporary)}
    ) as process:
        assert process.stdout is not None
        stages = iter(process.stdout)
        while json.loads(next(stages))["stage"] != "download":
            pass
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert process.returncode == 130
    assert not list(temporary.iterdir())
    assert not (tmp_path / "data").exists()


# -- on the page -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server(apt: Apt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose apt is the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{apt.folder}:{os.environ['PATH']}")
        server = make_server(tmp_path_factory.mktemp("images") / "data")
        with server:
            yield server
    assert TRACEBACK not in server.log(), server.log()


@pytest.fixture
def browser(server: Server) -> Browser:
    browser = Browser(server)
    browser.get("/")
    return browser


def asked(browser: Browser, method: str) -> dict[str, Any]:
    answer = browser.request(method, "/images/debian", None, {"X-CSRF-Token": browser.csrf})
    assert answer.status == 200, answer.text
    fetch: dict[str, Any] = json.loads(answer.body)["fetch"]
    return fetch


def waited(get: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    until = time.monotonic() + 60
    while not holds(value := get()):
        assert time.monotonic() < until, value
        time.sleep(0.05)
    return value


def names(page: Page, lab: str) -> list[str]:
    return [image["name"] for image in page.join(lab)["keyframe"]["document"]["images"]]


def test_every_page_hears_how_far_it_is_and_has_it_in_the_end(server: Server, apt: Apt, browser: Browser) -> None:
    for behaviour in ("slow", "unreachable", "parts"):
        apt.tell(behaviour, on=False)
    lab = create_lab(server, "fetching")
    with Page(server.port) as page:
        assert "debian" not in names(page, lab)
        assert asked(browser, "POST")["running"]
        assert asked(browser, "POST")["running"]
        stages = [page.until("fetch")["stage"]]
        while stages[-1] != "done":
            stages.append(page.until("fetch")["stage"])
        assert list(dict.fromkeys(stages)) == ["lists", "download", "unpack", "build", "keep", "done"]
    with Page(server.port) as page:
        images = page.join(lab)["keyframe"]["document"]["images"]
        image = next(row for row in images if row["name"] == "debian")
        assert (image["kind"], image["default_memory_mib"], image["builtin"]) == ("linux", 256, False)
        host = page.command("host.create", stack="bare-metal")["result"]["host"]
        page.command("guest.create", host=host, image=image["id"])
    with Page(server.port) as other:
        assert "debian" in names(other, create_lab(server, "another"))


def test_a_fetch_can_be_cancelled(server: Server, apt: Apt, browser: Browser) -> None:
    apt.tell("slow", on=True)
    asked(browser, "POST")
    waited(lambda: asked(browser, "GET"), lambda fetch: fetch["stage"] == "download")
    asked(browser, "DELETE")
    ended = waited(lambda: asked(browser, "GET"), lambda fetch: not fetch["running"])
    assert (ended["stage"], ended["problem"]) == ("", None)


def test_why_it_failed(apt: Apt, browser: Browser) -> None:
    apt.tell("unreachable", on=True)
    asked(browser, "POST")
    ended = waited(lambda: asked(browser, "GET"), lambda fetch: not fetch["running"])
    assert ended["problem"]["key"] == "fetch-failed"
    assert ended["problem"]["params"] == {"reason": "Could not resolve archive.invalid"}


def _form(fields: dict[str, str], files: dict[str, bytes]) -> tuple[bytes, str]:
    """A multipart form (RFC 7578) and its boundary."""
    boundary = "ringside-boundary"
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="{name}"; filename="{name}.bin"', content) for name, content in files.items()]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    return body + f"--{boundary}--\r\n".encode(), boundary


def added(browser: Browser, fields: dict[str, str], files: dict[str, bytes]) -> dict[str, Any]:
    body, boundary = _form(fields, files)
    headers = {"X-CSRF-Token": browser.csrf, "Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer: dict[str, Any] = json.loads(browser.request("POST", "/images", body, headers).body)
    return answer


def test_files_are_added_for_every_lab(server: Server, browser: Browser) -> None:
    large = KERNEL + bytes(20 << 20)
    answer = added(browser, {"name": "mine", "memory_mib": "64"}, {"kernel": large, "initrd": b"070701"})
    assert answer["ok"], answer
    with Page(server.port) as page:
        assert "mine" in names(page, create_lab(server, "files"))


@pytest.mark.parametrize(
    ("fields", "files", "key"),
    [
        ({"name": "x"}, {}, "no-file"),
        ({"name": "x"}, {"kernel": b"\x1f\x8b"}, "image-packed"),
        ({"name": "../x"}, {"kernel": KERNEL}, "library-manifest"),
        ({"name": "x", "memory_mib": "1"}, {"kernel": KERNEL}, "image-too-large"),
        ({"name": "x"}, {"kernel": bytes(64), "initrd": b"070701"}, "initrd-start"),
    ],
)
def test_files_that_cannot_be_an_image(
    fields: dict[str, str], files: dict[str, bytes], key: str, browser: Browser
) -> None:
    answer = added(browser, fields, files)
    assert not answer["ok"]
    assert answer["error"]["key"] == key


def test_fetching_needs_the_token(browser: Browser) -> None:
    assert browser.request("POST", "/images/debian").status == 403
    assert browser.request("DELETE", "/images/debian").status == 403
