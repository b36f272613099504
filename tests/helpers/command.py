"""The command line as a user gives it, without a process of its own."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from covsim.cli import app


def covsim(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; what is no exit is a traceback, and an error here."""
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def covsim_run(*arguments: str) -> Path:
    """A run of `mine.yaml` in the working folder that goes well, and its folder."""
    code, out, err = covsim("run", "mine.yaml", "--quiet", *arguments)
    assert code == 0, err
    return Path(out.strip())
