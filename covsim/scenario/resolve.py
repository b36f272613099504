"""A scenario as text that loads back to the same value, and the identity of the run that it makes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import covsim
from covsim.scenario.installed import installed_code
from covsim.scenario.loading import loads
from covsim.scenario.schema import Scenario
from covsim.sources import BY_CONTENT

ID_LENGTH = 12  # hex digits of a run id
LINE_LENGTH = 120
_SOURCES = ("*.py", "data/*")


def resolved_text(scenario: Scenario) -> str:
    """The scenario as YAML with every default spelled out and every quantity in its unit."""
    return yaml_text(scenario.model_dump(mode="json", exclude_none=True))


def yaml_text(value: Mapping[str, Any]) -> str:
    """A mapping as scenario files have it."""
    yaml = YAML(pure=True)
    yaml.width = LINE_LENGTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def with_files_as_they_are(scenario: Scenario) -> Scenario:
    """The same scenario, with what its files hold now; one that was loaded earlier may hold what they held then.

    Raises ScenarioError or SourceError if a file is gone or no longer fits.
    """
    by_name, by_content = (scenario.model_dump(mode="json", context=context) for context in (None, BY_CONTENT))
    return scenario if by_name == by_content else loads(resolved_text(scenario))


def run_id(scenario: Scenario) -> str:
    """Hex digits that differ when the scenario, the code, the bundled data or torch's version does.

    Of the files that a scenario brings, the content counts and not the place; of installed packages whose parts it
    uses, version and content. Raises SourceError if a file is gone.
    """
    settings = json.dumps(scenario.model_dump(mode="json", context=BY_CONTENT), sort_keys=True)
    parts = (settings, code_version(), metadata.version("torch"), *installed_code(scenario))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:ID_LENGTH]


def code_version() -> str:
    """Hash over the package's sources and its bundled data, by path and content."""
    root = Path(covsim.__file__).parent
    running = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in root.rglob(pattern) if path.is_file()):
        if "__pycache__" not in path.parts:
            running.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return running.hexdigest()
