"""Comparisons over HTTP: what can be compared, those of a lab, their files, and the link that asks for one again.

    GET  /compare?workload=W,W&configs=C,C          the page, which carries it out in the demo lab
    GET  /labs/<lab>?workload=...&configs=...       the same in a lab
    GET, POST  /labs/<lab>/comparisons              those it has, and what can be chosen; begin one
    GET, DELETE  .../comparisons/<id>               everything known of one; cancel or delete it
    GET  .../comparisons/<id>.csv, .json            as files
    POST /labs/<lab>/lock-step                      the first difference of two configurations

webapp.routes' rules hold here too. How far a comparison is comes over the socket (webapp.comparing.Progress).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args

import msgspec
from flask import Blueprint, Response, redirect, request, url_for
from msgspec import Meta, Struct
from werkzeug.wrappers import Response as BaseResponse

from engine.commands import LabError, ProfileId
from engine.compare import WORKLOADS, Together, configurations, costs, costs_text, workload
from engine.hypervisor.costs import Costs
from engine.hypervisor.stacks import EVERY_TECHNIQUE, SWITCHES, Configuration
from webapp.comparing import Outline
from webapp.comparisons import FIGURES, USUAL, Comparison, export, to_csv, to_json
from webapp.routes import document_of, json_response, labs_of_server

comparisons = Blueprint("comparisons", __name__)

Text = Annotated[str, Meta(max_length=200)]
Texts = Annotated[list[Text], Meta(max_length=256)]


class Asked(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /labs/<lab>/comparisons."""

    workloads: Texts
    configurations: Texts
    costs: Text = ""  # the default's


class AskedTogether(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /labs/<lab>/lock-step. `skip`: so many stretches that differ are left out."""

    workload: Text
    left: Text
    right: Text
    skip: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    costs: Text = ""


Body = TypeVar("Body", Asked, AskedTogether)


def _body(shape: type[Body]) -> Body:
    try:
        return msgspec.json.decode(request.get_data(), type=shape)
    except msgspec.DecodeError as error:
        raise LabError(
            "bad-message", f"This message was not understood: {error}.", detail=str(error)
        ) from None


@comparisons.get("/compare")
def again() -> BaseResponse:
    """The link that `ringside compare` prints."""
    workloads, ways, charged = (
        request.args.get(name, "").replace(" ", "+") for name in ("workload", "configs", "costs")
    )
    return redirect(url_for("pages.home", workload=workloads, configs=ways, costs=charged or None))


@comparisons.get("/labs/<name>/comparisons")
def all_of_lab(name: str) -> Response:
    """{"choices": {"workloads", "configurations", "techniques", ...}, "comparisons": [...]}, oldest first."""
    found = [_summary(one) for one in labs_of_server().comparisons(name)]
    return json_response({"ok": True, "choices": _choices(name), "comparisons": found})


def _choices(lab: str) -> dict[str, Any]:
    """What can be compared. `own_costs`: the lab's table, as text."""
    charged = msgspec.convert(document_of(labs_of_server().row(lab)).get("costs", {}), Costs)
    return {
        "profiles": get_args(ProfileId),
        "own_costs": costs_text(charged),
        "workloads": list(WORKLOADS.values()),
        "configurations": [_named(way) for way in configurations()],
        "techniques": EVERY_TECHNIQUE,
        "switches": [
            {"id": name, "stacks": row.stacks, "techniques": row.techniques} for name, row in SWITCHES.items()
        ],
        "usual": {"workloads": USUAL.workloads, "configurations": USUAL.configurations},
        "figures": [
            {"id": row.name, "per_unit": row.per_unit, "repeats": row.repeats}
            for row in FIGURES
            if not row.detail
        ],
    }


def _named(way: Configuration) -> dict[str, Any]:
    return {"id": str(way), "stack": way.stack, "technique": way.technique}


def _summary(one: Outline) -> dict[str, Any]:
    return {
        "id": one.id,
        "created": one.created,
        "workloads": one.asked.workloads,
        "configurations": one.asked.configurations,
        "costs_text": one.asked.costs,
        "done": one.done,
        "total": one.total,
        "query": one.asked.query(),
    }


@comparisons.post("/labs/<name>/comparisons")
def begin(name: str) -> Response:
    asked = _body(Asked)
    begun = labs_of_server().compare(name, Comparison.of(asked.workloads, asked.configurations, asked.costs))
    return json_response({"ok": True, "id": begun})


@comparisons.get("/labs/<name>/comparisons/<comparison>")
def one(name: str, comparison: str) -> Response:
    """The summary, and the runs that are over, as in the file."""
    outlined, whole = labs_of_server().comparison(name, comparison)
    return json_response({"ok": True, **_summary(outlined), **export(whole)})


@comparisons.get("/labs/<name>/comparisons/<comparison>.csv")
def as_csv(name: str, comparison: str) -> Response:
    _, whole = labs_of_server().comparison(name, comparison)
    return _file(Response(to_csv(whole), mimetype="text/csv"), comparison, "csv")


@comparisons.get("/labs/<name>/comparisons/<comparison>.json")
def as_json(name: str, comparison: str) -> Response:
    _, whole = labs_of_server().comparison(name, comparison)
    return _file(Response(to_json(whole), mimetype="application/json"), comparison, "json")


def _file(response: Response, comparison: str, suffix: str) -> Response:
    response.headers["Content-Disposition"] = f'attachment; filename="ringside-compare-{comparison}.{suffix}"'
    return response


@comparisons.delete("/labs/<name>/comparisons/<comparison>")
def drop(name: str, comparison: str) -> Response:
    labs_of_server().drop_comparison(name, comparison)
    return json_response({"ok": True})


@comparisons.post("/labs/<name>/lock-step")
def lock_step(name: str) -> Response:
    """engine.compare.Difference; bytes as base64."""
    asked = _body(AskedTogether)
    work, count = workload(asked.workload)
    left, right = (Configuration.parse(side) for side in (asked.left, asked.right))
    found = labs_of_server().lock_step(name, Together(left, right, work, count, asked.skip, costs(asked.costs)))
    return json_response({"ok": True, **msgspec.to_builtins(found)})
