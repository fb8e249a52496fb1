"""YAML files that a schema checks, and one clear sentence for whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rsovlib.errors import InputError

_SHOWN = 80
"""At most so many characters of a wrong value are repeated in an error."""

# libyaml's parser is ten times as fast where PyYAML has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file in which no key stands twice.

    Raises:
        InputError: the file is missing, can't be read, is not text in UTF-8 or not YAML, or has a key twice.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            _refuse_double_keys(node, set())
            return loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except FileNotFoundError as error:
        raise InputError(
            f"There is no file {path}; give the name of one that comes with rsovlib, or a path."
        ) from error
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it can't be parsed"
        raise InputError(f"{path}{where}: not valid YAML ({problem}); correct that line.") from error


def sentence(path: Path, error: ValidationError) -> str:
    """What a schema finds wrong with a file, as one sentence: the file, the key, the first problem, how many more."""
    problems = error.errors(include_url=False)
    first = problems[0]
    loc = first["loc"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "an item is missing" if isinstance(loc[-1], int) else f"the key {loc[-1]!r} is missing"
        loc = loc[:-1]
    elif first["type"] != "value_error":
        message = f"{message[:1].lower()}{message[1:]}, not {_short(first['input'])}"
        if first["type"] == "string_type" and isinstance(first["input"], int | float):
            message += "; write it in quotes"  # 2_10 and 2014 are numbers to YAML
    key = _dotted(loc)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    end = "" if message.endswith("?") and not more else "."
    return f"{path}: {f'{key}: ' if key else ''}{message.rstrip('.')}{more}{end}"


def _refuse_double_keys(node: yaml.Node | None, known: set[int]) -> None:
    """Raise yaml.MarkedYAMLError if a block has a key twice; YAML by itself silently takes the last one."""
    if node is None or id(node) in known:  # an anchored node is reached several times
        return
    known.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_double_keys(item, known)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                keys.add(key.value)
            _refuse_double_keys(value, known)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _dotted(loc: tuple[int | str, ...]) -> str:
    """``("classes", 2, "colour")`` as ``classes[2].colour``."""
    text = ""
    for part in loc:
        if part == "[key]":  # pydantic's mark for a mapping's key that is wrong itself
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
