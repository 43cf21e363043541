"""The printing of figures; the figures themselves are never tested."""

from __future__ import annotations

import pytest

from tests.bench import Figure
from tests.bench.__main__ import main, table


@pytest.mark.parametrize(
    ("value", "shown"), [(1234567.0, "1,230,000"), (123.4, "123"), (12.345, "12.3"), (0.00123, "0.00123")]
)
def test_a_value_has_three_significant_digits(value: float, shown: str) -> None:
    assert Figure("name", value, "unit", "method").shown() == shown


def test_figures_stand_in_columns() -> None:
    lines = table([Figure("boot", 1500.0, "ms", "once"), Figure("a tick", 2.5, "KiB", "mean")]).splitlines()
    assert lines == ["boot    1,500 ms   once", "a tick    2.5 KiB  mean"]


def test_figures_that_nobody_wrote_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
