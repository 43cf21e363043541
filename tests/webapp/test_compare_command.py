"""`ringside compare`: the table, the files, and what it says to wrong names."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from webapp.cli import main
from webapp.comparisons import FIGURES

CONFIGS = "bare-metal,trap-and-emulate,hardware-assist"


def test_it_prints_a_table_and_the_way_to_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--workload", "syscall:50", "--configs", CONFIGS]) == 0
    said, complained = capsys.readouterr()
    assert complained == ""
    table = {line.split()[0]: line.split() for line in said.splitlines() if "/" in line[:30] or "bare-metal  " in line[:16]}
    head, *_ = said.splitlines()
    assert head == "syscall, 50 times; for one of them:"
    rows = {name.rpartition("/")[2]: cells for name, cells in table.items()}
    assert rows["trap-and-emulate"][1:3] == ["7", "1x"]
    assert rows["hardware-assist"][1:3] == ["0", "0x"]
    assert "all printed the same: work syscall 50: 50 system calls" in said
    assert "syscall: environment call from U-mode, injected" in said
    assert "/compare?workload=syscall:50&configs=bare-metal,kvm/trap-and-emulate,kvm/hardware-assist\n" in said


def test_many_configurations_have_letters_for_columns(capsys: pytest.CaptureFixture[str]) -> None:
    configs = "bare-metal,xen,kvm,vmware,parallels"
    assert main(["compare", "--workload", "io:5", "--configs", configs]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line[2] for line in said if re.match("  [a-z] ", line)] == list("abcde")
    (heads,) = (line.split() for line in said if line.startswith("  exits"))
    assert heads == ["exits", *"abcde"]


def test_csv_and_json_have_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.csv"
    asked = ["compare", "--workload", "io:30", "--configs", CONFIGS, "--csv", str(target), "--json", "-"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert len(rows) == len(found["runs"]) == 3
    for row, run in zip(rows, found["runs"], strict=True):
        assert (row["workload"], int(row["count"]), row["configuration"]) == (
            run["workload"], run["count"], run["configuration"],
        )  # fmt: skip
        assert {figure.name: float(row[figure.name]) for figure in FIGURES} == run["figures"]
        assert row["output_sha256"] == run["output_sha256"]
        assert sum(part["count"] for part in run["exits"] if part["exit"]) == run["figures"]["exits"]
        assert sum(part["cycles"] for part in run["exits"]) == run["figures"]["modelled_cycles"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workload", "sycall"], "There is no workload sycall. There are: compute, syscall,"),
        (["--configs", "xenn"], "xenn"),
        (["--workload", "io:0"], "io:0 does not say how often"),
        (["--configs", ""], "this one has 0"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.startswith("ringside: ")
    assert says in said


def test_a_file_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["compare", "--workload", "syscall:1", "--configs", "bare-metal", "--csv", "/no-such-folder/x.csv"]
    assert main(asked) == 1
    assert "/no-such-folder/x.csv: No such file or directory" in capsys.readouterr().err
