"""From tables to a matrix of runs, each with its name, before anything runs.

A run's name is a hash of everything that its results depend on: the notebook's sources, the parameters, the code, the
data, the weights, and the runs that it builds upon. So a run that is there already needn't be done again, and one whose
ingredients changed has another name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsovlib.errors import InputError, RsovError, unknown_name
from rsovlib.experiments.identity import code_version, data_version, digest, notebook_digest, weights_version
from rsovlib.experiments.parameters import Parameter, checked_parameters, declared_parameters
from rsovlib.experiments.tables import PROFILES, SEED, TableEntry

KEY_LENGTH = 16
"""Hexadecimal digits of the hash that a folder is named by; the whole hash stands in the run's record."""


@dataclass(frozen=True)
class Unit:
    """One notebook with one set of parameters.

    Attributes:
        table: its table's name.
        paper: the table's paper.
        profile: which profile.
        notebook_name: for people.
        notebook: the notebook itself as JSON text, so that a worker on another machine runs the same.
        parameters: all that it is given, checked.
        point: those of them that tell the runs of a table apart.
        identity: what its results depend on; ``key`` is the hash of it.
        key: hexadecimal SHA-256.
        needs: keys of the runs that come before.
        inputs: parameter -> key of the run whose folder it gets.
        missing: why it can't be run, one sentence; "" if it can.
    """

    table: str
    paper: str
    profile: str
    notebook_name: str
    notebook: str
    parameters: Mapping[str, Any]
    point: Mapping[str, Any]
    identity: Mapping[str, Any]
    key: str
    needs: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.table}-{self.key[:KEY_LENGTH]}"

    @property
    def label(self) -> str:
        """Table and parameters, for a line in a terminal."""
        point = " ".join(f"{name}={value}" for name, value in self.point.items())
        return f"{self.table} ({self.profile}{', ' if point else ''}{point})"


def plan_units(
    tables: Mapping[str, TableEntry],
    *,
    profile: str = "embedded",
    seeds: Sequence[int] | None = None,
    texts: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    code: str | None = None,
) -> list[Unit]:
    """Every run of the tables, in an order in which each comes after those that it needs.

    Args:
        tables: in that order, as :func:`rsovlib.experiments.tables.chosen_tables` gives them.
        profile: which profile.
        seeds: in place of the tables' own.
        texts: parameters as text from the command line: name, or ``table.name``, to text.
        values: parameters as values: name to value, or table to names and values.
        code: version of the code; that of the installed package if None.

    Raises:
        InputError: an unknown profile or parameter, a value of the wrong type, seeds where no table has one.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    code = code_version() if code is None else code
    contents = {name: _read(entry) for name, entry in tables.items()}
    declared = {name: declared_parameters(contents[name], entry.notebook) for name, entry in tables.items()}
    changes = _changes(declared, texts or {}, values or {})
    if seeds is not None:
        having = [
            entry for entry in tables.values() if profile in entry.profiles and SEED in entry.profiles[profile].varied
        ]
        if not having:
            raise InputError(f"No table among {', '.join(tables)} is run for several seeds; leave --seeds out.")
    units: dict[str, Unit] = {}
    for name, entry in tables.items():
        before = tuple(units.values())
        for unit in _units_of(entry, contents[name], declared[name], profile, seeds, changes[name], code, before):
            units[unit.key] = unit  # a parameter that the user fixes may make two points the same
    return list(units.values())


def _units_of(
    entry: TableEntry,
    notebook: dict[str, Any],
    declared: Mapping[str, Parameter],
    profile: str,
    seeds: Sequence[int] | None,
    changes: Mapping[str, Any],
    code: str,
    before: Sequence[Unit],
) -> Iterable[Unit]:
    runs = entry.profiles.get(profile)  # type: ignore[call-overload]
    if runs is None:
        reason = f"The table {entry.name} has no {profile!r} profile yet; it has {', '.join(entry.profiles)}."
        parameters = checked_parameters(declared, changes, entry.notebook)
        yield _unit(entry, notebook, profile, parameters, {}, code, (), {}, reason)
        return
    reserved = set(entry.inputs)
    for point in runs.points(seeds):
        given = {**({"profile": profile} if "profile" in declared else {}), **point, **changes}
        for name in reserved & set(changes):
            raise InputError(f"The parameter {name!r} of {entry.name} is the folder of a run before; don't give it.")
        parameters = checked_parameters(declared, given, entry.notebook)
        varied = {name: parameters[name] for name in point if name in runs.varied}
        needs = [
            one
            for one in before
            if one.table in entry.needs and all(one.point.get(name, value) == value for name, value in varied.items())
        ]
        inputs = {}
        for name, table in entry.inputs.items():
            matching = [one for one in needs if one.table == table]
            if name not in declared:
                raise unknown_name(f"parameter of {entry.notebook}", name, declared)
            if len(matching) != 1:
                raise InputError(
                    f"{entry.name}: the parameter {name!r} needs one run of {table}, and {len(matching)} fit {varied}."
                )
            inputs[name] = matching[0].key
        unavailable = next((one.missing for one in needs if one.missing), "")
        yield _unit(
            entry,
            notebook,
            profile,
            parameters,
            varied | {name: value for name, value in changes.items() if name in parameters},
            code,
            tuple(one.key for one in needs),
            inputs,
            unavailable,
        )


def _unit(
    entry: TableEntry,
    notebook: dict[str, Any],
    profile: str,
    parameters: Mapping[str, Any],
    point: Mapping[str, Any],
    code: str,
    needs: tuple[str, ...],
    inputs: Mapping[str, str],
    missing: str,
) -> Unit:
    """A unit with its identity; ``missing`` is filled in if data or weights aren't there."""
    runs = entry.profiles.get(profile)  # type: ignore[call-overload]
    data: dict[str, str] = {}
    weights: dict[str, str] = {}
    if runs is not None and not missing:
        facts = {
            **{one.name: one.default for one in declared_parameters(notebook, entry.notebook).values()},
            **parameters,
        }
        try:
            data = data_version(_filled(runs.data, facts, entry.name))
            weights = weights_version(_filled(runs.weights, facts, entry.name))
        except RsovError as error:
            missing = str(error)
    identity = {
        "notebook": notebook_digest(notebook),
        "parameters": dict(parameters),
        "code": code,
        "data": data,
        "weights": weights,
        "needs": sorted(needs),
        "inputs": dict(inputs),
    }
    return Unit(
        table=entry.name,
        paper=entry.paper,
        profile=profile,
        notebook_name=entry.notebook,
        notebook=json.dumps(notebook),
        parameters=parameters,
        point=point,
        identity=identity,
        key=digest([entry.name, profile, identity]),
        needs=needs,
        inputs=inputs,
        missing=missing,
    )


def _read(entry: TableEntry) -> dict[str, Any]:
    """A table's notebook, without outputs."""
    import nbformat

    path = entry.notebook_path()
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as a notebook ({error}).") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return dict(json.loads(json.dumps(notebook)))


def _changes(
    declared: Mapping[str, Mapping[str, Parameter]], texts: Mapping[str, str], values: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """For each table the parameters that the user sets; a name without a table goes to all that declare it."""
    found: dict[str, dict[str, Any]] = {name: {} for name in declared}
    everywhere = sorted({name for one in declared.values() for name in one})
    for name, value in values.items():
        if name in declared and isinstance(value, Mapping):
            found[name].update(checked_parameters(declared[name], value, name))
            continue
        if name not in everywhere:
            raise unknown_name(_kind(declared), name, [*everywhere, *(declared if isinstance(value, Mapping) else ())])
        for table, parameters in declared.items():
            if name in parameters:
                found[table].update(checked_parameters(parameters, {name: value}, table))
    for text_name, text in sorted(texts.items(), key=lambda item: "." in item[0]):  # one table's own value wins
        table_name, dot, name = text_name.rpartition(".")
        if dot and table_name not in declared:
            raise unknown_name("table", table_name, declared)
        choices = sorted(declared[table_name]) if dot else everywhere
        if name not in choices:
            raise unknown_name(_kind([table_name] if dot else declared), name, choices)
        for table in [table_name] if dot else declared:
            if name in declared[table]:
                found[table][name] = declared[table][name].from_text(text)
    return found


def _kind(tables: Iterable[str]) -> str:
    return f"parameter of {', '.join(tables)}"


def _filled(names: Iterable[str], parameters: Mapping[str, Any], table: str) -> list[str]:
    """``"{clip}"`` with the parameter's value in place."""
    try:
        return [name.format_map(dict(parameters)) for name in names]
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{table}: the weights or data name a parameter that the notebook doesn't have: {error}."
        ) from error
