"""Settings: what was given wins over the environment, which wins over the default; nonsense is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from webapp.config import Config, ConfigError


def test_defaults() -> None:
    config = Config.from_environment({"XDG_DATA_HOME": "/somewhere"})
    assert (config.host, config.port, config.data) == ("127.0.0.1", 8000, Path("/somewhere/ringside"))
    assert config.workers >= 1
    assert config.lab_limits() == {}


def test_the_environment_and_what_was_given() -> None:
    environ = {
        "HOST": "0.0.0.0", "PORT": "9000", "RINGSIDE_DATA": "/data", "RINGSIDE_WORKERS": "3",
        "RINGSIDE_ALLOWED_HOSTS": "Lab.Example, other", "RINGSIDE_LAB_GUESTS": "5",
    }  # fmt: skip
    config = Config.from_environment(environ, port=9001, host=None)
    assert (config.host, config.port, config.data, config.workers) == ("0.0.0.0", 9001, Path("/data"), 3)
    assert config.allowed_hosts == ("lab.example", "other")
    assert config.lab_limits() == {"guests": 5}


@pytest.mark.parametrize(("variable", "value"), [("PORT", "x"), ("PORT", "65536"), ("RINGSIDE_WORKERS", "0")])
def test_nonsense_in_the_environment_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable} is '{value}'.*whole number from"):
        Config.from_environment({variable: value})


def test_nonsense_on_the_command_line_is_named() -> None:
    with pytest.raises(ConfigError, match="PORT is '70000'"):
        Config.from_environment({}, port=70000).check()
