"""`ringside compare`: one workload under several ways to virtualize, as a table in the terminal, as CSV and as JSON.

    ringside compare --workload syscall,pagefault --configs trap-and-emulate,hardware-assist

Figures are for one unit of the workload, so that counts do not matter; CSV and JSON have those of the whole work. A
ratio is to the configuration with most exits.
The link it ends with shows the same comparison on the page.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import get_args

import msgspec

from engine.commands import LabError, ProfileId
from engine.compare import WORKLOADS, Measure, Row, configurations, measure
from engine.hypervisor.costs import DEFAULT_COSTS
from engine.hypervisor.stacks import DEFAULT_STACK, SWITCHES
from engine.machine.native import objects
from engine.terminal import check_writable, file_name
from engine.trace.record import cause_name
from webapp.comparisons import USUAL, Comparison, columns, to_csv, to_json

#: So many configurations stand as columns under their own names; more have letters.
NAMED_COLUMNS = 4
#: Sorts of exit that the table names, of each workload; the rest is one line.
NAMED_EXITS = 8

_COLUMNS: tuple[tuple[str, Callable[[Measure, Measure], str]], ...] = (
    ("exits", lambda one, _: _number(one.work.exits / one.task.count)),
    ("ratio", lambda one, base: _ratio(one.work.exits, base.work.exits)),
    ("modelled cycles", lambda one, _: _number(one.work.cycles / one.task.count)),
    ("ratio", lambda one, base: _ratio(one.work.cycles, base.work.cycles)),
    ("switches", lambda one, _: _number(one.switches / one.task.count)),
    ("instructions", lambda one, _: _number(one.work.instructions / one.task.count)),
    ("TLB misses", lambda one, _: _number(one.tlb_misses / one.task.count)),
    ("references", lambda one, _: _number(one.walk_references / one.task.count)),
    ("wall µs", lambda one, _: _number(one.wall_s / one.task.count * 1e6)),
    ("overhead KiB", lambda one, _: f"{one.overhead_pages * 4:,}"),
    ("start µs", lambda one, _: f"{one.start.virtual_ns / 1000:,.0f}"),
)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compare` to the program's commands."""
    compare = commands.add_parser(
        "compare",
        help="measure a workload under several ways to virtualize",
        description="Run workloads of ringos under several configurations, each in a fresh machine, and compare.\n"
        "Exits, instructions and output come from execution, modelled cycles from a cited table; they are never added.",
        epilog="workloads: " + ", ".join(WORKLOADS) + " (NAME:COUNT says how often)\n"
        "configurations: " + ", ".join(map(str, configurations())) + "\n"
        "  (STACK/TECHNIQUE, a STACK with its own technique, or a TECHNIQUE on " + DEFAULT_STACK + "; +SWITCH for each\n"
        "  switch)\n"
        "switches: " + ", ".join(SWITCHES) + "\n\n"
        "examples:\n  ringside compare --configs trap-and-emulate,hardware-assist,bare-metal\n"
        "  ringside compare --workload pagefault:5000 --csv pagefault.csv\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "--workload",
        metavar="W,W",
        default=",".join(USUAL.workloads),
        help="which workloads (default: %(default)s)",
    )
    compare.add_argument(
        "--configs",
        metavar="C,C",
        default=",".join(USUAL.configurations),
        help="which configurations (default: %(default)s)",
    )
    compare.add_argument(
        "--costs",
        metavar="PROFILE",
        default="",
        help=f"what switches cost in cycles: {', '.join(get_args(ProfileId))}, with +CROSSING:CYCLES for each figure of "
        f"your own (default: {DEFAULT_COSTS.profile})",
    )
    compare.add_argument(
        "--csv", type=file_name, metavar="FILE", help="write the figures to FILE as well; - is standard output, alone"
    )
    compare.add_argument(
        "--json", type=file_name, metavar="FILE", help="write everything known to FILE as well; - as for --csv"
    )
    compare.set_defaults(func=_compare)


def _compare(options: argparse.Namespace) -> int:
    objects.keep_in(objects.folder_in(os.environ))
    if options.csv == options.json == "-":
        return _failed("only one of --csv and --json can be standard output")
    try:
        for path in (options.csv, options.json):
            if path not in (None, "-"):
                check_writable(path)
        comparison = Comparison.of(_list(options.workload), _list(options.configs), options.costs)
        tasks = comparison.tasks()
    except LabError as error:
        return _failed(error.problem.message)
    except OSError as error:
        return _failed(f"{path}: {error.strerror}")
    measures: list[Measure | None] = []
    for number, task in enumerate(tasks):
        _say_progress(f"{number} of {len(tasks)}: {task.workload}, {task.configuration}")
        try:
            measures.append(measure(task, lambda _: True, time.perf_counter))
        except KeyboardInterrupt:
            _say_progress("")
            return 130
    _say_progress("")
    done = msgspec.structs.replace(comparison, measures=measures)
    quiet = False
    for path, form in ((options.csv, to_csv), (options.json, to_json)):
        if path == "-":
            sys.stdout.write(form(done))
            quiet = True
        elif path is not None:
            try:
                Path(path).write_text(form(done), encoding="utf-8")
            except OSError as error:
                return _failed(f"{path}: {error.strerror}")
    if not quiet:
        sys.stdout.writelines(_report(done))
    return 1 if any(one is not None and one.problem is not None for one in measures) else 0


def _failed(message: str) -> int:
    print(f"ringside: {message}", file=sys.stderr)
    return 1


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _say_progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _report(comparison: Comparison) -> Iterator[str]:
    done = [one for one in comparison.measures if one is not None]
    for name, count in dict.fromkeys((one.task.workload, one.task.count) for one in done):
        rows = [one for one in done if (one.task.workload, one.task.count) == (name, count)]
        yield f"{name}, {count:,} times; for one of them:\n\n"
        yield _indented(_table([one for one in rows if one.problem is None]))
        for one in rows:
            if one.problem is not None:
                yield f"  {one.task.configuration}: {one.problem.message}\n"
        yield "\n"
    yield f"On the page: /compare?{comparison.query()}\n"


def _table(rows: Sequence[Measure]) -> str:
    if not rows:
        return ""
    base = max(rows, key=lambda one: one.work.exits)
    letters = _letters(len(rows))
    body = [
        [f"{letter} {one.task.configuration}".strip(), *(of(one, base) for _, of in _COLUMNS)]
        for letter, one in zip(letters, rows, strict=True)
    ]
    text = columns([["", *(name for name, _ in _COLUMNS)], *body])
    outputs = {one.output for one in rows}
    same = "all printed the same" if len(outputs) == 1 else "THEY DID NOT PRINT THE SAME"
    return f"{text}{same}: {rows[0].said}\n\n{_exits(rows)}"


def _exits(rows: Sequence[Measure]) -> str:
    """Exits by cause, a column for each configuration."""
    sorts: dict[str, list[int]] = {}
    for place, one in enumerate(rows):
        for row in one.work.rows:
            if row.exit:
                sorts.setdefault(_sort(row), [0] * len(rows))[place] += row.count
    if not sorts:
        return "No exits.\n"
    ordered = sorted(sorts.items(), key=lambda item: -sum(item[1]))
    named, rest = ordered[:NAMED_EXITS], ordered[NAMED_EXITS:]
    if rest:
        together = [sum(column) for column in zip(*(counts for _, counts in rest), strict=True)]
        named.append((f"{len(rest)} other sorts", together))
    names = zip(_letters(len(rows)), rows, strict=True)
    heads = ["exits", *(letter or str(one.task.configuration) for letter, one in names)]
    body = [[sort, *_cells(counts, rows)] for sort, counts in named]
    return columns([heads, *body])


def _letters(count: int) -> list[str]:
    """What stands for each configuration where the names of all would be too wide."""
    if count <= NAMED_COLUMNS:
        return [""] * count
    width = 1 if count <= len(ascii_lowercase) else 2
    return ["".join(letters) for letters in islice(product(ascii_lowercase, repeat=width), count)]


def _cells(counts: Iterable[int], rows: Sequence[Measure]) -> Iterator[str]:
    return (_number(count / one.task.count) if count else "-" for count, one in zip(counts, rows, strict=True))


def _sort(row: Row) -> str:
    return f"{row.kind.replace('_', ' ')}: {cause_name(row.cause)}, {row.disposition}"


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" if line else "\n" for line in text.splitlines())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3g}x" if base else "-"
