"""What a notebook asks for: the names, types and defaults of its ``parameters`` cell, and values checked against them.

papermill hands over whatever it is given: an unknown name is a warning, and a wrong type is found by the cell that
stumbles over it, perhaps after an hour. Here both are errors before anything runs, with the nearest right name.
The cell is read, not executed.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Union

from rsovlib.errors import InputError, unknown_name

PARAMETERS_TAG = "parameters"

# What an annotation may be made of.
_TYPES: dict[str, Any] = {
    "Any": Any,
    "Literal": Literal,
    "Optional": Optional,
    "Union": Union,
    "bool": bool,
    "dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "str": str,
    "tuple": tuple,
}


@dataclass(frozen=True)
class Parameter:
    """One name of a ``parameters`` cell.

    Attributes:
        name: of the variable.
        kind: its type as it stands in the cell; that of the default where none stands there.
        default: the value that the cell gives it.
        help: the comment behind it.
    """

    name: str
    kind: str
    default: Any
    help: str = ""

    def checked(self, value: Any) -> Any:
        """The value, as this parameter takes it: an int becomes a float where a float is wanted, nothing else changes.

        Raises:
            InputError: it is of another type.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(_type_of(self.kind)).validate_python(value, strict=True)
        except ValidationError as error:
            raise InputError(
                f"The parameter {self.name!r} must be of type {self.kind}, not {value!r} ({type(value).__name__})."
            ) from error

    def from_text(self, text: str) -> Any:
        """The value that a text on the command line stands for.

        For a parameter that takes text it is the text itself, quotes and all; otherwise a Python literal.

        Raises:
            InputError: no literal of the right type.
        """
        if self.kind == "str":
            return text
        try:
            value: Any = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            # `true` and `none` are what people write who come from YAML; any other word is a text.
            value = {"true": True, "false": False, "none": None, "null": None}.get(text.strip().lower(), text)
        if isinstance(value, tuple) and not self.kind.startswith("tuple"):
            value = list(value)  # 4,3,2
        return self.checked(value)


def declared_parameters(notebook: Mapping[str, Any], name: str) -> dict[str, Parameter]:
    """The parameters of a notebook, in their order.

    Args:
        notebook: its content, as ``nbformat.read`` gives it.
        name: what to call it in errors.

    Raises:
        InputError: no cell, or several, are tagged ``parameters``; or the cell holds something else than assignments
            of plain values.
    """
    cells = [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and PARAMETERS_TAG in cell.get("metadata", {}).get("tags", ())
    ]
    if len(cells) != 1:
        raise InputError(f"{name} has {len(cells)} cells tagged {PARAMETERS_TAG!r}; it must have one.")
    source = cells[0]["source"]
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(f"{name}: the parameters cell is not Python (line {error.lineno}).") from error
    lines = source.splitlines()
    found: dict[str, Parameter] = {}
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        parameter = _parameter(statement, lines)
        if parameter is None:
            raise InputError(
                f"{name}: line {statement.lineno} of the parameters cell is not NAME: TYPE = VALUE with a plain value."
            )
        found[parameter.name] = parameter
    return found


def checked_parameters(
    declared: Mapping[str, Parameter], values: Mapping[str, Any], notebook: str = "the notebook"
) -> dict[str, Any]:
    """Values for a notebook, each of the declared type.

    Args:
        declared: what it asks for.
        values: what it shall get.
        notebook: its name, for errors.

    Raises:
        InputError: an unknown name (the nearest right one is named) or a wrong type.
    """
    for name in values:
        if name not in declared:
            raise unknown_name(f"parameter of {notebook}", name, declared)
    try:
        return {name: declared[name].checked(value) for name, value in values.items()}
    except InputError as error:
        raise InputError(f"{notebook}: {error}") from error


def split_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """``["beta=0.3", "name=value"]`` as names and texts.

    Raises:
        InputError: one of them has no ``=``, or a name stands twice.
    """
    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or not all(part.isidentifier() for part in name.replace("-", "_").split(".")):
            raise InputError(f"-p {assignment}: write NAME=VALUE, or TABLE.NAME=VALUE for one table only.")
        if name in found:
            raise InputError(f"-p {name} was given twice; give it once.")
        found[name] = text
    return found


def read_parameters(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Parameters from a YAML file: names and values, or names of tables with names and values below them.

    Raises:
        InputError: no such file, or not YAML of that form.
    """
    from rsovlib.data.yamlfile import read_yaml

    content = read_yaml(Path(path))
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path}: a parameters file holds lines NAME: VALUE.")
    return content


def _parameter(statement: ast.stmt, lines: list[str]) -> Parameter | None:
    """The parameter that an assignment declares; None if it isn't ``NAME: TYPE = VALUE`` or ``NAME = VALUE``."""
    if not isinstance(statement, ast.AnnAssign | ast.Assign):
        return None
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    annotation = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else ""
    target, value = targets[0], statement.value
    if len(targets) != 1 or not isinstance(target, ast.Name) or value is None:
        return None
    try:
        default = ast.literal_eval(value)
    except ValueError:
        return None
    kind = annotation or ("Any" if default is None else type(default).__name__)
    try:
        _type_of(kind)
    except InputError:
        return None
    line, end = lines[(statement.end_lineno or 1) - 1], statement.end_col_offset or 0
    # ast counts bytes.
    behind = line.encode()[end:].decode().strip()
    return Parameter(target.id, kind, default, behind.removeprefix("#").strip() if behind.startswith("#") else "")


def _type_of(kind: str) -> Any:
    """The type that an annotation means; only names of :data:`_TYPES` are known to it, and nothing is called."""
    tree = ast.parse(kind, mode="eval")
    allowed = (ast.Expression, ast.Name, ast.Constant, ast.Subscript, ast.Tuple, ast.BinOp, ast.BitOr, ast.Load)
    if not all(isinstance(node, (*allowed, ast.UnaryOp, ast.USub)) for node in ast.walk(tree)):
        raise InputError(f"{kind!r} is no type that a parameter may have.")
    try:
        return eval(compile(tree, kind, "eval"), {"__builtins__": {}}, _TYPES)
    except (NameError, TypeError) as error:
        raise InputError(f"{kind!r} is no type that a parameter may have; use {', '.join(sorted(_TYPES))}.") from error
