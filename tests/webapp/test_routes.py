"""Pages and downloads: what they answer, and what they refuse (CSRF, sizes, foreign host names)."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from engine.machine.popek_goldberg import classify
from tests.support.server import Server
from tests.webapp.browser import Browser
from tests.webapp.client import Page
from tests.webapp.conftest import create_lab

EVERY_PAGE = (
    "/",
    "/labs",
    "/labs/demo",
    "/healthz",
    "/popek-goldberg",
    "/labs/demo/export",
    "/guests/ringos-pv/difference",
    "/labs/nowhere",
    "/static/js/main.js",
    "/nothing",
)


@pytest.fixture
def browser(shared: Server) -> Browser:
    browser = Browser(shared)
    browser.get("/")
    return browser


def test_the_front_page_is_the_demo_lab(browser: Browser) -> None:
    page = browser.get("/")
    assert page.status == 200
    assert 'data-lab="demo"' in page.text
    assert browser.get("/labs/demo").text.count("data-lab") == 1


@pytest.mark.parametrize("path", EVERY_PAGE)
def test_every_answer_carries_the_security_headers(browser: Browser, path: str) -> None:
    headers = browser.get(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "unsafe-eval" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


def test_the_session_cookie_is_not_for_scripts_or_other_sites(shared: Server) -> None:
    cookie = Browser(shared).get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({}, "en"),
        ({"Accept_Language": "ko-KR,ko;q=0.9,en;q=0.5"}, "ko"),
        ({"Accept_Language": "fr"}, "en"),
        ({"Accept_Language": "en", "Cookie": "language=ko"}, "ko"),
        ({"Accept_Language": "ko", "Cookie": "language=<script>"}, "ko"),
    ],
)
def test_language_is_the_visitors_choice_then_the_browsers(
    shared: Server, headers: dict[str, str], language: str
) -> None:
    assert f'data-language="{language}"' in Browser(shared).get("/", **headers).text


def test_making_a_lab_needs_the_token(browser: Browser, shared: Server) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"name=x", b"name=x&csrf=", b"name=x&csrf=wrong"):
        answer = browser.request("POST", "/labs", body, form)
        assert answer.status == 403
        assert "reload" in answer.text
    stranger = Browser(shared)
    stranger.get("/")
    assert browser.request("POST", "/labs", f"csrf={stranger.csrf}".encode(), form).status == 403
    made = browser.request("POST", "/labs", f"name=Übung 1&csrf={browser.csrf}".encode(), form)
    assert made.status == 302
    assert browser.get(urllib.parse.urlsplit(made.headers["Location"]).path).status == 200
    assert "Übung 1" in browser.get("/labs").text


def test_hostile_lab_names_are_tamed(browser: Browser) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    name = urllib.parse.quote("<script>alert(1)</script>" * 20)
    assert browser.request("POST", "/labs", f"name={name}&csrf={browser.csrf}".encode(), form).status == 302
    assert "<script>alert" not in browser.get("/labs").text


def test_an_unknown_lab_is_a_page_for_people_and_a_problem_for_scripts(browser: Browser) -> None:
    page = browser.get("/labs/nowhere")
    assert page.status == 404
    assert "<html" in page.text
    answer = browser.get("/labs/nowhere/export", Accept="application/json")
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["key"] == "lab-not-found"


def test_export_is_the_document(browser: Browser, shared: Server) -> None:
    lab = create_lab(shared, "exported")
    with Page(shared.port) as page:
        page.join(lab)
        page.command("host.create", name="alpha")
        answer = browser.get(f"/labs/{lab}/export")
    document = json.loads(answer.body)
    assert [host["name"] for host in document["hosts"]] == ["alpha"]
    assert "attachment" in answer.headers["Content-Disposition"]


def test_the_trace_is_downloaded_as_json_lines(browser: Browser, shared: Server) -> None:
    with Page(shared.port) as page:
        guest = page.join("demo")["keyframe"]["document"]["guests"][0]["id"]
        page.until("tick", lambda tick: tick["sample"])
    answer = browser.get(f"/labs/demo/trace?guest={guest}")
    assert answer.status == 200
    records = [json.loads(line) for line in answer.text.splitlines()]
    sequences = [record["sequence"] for record in records]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert all(record["guest"] == guest for record in records)
    for wrong in ("x", "0", "-1", "65536"):
        assert browser.get(f"/labs/demo/trace?guest={wrong}").status == 400


def test_a_stretch_of_the_trace_is_downloaded_for_viewers(browser: Browser, shared: Server) -> None:
    with Page(shared.port) as page:
        page.join("demo")
        page.until("tick", lambda tick: tick["position"] > 3_000)
    answer = browser.get("/labs/demo/trace?format=chrome&from=100&to=3000")
    assert answer.status == 200
    assert answer.headers["Content-Disposition"].endswith('trace.json"')
    told = [event["args"] for event in json.loads(answer.body)["traceEvents"] if "position" in event.get("args", {})]
    assert told
    assert all(100 <= args["position"] < 3000 for args in told)
    lines = browser.get("/labs/demo/trace?from=100&to=3000").text.splitlines()
    assert [json.loads(line) for line in lines] == told
    for wrong in ("format=x", "from=x", "to=-1", "from=1&guest=0", "from=99999999999999999999"):
        assert browser.get(f"/labs/demo/trace?{wrong}").status == 400, wrong


def test_a_snapshot_is_downloaded_and_goes_on_in_another_lab(browser: Browser, shared: Server) -> None:
    first, second = create_lab(shared, "first"), create_lab(shared, "second")
    with Page(shared.port) as page:
        page.join(first)
        host = page.command("host.create")["result"]["host"]
        guest = page.command("guest.create", host=host, image="hello")["result"]["guest"]
        image = page.command("snapshot.take", guest=guest, name="früh")["result"]["image"]
        refused = page.ask("query", {"query": {"type": "snapshot", "image": image}})
        assert refused["error"]["key"] == "bad-message"
    answer = browser.get(f"/labs/{first}/snapshots/{image}")
    assert answer.status == 200
    assert answer.headers["Content-Disposition"] == 'attachment; filename="fr-h.ringside"'
    assert answer.body.startswith(b"RINGSNAP")
    for wrong in ("hello", "snapshot:00", "x" * 81):
        status = browser.get(f"/labs/{first}/snapshots/{wrong}", Accept="application/json").status
        assert status in (400, 404), wrong
    uploaded = browser.upload(f"/labs/{second}/images", "früh.ringside", answer.body)
    assert json.loads(uploaded.body) == {"ok": True, "image": image}
    damaged = bytearray(answer.body)
    damaged[-100] ^= 1
    refused = json.loads(browser.upload(f"/labs/{second}/images", "x", bytes(damaged)).body)
    assert refused["error"]["key"] == "snapshot-damaged"
    with Page(shared.port) as page:
        page.join(second)
        host = page.command("host.create")["result"]["host"]
        page.command("guest.create", host=host, image=image)
        page.command("lab.speed", speed="max")
        page.command("lab.run")
        page.until("tick", lambda tick: any(b"Hello" in data for _, data in tick["console"]))


@pytest.fixture
def upload(shared: Server, browser: Browser) -> str:
    return f"/labs/{create_lab(shared)}/images"


def test_an_uploaded_image_is_in_the_document(browser: Browser, upload: str, hello_elf: bytes) -> None:
    answer = browser.upload(upload, "../My kernel?.elf", hello_elf)
    assert answer.status == 200, answer.text
    result = json.loads(answer.body)
    assert result["ok"]
    document = json.loads(browser.get(upload.replace("images", "export")).body)
    assert [image["name"] for image in document["images"] if image["id"] == result["image"]] == [
        "My kernel-.elf"
    ]


def test_uploads_that_cannot_be_taken_say_why(browser: Browser, upload: str, hello_elf: bytes) -> None:
    def problem(status: int, name: str, content: bytes, **headers: str) -> str:
        answer = browser.upload(upload, name, content, **headers)
        assert answer.status == status, answer.text
        found = json.loads(answer.body)
        assert not found["ok"]
        assert found["error"]["message"]
        key: str = found["error"]["key"]
        return key

    assert problem(422, "empty", b"") == "image-empty"
    assert problem(413, "large", bytes((8 << 20) + 1)) == "upload-too-large"
    assert problem(413, "huge", bytes((8 << 20) + (128 << 10))) == "upload-too-large"
    assert problem(422, "cut.elf", hello_elf[:100])
    assert problem(403, "hello.elf", hello_elf, X_CSRF_Token="wrong") == "page-too-old"
    document = json.loads(browser.get(upload.replace("images", "export")).body)
    assert all(image["builtin"] for image in document["images"])


def test_a_form_without_a_file_says_so(browser: Browser, upload: str) -> None:
    answer = browser.request("POST", upload, b"", {"X-CSRF-Token": browser.csrf, "Accept": "*/*"})
    assert answer.status == 400
    assert "file" in json.loads(answer.body)["error"]["message"]


def test_a_changed_kernels_source_stands_beside_the_originals(browser: Browser) -> None:
    found = json.loads(browser.get("/guests/ringos-pv/difference").text)["difference"]
    assert (found["guest"], found["original"]) == ("ringos-pv", "ringos")
    name, original, changed, rows = found["files"][0]
    assert (name, original, changed) == ("machine.h", "native/machine.h", "pv/machine.h")
    assert {row[0] for row in rows} == {"changed", "removed", "added", "same"}
    for nothing in ("ringos", "nobody", "..%2f..%2fetc"):
        assert browser.get(f"/guests/{nothing}/difference").status == 404


def test_a_foreign_host_name_is_refused(shared: Server) -> None:
    browser = Browser(shared)
    assert browser.get("/", Host="evil.example").status == 421
    assert browser.get("/", Host=f"evil.example:{shared.port}").status == 421
    for ours in ("localhost", f"127.0.0.1:{shared.port}", "192.168.1.7", "[::1]:8000"):
        assert browser.get("/", Host=ours).status == 200, ours


def test_long_polling_is_not_offered(browser: Browser) -> None:
    assert browser.get("/socket.io/?EIO=4&transport=polling").status == 400


def test_health_counts_the_workers(browser: Browser) -> None:
    health = json.loads(browser.get("/healthz").body)
    assert health["ok"]
    assert health["workers"] >= 1


def test_the_classification_is_that_of_the_engine(browser: Browser) -> None:
    page = browser.get("/popek-goldberg")
    assert page.status == 200
    assert 'src="/static/js/popek_goldberg.js"' in page.text
    answer = json.loads(browser.get("/popek-goldberg.json").text)
    assert answer["plain"] == [verdict.plain() for verdict in classify()]
    changed = {verdict["name"]: verdict for verdict in answer["silent"]}
    assert changed == {verdict.name: verdict.plain() for verdict in classify(silent=True) if verdict.violates}
