"""Every setting and limit of a server in one place, with its default and the environment variable that
changes it.

Invariant: nothing else in webapp/ reads the environment. Limits exist for class use: one process serves
everybody, and none may take the others' share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

FORM_BYTES = 64 << 10  # of a multipart form beside the files in it


class ConfigError(ValueError):
    """A setting cannot be used; the message is for the person who set it."""


def data_folder(environ: Mapping[str, str]) -> Path:
    """Where labs and images are kept: RINGSIDE_DATA, else the place that the XDG base directory specification
    has for a user's data."""
    if environ.get("RINGSIDE_DATA"):
        return Path(environ["RINGSIDE_DATA"])
    base = environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "ringside"


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one server. Fields with a variable are read by `from_environment`."""

    data: Path
    host: str = field(default="127.0.0.1", metadata={"variable": "HOST"})
    port: int = field(default=8000, metadata={"variable": "PORT", "least": 0, "most": 65535})
    workers: int = field(
        default_factory=lambda: os.cpu_count() or 1,
        metadata={"variable": "RINGSIDE_WORKERS", "least": 1, "most": 256},
    )
    max_labs: int = field(
        default=200, metadata={"variable": "RINGSIDE_MAX_LABS", "least": 1, "most": 100_000}
    )
    max_clients: int = field(
        default=1000, metadata={"variable": "RINGSIDE_MAX_CLIENTS", "least": 1, "most": 100_000}
    )
    #: a lab that nobody has looked at for so long is saved and stands still until somebody comes back
    unwatched_seconds: int = field(
        default=600, metadata={"variable": "RINGSIDE_UNWATCHED_SECONDS", "least": 1, "most": 10_000_000}
    )
    commands_per_second: int = field(
        default=30, metadata={"variable": "RINGSIDE_COMMANDS_PER_SECOND", "least": 1, "most": 100_000}
    )
    queries_per_second: int = field(
        default=100, metadata={"variable": "RINGSIDE_QUERIES_PER_SECOND", "least": 1, "most": 100_000}
    )
    #: address on which guests get ports for gdb when somebody asks for one; "off": they do not
    gdb: str = field(default="127.0.0.1", metadata={"variable": "RINGSIDE_GDB"})
    #: what one lab may hold; None: engine.lab.Limits' own figure
    lab_hosts: int | None = field(
        default=None, metadata={"variable": "RINGSIDE_LAB_HOSTS", "least": 1, "most": 1000}
    )
    lab_guests: int | None = field(
        default=None, metadata={"variable": "RINGSIDE_LAB_GUESTS", "least": 1, "most": 10_000}
    )
    lab_memory_mib: int | None = field(
        default=None, metadata={"variable": "RINGSIDE_LAB_MEMORY_MIB", "least": 16, "most": 1 << 20}
    )
    #: host names, beside this machine's own and any address, under which pages may be asked for; "*" is all
    allowed_hosts: tuple[str, ...] = field(default=(), metadata={"variable": "RINGSIDE_ALLOWED_HOSTS"})
    max_upload_bytes: int = 8 << 20
    max_image_bytes: int = 256 << 20  # of a kernel and its initial RAM disk, for the library
    max_message_bytes: int = 512 << 10

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], **given: Any) -> Config:
        """The settings: what was given (None: not given), else the environment's, else the default. Raises
        ConfigError.
        """
        values: dict[str, Any] = {}
        for setting in fields(cls):
            variable: str = setting.metadata.get("variable", "")
            text = environ.get(variable, "")
            if not text:
                continue
            if variable == "RINGSIDE_ALLOWED_HOSTS":
                values[setting.name] = tuple(name.strip().lower() for name in text.split(",") if name.strip())
            elif "least" in setting.metadata:
                values[setting.name] = _number(
                    variable, text, setting.metadata["least"], setting.metadata["most"]
                )
            else:
                values[setting.name] = text
        values["data"] = data_folder(environ)
        return replace(cls(**values), **{name: value for name, value in given.items() if value is not None})

    def check(self) -> None:
        """Raises ConfigError when a number, wherever it was given, is out of its bounds."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if "least" in setting.metadata and value is not None:
                _number(
                    setting.metadata["variable"],
                    str(value),
                    setting.metadata["least"],
                    setting.metadata["most"],
                )

    def lab_limits(self) -> dict[str, int]:
        """The fields of engine.lab.Limits that are set here."""
        limits = {"hosts": self.lab_hosts, "guests": self.lab_guests, "memory_mib": self.lab_memory_mib}
        return {name: value for name, value in limits.items() if value is not None}


def _number(variable: str, text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise ConfigError(f"{variable} is {text!r}; it must be a whole number from {least} to {most}.")
    return value
