"""YAML to the typed tree, with errors that name the field, the value and the remedy."""

import difflib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from das_lib.config.tree import Config
from das_lib.errors import DasError


def load_config(path: str | Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read the YAML file at ``path``; ``overrides`` are ``dotted.key=value``, value in YAML.

    Raises:
        DasError: the file is missing or no YAML, a key is unknown or a value out of range.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DasError(
            f"configuration {path} cannot be read ({error.strerror}); "
            "give the path of a YAML file, for example configs/demo.yaml"
        ) from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DasError(f"configuration {path} is no valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise DasError(f"configuration {path} holds no mapping of keys to values")
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree, source=str(path))


def parse_config(tree: dict[str, Any], source: str = "configuration") -> Config:
    """The typed tree of a mapping, as `load_config` reads it; ``source`` names it in errors.

    Raises:
        DasError: a key is unknown or a value out of range; every fault is named at once.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        errors = error.errors()
        # A list with a faulty item is also reported as too short: say only the cause.
        inner = {e["loc"][:-n] for e in errors for n in range(1, len(e["loc"]))}
        faults = [
            _explain(e) for e in errors if not (e["type"] == "too_short" and e["loc"] in inner)
        ]
        raise DasError(f"{source}:\n" + "\n".join(f"  {fault}" for fault in faults)) from None


def to_yaml(config: Config) -> str:
    """The resolved tree, defaults included, as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """JSON Schema of a configuration file, for editors."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


def _apply(tree: dict[str, Any], override: str) -> None:
    key, found, value = override.partition("=")
    if not found:
        raise DasError(f"--set {override!r} has no '='; write --set dotted.key=value")
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict):
            raise DasError(f"--set {key}: {parent} is no section; lists are edited in the file")
    node[last] = yaml.safe_load(value)


def _explain(fault: ErrorDetails) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "configuration"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(fault["loc"][:-1])
        close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        return f"{where}: unknown key{hint} known here: {', '.join(known)}"
    if fault["type"] == "missing":
        return f"{where}: required, but missing"
    message = fault["msg"].removeprefix("Value error, ")
    value = fault["input"]
    shown = "" if isinstance(value, dict | list) else f"{value!r}: "
    return f"{where}: {shown}{message}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Keys of the section at ``path``, found by walking the model's annotations."""
    section: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str) and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_in(inner)
        if found:
            return found
    return None
