"""From tables to a matrix of runs, each with its name, before anything runs.

A run's name is a hash of everything that its results depend on: the notebook's sources, the parameters, the code, the
data, the weights, and the runs that it builds upon. So a run that is there already needn't be done again, and one whose
ingredients changed has another name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rsovlib.errors import InputError, RsovError, unknown_name
from rsovlib.experiments.identity import code_version, data_version, digest, notebook_digest, weights_version
from rsovlib.experiments.parameters import Parameter, checked_parameters, declared_parameters
from rsovlib.experiments.tables import PROFILES, SEED, ProfileRuns, TableEntry, chosen_tables, load_tables

KEY_LENGTH = 16
"""Hexadecimal digits of the hash that a folder is named by; the whole hash stands in the run's record."""
BESIDE = "../../finished"
"""Where other runs' folders lie, seen from the folder that a notebook is executed in, and from its own when it is
finished (:mod:`rsovlib.experiments.runs`). Relative, since whoever plans doesn't know where the runs will be."""


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
        inputs: parameter -> key of the run whose folder it gets. Lists of folders stand among the parameters.
        minutes: about how long it takes on one core; 0 for not long.
        keeps: the parameter that gets the folder for what a stopped run goes on from; "" for none.
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
    minutes: float = 0
    keeps: str = ""
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
        tables: in that order, as :func:`rsovlib.experiments.tables.chosen_tables` gives them. What they need in this
            profile and isn't there comes from the tables that ship with rsovlib.
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
    if any(need not in tables for entry in tables.values() for need in entry.needs_in(profile)):
        tables = chosen_tables({**load_tables(), **tables}, list(tables), profile)
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
    ingredients = _Ingredients()
    for name, entry in tables.items():
        table = _Table(entry, contents[name], declared[name], profile, code, ingredients)
        for unit in table.units(seeds, changes[name], tuple(units.values())):
            units[unit.key] = unit  # a parameter that the user fixes may make two points the same
    return list(units.values())


@dataclass(frozen=True)
class _Table:
    """One table, about to be planned."""

    entry: TableEntry
    notebook: Mapping[str, Any]
    declared: Mapping[str, Parameter]
    profile: str
    code: str
    ingredients: _Ingredients

    @property
    def runs(self) -> ProfileRuns | None:
        found: ProfileRuns | None = self.entry.profiles.get(self.profile)  # type: ignore[call-overload]
        return found

    def units(self, seeds: Sequence[int] | None, changes: Mapping[str, Any], before: Sequence[Unit]) -> Iterable[Unit]:
        """Its runs, given those that were planned before."""
        entry, declared, runs = self.entry, self.declared, self.runs
        if runs is None:
            reason = f"The table {entry.name} has no {self.profile!r} profile yet; it has {', '.join(entry.profiles)}."
            yield self._unit(checked_parameters(declared, changes, entry.notebook), {}, _Before(missing=reason))
            return
        inputs = entry.inputs_in(self.profile)
        for name in inputs:
            if name in changes:
                raise InputError(
                    f"The parameter {name!r} of {entry.name} is the folder of a run before; don't give it."
                )
            if name not in declared:
                raise unknown_name(f"parameter of {entry.notebook}", name, declared)
        if runs.keeps and runs.keeps not in declared:
            raise unknown_name(f"parameter of {entry.notebook}", runs.keeps, declared)
        keeps = "" if runs.keeps in changes else runs.keeps  # a folder that the user gives is the user's
        for point in runs.points(seeds):
            given = {**({"profile": self.profile} if "profile" in declared else {}), **point, **changes}
            parameters = checked_parameters(declared, given, entry.notebook)
            varied = {name: parameters[name] for name in point if name in runs.varied}
            found = self._before(inputs, varied, before)
            shown = varied | {name: value for name, value in changes.items() if name in parameters}
            unit = self._unit(parameters | found.lists, shown, found)
            yield replace(unit, minutes=runs.minutes, keeps=keeps)

    def _before(
        self, inputs: Mapping[str, tuple[str, ...]], varied: Mapping[str, Any], before: Sequence[Unit]
    ) -> _Before:
        """The runs that a run with these varied parameters builds upon."""
        needs = [
            one
            for one in before
            if one.table in self.entry.needs_in(self.profile)
            and all(one.point.get(name, value) == value for name, value in varied.items())
        ]
        found, left_out, missing = _Before(), set[str](), ""
        for name, tables in inputs.items():
            fitting, of = [one for one in needs if one.table in tables], " or ".join(tables)
            if not self.declared[name].kind.startswith("list"):
                if len(fitting) != 1:
                    raise InputError(
                        f"{self.entry.name}: the parameter {name!r} needs one run of {of}, and {len(fitting)} fit "
                        f"{dict(varied)}."
                    )
                found.inputs[name] = fitting[0].key
                continue
            there = [one for one in fitting if not one.missing]
            if not there and not missing:
                nothing = f"{self.entry.name} needs runs of {of}, and none fits {dict(varied)}."
                missing = fitting[0].missing if fitting else nothing
            left_out |= {one.key for one in fitting if one.missing}
            found.lists[name] = [f"{BESIDE}/{one.name}" for one in there]
        if self.runs is not None and self.runs.partly and any(not one.missing for one in needs):
            left_out |= {one.key for one in needs if one.missing and one.key not in found.inputs.values()}
        kept = [one for one in needs if one.key not in left_out]
        missing = missing or next((one.missing for one in kept if one.missing), "")
        return replace(found, needs=tuple(one.key for one in kept), missing=missing)

    def _unit(self, parameters: Mapping[str, Any], point: Mapping[str, Any], before: _Before) -> Unit:
        """A run with its identity; ``missing`` is filled in if data or weights aren't there."""
        entry, missing = self.entry, before.missing
        data: dict[str, str] = {}
        weights: dict[str, str] = {}
        if self.runs is not None and not missing:
            facts = {**{one.name: one.default for one in self.declared.values()}, **parameters}
            try:
                data = self.ingredients.data(_filled(self.runs.data, facts, entry.name))
                weights = self.ingredients.weights(_filled(self.runs.weights, facts, entry.name))
            except RsovError as error:
                missing = f"{error} {self.runs.hint}".strip()
        identity = {
            "notebook": notebook_digest(self.notebook),
            "parameters": dict(parameters),
            "code": self.code,
            "data": data,
            "weights": weights,
            "needs": sorted(before.needs),
            "inputs": dict(before.inputs),
        }
        return Unit(
            table=entry.name,
            paper=entry.paper,
            profile=self.profile,
            notebook_name=entry.notebook,
            notebook=json.dumps(self.notebook),
            parameters=parameters,
            point=point,
            identity=identity,
            key=digest([entry.name, self.profile, identity]),
            needs=before.needs,
            inputs=before.inputs,
            missing=missing,
        )


@dataclass(frozen=True)
class _Before:
    """What a run builds upon: keys of the runs, what its parameters get of them, and why it can't be run."""

    needs: tuple[str, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    missing: str = ""


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


class _Ingredients:
    """Versions of data and weights for one plan, which asks for the same few again and again.

    Beyond what :mod:`rsovlib.experiments.identity` knows, a protocol may stand behind a dataset, a folder may be named
    by its path, and weights by architecture and tag or file. What is missing is an error every time it is asked for.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str | RsovError] = {}

    def data(self, names: Iterable[str]) -> dict[str, str]:
        """Name of each source -> its version.

        Args:
            names: ``"scenes"``, ``"clouds"``, ``"suites/NAME"``, ``"datasets/NAME"`` or ``"datasets/NAME/PROTOCOL"``,
                or an absolute folder; several with commas between, or none, in one text.

        Raises:
            InputError: an unknown name, or data that isn't on this machine; the sentence says how to get it.
        """
        sources = dict.fromkeys(_without_protocol(part) for text in names for part in _parts(text))
        return {name: self._version("data", name, _data_version) for name in sources}

    def weights(self, names: Iterable[str]) -> dict[str, str]:
        """Name of each set of weights -> SHA-256 of its file, fetched where that is allowed; none for ``@random``.

        Raises:
            InputError: an unknown name.
            WeightsError: they aren't on this machine and can't be fetched, or were altered.
        """
        return {name: self._version("weights", name, _weights_version) for text in names for name in _parts(text)}

    def _version(self, kind: str, name: str, look: Callable[[str], str]) -> str:
        if (kind, name) not in self._known:
            try:
                self._known[kind, name] = look(name)
            except RsovError as error:
                self._known[kind, name] = error
        found = self._known[kind, name]
        if isinstance(found, RsovError):
            raise found
        return found


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _without_protocol(name: str) -> str:
    """A protocol chooses among a dataset's files; their version is that of all of them."""
    return "/".join(name.split("/")[:2]) if name.startswith("datasets/") else name


def _data_version(name: str) -> str:
    folder = Path(name)
    if folder.is_absolute():
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; give the folder of one sensor's images.")
        files = (path for path in folder.rglob("*") if path.is_file())
        return digest({path.relative_to(folder).as_posix(): path.stat().st_size for path in files})
    return data_version([name])[name]


def _weights_version(name: str) -> str:
    if "@" not in name:
        return weights_version([name])[name]
    from rsovlib.fusion.named import weights_file

    path = weights_file(name)
    if path is None:
        return "random"
    from rsovlib.backbones.registry import verified_sha256

    return verified_sha256(path)
