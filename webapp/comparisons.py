"""A comparison that was carried out, in the forms in which it leaves the program: rows, CSV, JSON, and the link that
asks for it again.

Invariant: each figure has one definition, a row of `FIGURES`; table, CSV and JSON show the same numbers. Modelled
cycles and executed instructions are columns of their own and never added. Wall time and what missed the TLB are the
figures that another run need not repeat.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from engine.compare import Measure, Task, configurations, costs, plan
from engine.hypervisor.costs import COSTS
from engine.hypervisor.stacks import BARE_METAL, DEFAULT_STACK, Configuration
from engine.machine.memory import PAGE

FORMAT = 1


class Comparison(Struct, frozen=True):
    """What was asked for, as the texts of engine.compare, and what came of it, in the order of `plan`. A Measure is
    None until its run is over. Configurations are written out: `stack/technique+switch`, each once."""

    workloads: list[str]
    configurations: list[str]
    costs: str = ""
    measures: list[Measure | None] = []

    @classmethod
    def of(cls, workloads: list[str], ways: list[str], table: str = "") -> Self:
        """One that somebody asks for, who may leave out of a configuration's text what is usual. Raises LabError."""
        return cls(workloads, list(dict.fromkeys(str(Configuration.parse(way)) for way in ways)), table)

    def tasks(self) -> list[Task]:
        """Raises LabError when it cannot be carried out."""
        return plan(self.workloads, self.configurations, self.costs)

    def query(self) -> str:
        """The part of a link that asks for the same comparison."""
        asked = {"workload": ",".join(self.workloads), "configs": ",".join(self.configurations)}
        return urlencode({**asked, **({"costs": self.costs} if self.costs else {})}, safe=",/+:")


#: What is compared unless somebody chooses.
USUAL = Comparison(
    ["syscall", "pagefault", "switch", "io", "disk"],
    [str(way) for way in configurations() if way.stack in (BARE_METAL, DEFAULT_STACK)],
)


@dataclass(frozen=True)
class Figure:
    """One column. `of` a Measure; `per_unit`: shown for one unit of the workload; `detail`: in files only."""

    name: str
    of: Callable[[Measure], float]
    per_unit: bool
    repeats: bool = True
    detail: bool = False


FIGURES = (
    Figure("exits", lambda measure: measure.work.exits, True),
    Figure("traps", lambda measure: measure.work.traps, True),
    Figure("instructions", lambda measure: measure.work.instructions, True),
    Figure("modelled_cycles", lambda measure: measure.work.cycles, True),
    Figure("switches", lambda measure: measure.switches, True),
    Figure("tlb_misses", lambda measure: measure.tlb_misses, True, repeats=False),
    Figure("walk_references", lambda measure: measure.walk_references, True, repeats=False),
    Figure("virtual_ns", lambda measure: measure.work.virtual_ns, True),
    Figure("wall_s", lambda measure: measure.wall_s, True, repeats=False),
    Figure("guest_bytes", lambda measure: measure.guest_pages * PAGE, False, detail=True),
    Figure("overhead_bytes", lambda measure: measure.overhead_pages * PAGE, False),
    Figure("start_ns", lambda measure: measure.start.virtual_ns, False),
    Figure("start_instructions", lambda measure: measure.start.instructions, False, detail=True),
    Figure("start_exits", lambda measure: measure.start.exits, False, detail=True),
)


def figures(measure: Measure) -> dict[str, float]:
    """Every figure of a measure that has some, by name: of the whole work, not of one unit."""
    return {figure.name: figure.of(measure) for figure in FIGURES}


def export(comparison: Comparison) -> dict[str, Any]:
    """Everything that is known, as plain data, with the table of costs and its sources."""
    table = costs(comparison.costs)
    return {
        "format": FORMAT,
        "workloads": comparison.workloads,
        "configurations": comparison.configurations,
        "costs": {
            "profile": table.profile,
            "overrides": table.overrides,
            "rows": [{**msgspec.to_builtins(row), "stacks": row.stacks} for row in COSTS if row.profile == table.profile],
        },
        "runs": [_run(measure) for measure in comparison.measures if measure is not None],
    }


def _run(measure: Measure) -> dict[str, Any]:
    task = measure.task
    run = {"workload": task.workload, "count": task.count, "configuration": str(task.configuration)}
    if measure.problem is not None:
        return {**run, "problem": msgspec.to_builtins(measure.problem)}
    return {
        **run,
        "figures": figures(measure),
        "exits": [{**msgspec.to_builtins(row), "exit": row.exit} for row in measure.work.rows],
        "switches": msgspec.to_builtins(measure.crossings),
        "start": [{**msgspec.to_builtins(row), "exit": row.exit} for row in measure.start.rows],
        "said": measure.said,
        "output_sha256": measure.output,
    }


def to_json(comparison: Comparison) -> str:
    return msgspec.json.format(msgspec.json.encode(export(comparison)), indent=2).decode() + "\n"


def to_csv(comparison: Comparison) -> str:
    """One line for each run, figures of the whole work; a run without figures has its problem."""
    names = [figure.name for figure in FIGURES]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["workload", "count", "configuration", *names, "output_sha256", "problem"])
    for measure in comparison.measures:
        if measure is None:
            continue
        task, problem = measure.task, measure.problem
        values = figures(measure) if problem is None else {}
        cells = [values.get(name, "") for name in names]
        says = "" if problem is None else problem.message
        writer.writerow([task.workload, task.count, str(task.configuration), *cells, measure.output, says])
    return text.getvalue()


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip() + "\n"
        for row in rows
    )  # fmt: skip
