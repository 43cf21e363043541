"""The pages and downloads over HTTP, and the rules every one of them keeps.

Invariants: a request that changes something carries the session's CSRF token (header `X-CSRF-Token` or form
field `csrf`); every answer carries the security headers; no answer shows a traceback; what a script asks
for (`/labs/<id>/...`, `/healthz`) is answered in JSON with the same Problem as over the socket, what a
person asks for with a page.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from typing import Any

import msgspec
import numpy as np
from flask import Blueprint, Response, current_app, redirect, render_template, request, session, url_for
from werkzeug.exceptions import BadRequest, HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.wrappers import Response as BaseResponse

from engine.commands import ImageAdd, LabError, Problem, SnapshotQuery, StretchQuery, TraceQuery
from engine.guests.difference import difference
from engine.snapshot import SUFFIX
from engine.trace import record
from engine.trace.chrome import Names, to_chrome
from engine.trace.export import to_lines
from webapp.config import FORM_BYTES, Config
from webapp.debian import MEMORY_MIB as LINUX_MEMORY_MIB
from webapp.labs import DEMO, Labs
from webapp.library import NewImage
from webapp.popek_goldberg import Classification
from webapp.store import LabRow

LANGUAGES = ("en", "ko")
NAME_LENGTH = 40
TRACE_PAGE = 1000

pages = Blueprint("pages", __name__)
log = logging.getLogger(__name__)


def labs_of_server() -> Labs:
    found: Labs = current_app.extensions["ringside"]
    return found


def _config() -> Config:
    found: Config = current_app.config["RINGSIDE"]
    return found


# -- rules for all ---------------------------------------------------------------------------------------
def csrf_token() -> str:
    """The session's token, made when it is first needed."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    token: str = session["csrf"]
    return token


@pages.before_app_request
def check_csrf() -> None:
    """Refuse a request that changes something unless it carries the session's token (OWASP: synchronizer
    token).
    """
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    given = request.headers.get("X-CSRF-Token") or request.form.get("csrf", "")
    if not secrets.compare_digest(given.encode(), session.get("csrf", "").encode()) or not given:
        raise LabError("page-too-old", "This page is too old to change anything: reload it and try again.")


@pages.after_app_request
def add_security_headers(response: Response) -> Response:
    """The content security policy is strict for scripts; xterm.js and CodeMirror write inline styles."""
    host = request.host
    response.headers["Content-Security-Policy"] = "; ".join(
        (
            "default-src 'self'",
            "script-src 'self'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            f"connect-src 'self' ws://{host} wss://{host}",
            "object-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        )
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


def language() -> str:
    """The page's language: the visitor's choice, else the browser's, else English."""
    chosen = request.cookies.get("language")
    return chosen if chosen in LANGUAGES else request.accept_languages.best_match(LANGUAGES) or LANGUAGES[0]


@pages.app_context_processor
def page_values() -> dict[str, Any]:
    """What every template may use: `csrf`, `language`."""
    return {"csrf": csrf_token(), "language": language()}


@pages.app_errorhandler(HTTPException)
def http_error(error: HTTPException) -> tuple[Response | str, int]:
    return _failure(error.code or 500, Problem(f"http.{error.code}", error.description or error.name))


@pages.app_errorhandler(RequestEntityTooLarge)
def too_large(_error: RequestEntityTooLarge) -> tuple[Response | str, int]:
    return lab_error(_too_large("file", request.max_content_length or 0))


@pages.app_errorhandler(LabError)
def lab_error(error: LabError) -> tuple[Response | str, int]:
    return _failure(_STATUS.get(error.problem.key, 422), error.problem)


@pages.app_errorhandler(Exception)
def defect(_error: Exception) -> tuple[Response | str, int]:
    reference = secrets.token_hex(4)
    log.exception("[%s] %s %s", reference, request.method, request.path)
    sentence = f"Something went wrong on our side (reference {reference})."
    return _failure(500, Problem("internal", sentence, {"reference": reference}))


_STATUS = {
    "lab-not-found": 404,
    "no-such-image": 404,
    "compare-gone": 404,
    "server-limit-labs": 409,
    "page-too-old": 403,
    "no-file": 400,
    "upload-too-large": 413,
}


def _failure(status: int, problem: Problem) -> tuple[Response | str, int]:
    wants_page = request.accept_mimetypes.best_match(("text/html", "application/json")) == "text/html"
    if wants_page and "X-CSRF-Token" not in request.headers:
        return render_template("error.html", status=status, problem=problem), status
    return json_response({"ok": False, "error": problem}), status


def json_response(content: Any) -> Response:
    return Response(msgspec.json.encode(content), mimetype="application/json")


# -- pages -----------------------------------------------------------------------------------------------
@pages.get("/")
def home() -> str:
    return lab(DEMO)


@pages.get("/labs")
def labs() -> str:
    return render_template("labs.html", labs=[summary(row) for row in labs_of_server().rows()])


@pages.post("/labs")
def create_lab() -> BaseResponse:
    name = lab_name(request.form.get("name", ""), "Lab")
    return redirect(url_for("pages.lab", name=labs_of_server().create(name)))


@pages.get("/labs/<name>")
def lab(name: str) -> str:
    return render_template("lab.html", lab=labs_of_server().row(name).id)


@pages.get("/popek-goldberg")
def popek_goldberg() -> str:
    """Every instruction of the machine as privileged, sensitive or innocuous."""
    return render_template("popek_goldberg.html")


# -- for scripts -----------------------------------------------------------------------------------------
@pages.get("/popek-goldberg.json")
def classification() -> Response:
    found: Classification = current_app.extensions["popek-goldberg"]
    return Response(found.json(), mimetype="application/json")


@pages.post("/labs/<name>/afresh")
def open_afresh(name: str) -> Response:
    """Open a lab that cannot be opened as it was left, with every guest about to start."""
    labs_of_server().open_afresh(name)
    return json_response({"ok": True})


@pages.post("/labs/<name>/images")
def upload_image(name: str) -> Response:
    file = request.files.get("file")
    if file is None:
        raise LabError("no-file", "Send the image as the form's field “file”.")
    labs_of_server().row(name)
    content = file.stream.read()
    if not content:
        raise LabError("image-empty", "The file is empty.")
    if len(content) > _config().max_upload_bytes:
        raise _too_large(file.filename or "file", _config().max_upload_bytes)
    accepted = labs_of_server().command(name, ImageAdd(lab_name(file.filename or "", "image"), content))
    return json_response({"ok": True, **msgspec.msgpack.decode(accepted.result)})


@pages.get("/labs/<name>/snapshots/<image>")
def snapshot(name: str, image: str) -> Response:
    """A snapshot that the lab keeps, as a file that this or another lab, or `ringside run`, goes on from."""
    labs_of_server().row(name)
    try:
        query = msgspec.convert({"image": image}, SnapshotQuery)
    except msgspec.ValidationError as error:
        raise BadRequest(f"This is not the id of a snapshot: {error}.") from None
    found = msgspec.msgpack.decode(labs_of_server().query(name, query).result)
    response = Response(found["content"], mimetype="application/octet-stream")
    filename = re.sub(r"[^\w.\-]", "-", found["name"], flags=re.ASCII) + SUFFIX
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


@pages.get("/guests/<name>/difference")
def source_difference(name: str) -> Response:
    """A changed kernel's source beside its original's (engine.guests.difference)."""
    try:
        return json_response({"ok": True, "difference": difference(name)._asdict()})
    except KeyError:
        raise NotFound(f"No guest {name} is a changed form of another.") from None


@pages.get("/images/debian")
def fetch_state() -> Response:
    """How far the fetching of Debian is (webapp.fetching.Fetch)."""
    return json_response({"ok": True, "fetch": labs_of_server().fetcher.state})


@pages.post("/images/debian")
def start_fetch() -> Response:
    labs_of_server().fetcher.start()
    return fetch_state()


@pages.delete("/images/debian")
def cancel_fetch() -> Response:
    labs_of_server().fetcher.cancel()
    return fetch_state()


@pages.post("/images")
def add_image() -> Response:
    """Keep files of somebody's own for all labs: the form's files `kernel` and `initrd`, fields `name`,
    `arguments` and `memory_mib`.
    """
    request.max_content_length = _config().max_image_bytes + FORM_BYTES
    kernel, initrd = request.files.get("kernel"), request.files.get("initrd")
    if kernel is None or not kernel.filename:
        raise LabError("no-file", "Send the kernel as the form's file “kernel”.")
    form = request.form
    image = NewImage(
        form.get("name", "").strip().lower(),
        lab_name(kernel.filename, "kernel"),
        kernel.stream.read(),
        initrd.stream.read() if initrd is not None and initrd.filename else None,
        arguments=form.get("arguments", ""),
        memory_mib=form.get("memory_mib", LINUX_MEMORY_MIB, type=int),
    )
    manifest = labs_of_server().add_image(image)
    return json_response({"ok": True, "name": manifest.name, "image": manifest.identity})


@pages.get("/labs/<name>/export")
def export(name: str) -> Response:
    row = labs_of_server().row(name)
    response = Response(
        json.dumps(document_of(row), ensure_ascii=False, indent=2) + "\n", mimetype="application/json"
    )
    response.headers["Content-Disposition"] = f'attachment; filename="ringside-{row.id}.json"'
    return response


@pages.get("/labs/<name>/trace")
def trace(name: str) -> Response:
    """The records of one guest (`guest`) or of all, oldest first: those that are held or can be derived again, or those
    of the stretch of positions from `from` to before `to`. As JSON lines, or with `format=chrome` for trace viewers.
    """
    given = {key: _position(key) for key in ("guest", "from", "to")}
    guest, shape = given["guest"], request.args.get("format", "lines")
    if shape not in ("lines", "chrome"):
        raise BadRequest("“format” is lines or chrome.")
    row = labs_of_server().row(name)
    if given["from"] is not None or given["to"] is not None:
        records = _stretch(name, {"begin": given["from"] or 0, "end": given["to"] or 2**63 - 1, "guest": guest})
    else:
        guests = [guest] if guest is not None else [item["id"] for item in document_of(row)["guests"]]
        records = b"".join(_all_records(labs_of_server(), name, number) for number in guests)
    if shape == "chrome":
        document = document_of(row)
        called = [{item["id"]: item["name"] for item in document[kind]} for kind in ("hosts", "guests")]
        response = Response("".join(to_chrome(records, Names(*called))), mimetype="application/json")
        suffix = "json"
    else:
        response = Response("".join(to_lines(records)), mimetype="application/x-ndjson")
        suffix = "jsonl"
    response.headers["Content-Disposition"] = f'attachment; filename="ringside-{row.id}-trace.{suffix}"'
    return response


def _position(key: str) -> int | None:
    """A whole number of the request's query; None when it is not given."""
    number = request.args.get(key, type=int)
    if key in request.args and number is None:
        raise BadRequest(f"“{key}” is a whole number.")
    return number


def _stretch(lab: str, query: dict[str, Any]) -> bytes:
    try:
        asked = msgspec.convert(query, StretchQuery)
    except msgspec.ValidationError as error:
        raise BadRequest(f"There is no such stretch: {error}.") from None
    records: bytes = msgspec.msgpack.decode(labs_of_server().query(lab, asked).result)["records"]
    return records


def _all_records(labs: Labs, lab: str, guest: int) -> bytes:
    """All that a trace query gives of one guest, oldest first (engine.trace.record.RECORD)."""
    chunks: list[bytes] = []
    before: int | None = None
    while True:
        try:
            query = msgspec.convert({"guest": guest, "before": before, "limit": TRACE_PAGE}, TraceQuery)
        except msgspec.ValidationError as error:
            raise BadRequest(f"This is not the number of a guest: {error}.") from None
        chunk: bytes = msgspec.msgpack.decode(labs.query(lab, query).result)["records"]
        if not chunk:
            return b"".join(reversed(chunks))
        chunks.append(chunk)
        before = int(np.frombuffer(chunk, record.RECORD, 1)["sequence"][0])


def document_of(row: LabRow) -> dict[str, Any]:
    document: dict[str, Any] = (
        msgspec.msgpack.decode(row.document) if row.document else {"hosts": [], "guests": []}
    )
    return document


def summary(row: LabRow) -> dict[str, Any]:
    """A lab for the list of labs: {"id", "name", "hosts", "guests"} (numbers)."""
    document = document_of(row)
    return {
        "id": row.id,
        "name": row.name,
        "hosts": len(document["hosts"]),
        "guests": len(document["guests"]),
    }


def lab_name(text: str, otherwise: str) -> str:
    """What a person or a file is called, as a name that the engine takes (engine.commands.Name)."""
    name = re.sub(r"[^\w .\-]", "-", text.rsplit("/", 1)[-1].rsplit("\\", 1)[-1]).strip(" .-")[:NAME_LENGTH]
    return name or otherwise


def _too_large(name: str, most_bytes: int) -> LabError:
    most = most_bytes >> 20
    sentence = f"{name} is larger than {most} MiB, the most that can be uploaded."
    return LabError("upload-too-large", sentence, name=name, most=most)


@pages.get("/healthz")
def health() -> tuple[Response, int]:
    """{"ok", "workers"}: how many engine processes are ready; 503 while none is."""
    workers = labs_of_server().workers
    return json_response({"ok": bool(workers), "workers": len(workers)}), 200 if workers else 503
