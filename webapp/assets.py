"""Where the page's files are, in a checkout and in an installed wheel.

In a checkout `static/` and `templates/` lie at the top, beside `webapp/`; the wheel carries them inside the
package (pyproject.toml, `sources`). Invariant: nothing else in the code names either place.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def static_folder() -> Path:
    """The folder served under `/static/`. Raises FileNotFoundError when the installation is incomplete."""
    return _locate("static")


def templates_folder() -> Path:
    """The folder of the Jinja2 templates. Raises FileNotFoundError when the installation is incomplete."""
    return _locate("templates")


def _locate(name: str) -> Path:
    installed, checkout = _PACKAGE / name, _PACKAGE.parent / name
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"The page's {name} files are missing: looked in {installed} and {checkout}. Install Ringside again."
    )
