"""The tables that ``rsovlib reproduce`` knows: one YAML file of ``rsovlib/experiments/tables`` each.

A table is a notebook, the matrix of parameters that it is run with in each profile, and what the paper printed. To add
one, write the notebook (it calls :func:`rsovlib.experiments.record`) and the YAML file beside the others.

A table may build upon others: ``needs`` names them, and ``inputs`` says which of its notebook's parameters get the
folders of their runs. Of the other table's runs those fit whose parameters agree wherever both matrices name one (a
table with ``matrix: {seed: [0, 1]}`` gets, for each seed, that seed's training)::

    needs: [training]
    inputs: {model: training}              # model: str = ""            the folder of the one run that fits
    inputs: {models: [training, more]}     # models: list[str] = []     the folders of all runs that fit, of both tables

A list is given without those runs that can't be run; if that leaves none, the table isn't run either. Folders in a list
are relative to the run's own. Both keys may stand at the table, for all profiles, or in one of its profiles.

A run that is stopped is begun anew. One that takes long goes on where it was with ``keeps: checkpoints``, the name of a
parameter of its notebook: it gets a folder that stays when the run is stopped, and is removed when it is finished. The
folder is that version's of code, data and parameters. Trainings of GPU-days, which should outlive an edit, are given
``checkpoints: ../../checkpoints`` as a plain parameter instead; their notebooks name and remove what they keep there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rsovlib.data.yamlfile import read_yaml, sentence
from rsovlib.errors import InputError, unknown_name
from rsovlib.experiments.papers import published_part
from rsovlib.resources import resource

FOLDER = Path(__file__).resolve().parent / "tables"
PROFILES = ("embedded", "full")
SEED = "seed"
"""The parameter that ``--seeds`` changes."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Point = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfileRuns(_Strict):
    """How a table is run in one profile.

    Attributes:
        parameters: the same for all runs.
        matrix: name -> values (all combinations are run), or a list of single points.
        weights: names of weights as in ``rsovlib weights list``, or ``ARCHITECTURE@WEIGHTS`` as in
            :mod:`rsovlib.fusion.named`; ``"{clip}"`` is the value of the parameter ``clip``.
        data: what :func:`rsovlib.experiments.identity.data_version` knows, ``datasets/NAME/PROTOCOL``, or an absolute
            folder; may name parameters too, whose values may be several with commas between, or none.
        needs, inputs: what this profile needs besides what the table does in all of them.
        partly: run with what there is of the needed runs, if there is any.
        minutes: about how long a run takes on one core, if it takes long; long ones are begun first.
        keeps: the parameter that gets a folder for what a stopped run goes on from; "" for none.
        hint: what to do where its data or weights aren't there, besides getting them; one sentence.
    """

    parameters: Point = Field(default_factory=dict)
    matrix: dict[str, list[Any]] | list[Point] = Field(default_factory=dict)
    weights: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    needs: tuple[Name, ...] = ()
    inputs: dict[str, Name | tuple[Name, ...]] = Field(default_factory=dict)
    partly: bool = False
    minutes: float = Field(default=0, ge=0)
    keeps: str = ""
    hint: str = ""

    @model_validator(mode="after")
    def _not_empty(self) -> ProfileRuns:
        if isinstance(self.matrix, dict):
            for name, values in self.matrix.items():
                if not values:
                    raise ValueError(f"the matrix has no value for {name!r}")
        elif any(set(point) != set(self.matrix[0]) for point in self.matrix):
            raise ValueError("the points of the matrix don't have the same names")
        return self

    @property
    def varied(self) -> set[str]:
        """The parameters that differ between runs."""
        if isinstance(self.matrix, dict):
            return set(self.matrix)
        return set(self.matrix[0]) if self.matrix else set()

    def points(self, seeds: Iterable[int] | None = None) -> Iterator[Point]:
        """The parameters of each run.

        Args:
            seeds: in place of the seeds in the matrix.

        Raises:
            InputError: the matrix lists its points, and none has that seed.
        """
        if isinstance(self.matrix, list) and self.matrix:
            points = self.matrix
            if seeds is not None and SEED in self.varied:
                known = {point[SEED]: point for point in self.matrix}
                for seed in seeds:
                    if seed not in known:
                        raise unknown_name("seed in this table", seed, map(str, known))
                points = [point for point in self.matrix if point[SEED] in set(seeds)]
            for point in points:
                yield {**self.parameters, **point}
            return
        axes = dict(self.matrix) if isinstance(self.matrix, dict) else {}
        if seeds is not None and SEED in axes:
            axes[SEED] = list(seeds)
        for values in itertools.product(*axes.values()):
            yield {**self.parameters, **dict(zip(axes, values, strict=True))}


class Published(_Strict):
    """What the paper printed.

    ``from: sdci/table1`` takes source, dataset, metric, unit, columns and rows from that table of
    ``rsovlib/experiments/papers``; ``columns`` and ``rows`` then choose among them, as a list, or as a mapping of
    this table's names to the paper's. Whatever else is given goes before what the paper's table says.

    Attributes:
        source: where, for the reader: "arXiv 2601.21159, Table 2".
        dataset: name of the manifest of the data that it was measured on; one for all columns, or one a column.
        metric: of the numbers, as the notebook records it; one for all columns, or one a column.
        unit: of the numbers; likewise.
        columns: in the paper's order.
        rows: name -> numbers, None where the paper has none.
        reference: the row against which the trend of the others is judged.
        tolerance: how far a number may be outside of the measured interval and still agree, in its unit.
    """

    source: str
    dataset: str | dict[str, str]
    metric: str | dict[str, str] = "miou"
    unit: str | dict[str, str] = "percent"
    columns: tuple[str, ...] = Field(min_length=1)
    rows: dict[str, list[float | None]] = Field(min_length=1)
    reference: str | None = None
    tolerance: float = Field(default=0.5, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _of_a_paper(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "from" not in content:
            return content
        given = dict(content)
        part = published_part(str(given.pop("from")), given.pop("rows", None), given.pop("columns", None))
        return part | given

    @model_validator(mode="after")
    def _rectangular(self) -> Published:
        for name, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"the row {name!r} has {len(values)} numbers for {len(self.columns)} columns")
        if self.reference is not None and self.reference not in self.rows:
            raise ValueError(f"the reference {self.reference!r} is no row")
        for name in ("dataset", "metric", "unit"):
            each = getattr(self, name)
            if isinstance(each, dict) and set(each) != set(self.columns):
                raise ValueError(f"{name} doesn't name one for each column")
        return self

    def of(self, what: Literal["dataset", "metric", "unit"], column: str) -> str:
        """The dataset, metric or unit of a column."""
        value: str | dict[str, str] = getattr(self, what)
        return value[column] if isinstance(value, dict) else value

    def cells(self) -> Iterator[tuple[str, str, str, float]]:
        """Row, column, metric and number of every cell that has one."""
        for row, values in self.rows.items():
            for column, value in zip(self.columns, values, strict=True):
                if value is not None:
                    yield row, column, self.of("metric", column), value


class TableEntry(_Strict):
    """One table.

    Attributes:
        name: what ``rsovlib reproduce`` calls it; the stem of its file.
        title: for people.
        kind: what its notebook is.
        paper: short name of the paper, or "" for none.
        notebook: path among the files that come with rsovlib.
        by_name: run only when it is asked for by name, because it takes long.
        needs: tables that have to be run before.
        inputs: parameter -> table, or tables, among ``needs`` whose runs' folders it gets; see the module.
        profiles: how it is run in each; one that is missing is "not run".
        published: what the paper printed, if it is a paper's table.
        notes: for the report.
    """

    name: Name
    title: str
    kind: Literal["table", "figure", "training", "lesson", "demo"]
    paper: str = ""
    notebook: str
    by_name: bool = False
    needs: tuple[Name, ...] = ()
    inputs: dict[str, Name | tuple[Name, ...]] = Field(default_factory=dict)
    profiles: dict[Literal["embedded", "full"], ProfileRuns]
    published: Published | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _known_inputs(self) -> TableEntry:
        for profile in (None, *self.profiles):
            for parameter, tables in self.inputs_in(profile).items():
                for table in tables:
                    if table not in self.needs_in(profile):
                        raise ValueError(f"the input {parameter!r} comes from {table!r}, which is not among needs")
        return self

    def needs_in(self, profile: str | None) -> tuple[str, ...]:
        """The tables that have to be run before it in a profile; None for what all profiles need."""
        runs = self.profiles.get(profile)  # type: ignore[call-overload]
        return tuple(dict.fromkeys([*self.needs, *(runs.needs if runs is not None else ())]))

    def inputs_in(self, profile: str | None) -> dict[str, tuple[str, ...]]:
        """Parameter -> tables whose runs' folders it gets in a profile."""
        runs = self.profiles.get(profile)  # type: ignore[call-overload]
        both = {**self.inputs, **(runs.inputs if runs is not None else {})}
        return {name: (tables,) if isinstance(tables, str) else tuple(tables) for name, tables in both.items()}

    @property
    def all_needs(self) -> tuple[str, ...]:
        """The tables that it needs in any profile."""
        return tuple(dict.fromkeys(name for profile in (None, *self.profiles) for name in self.needs_in(profile)))

    def notebook_path(self) -> Path:
        """Where the notebook is: among the files that come with rsovlib, or at an absolute path."""
        path = Path(self.notebook)
        return path if path.is_absolute() else resource(self.notebook)


def load_tables(folder: str | os.PathLike[str] | None = None) -> dict[str, TableEntry]:
    """All tables of a folder by name, a table after those that it needs.

    Args:
        folder: of YAML files; those that come with rsovlib if None. A notebook's path is then relative to it.

    Raises:
        InputError: a file is wrong, a need is unknown, or tables need each other in a circle.
    """
    place = Path(folder) if folder is not None else FOLDER
    if not place.is_dir():
        raise InputError(f"There is no folder {place}; give one that holds the tables' YAML files.")
    found = {}
    for path in sorted(place.glob("*.yaml")):
        content = read_yaml(path)
        if folder is not None and isinstance(content, dict) and isinstance(content.get("notebook"), str):
            content["notebook"] = str((place / content["notebook"]).resolve())
        try:
            entry = TableEntry.model_validate(content)
        except ValidationError as error:
            raise InputError(sentence(path, error)) from error
        if entry.name != path.stem:
            raise InputError(f"{path}: name is {entry.name!r}, but the file is called {path.name}; make them the same.")
        found[entry.name] = entry
    return _in_order(found)


def chosen_tables(
    tables: Mapping[str, TableEntry], names: Iterable[str], profile: str | None = None
) -> dict[str, TableEntry]:
    """The named tables with all that they need, in order; without names all that don't have to be named.

    Args:
        tables: all of them, each after those that it needs.
        names: of those that are wanted.
        profile: whose needs count besides what a table needs in all profiles.

    Raises:
        InputError: an unknown name, with the nearest right one.
    """
    wanted = list(names) or [name for name, entry in tables.items() if not entry.by_name]
    for name in wanted:
        if name not in tables:
            raise unknown_name("table", name, tables)
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            for need in tables[name].needs_in(profile):
                if need not in tables:
                    raise unknown_name(f"table that {name} may need", need, tables)
                wanted.append(need)
    return {name: entry for name, entry in tables.items() if name in needed}


def _in_order(tables: Mapping[str, TableEntry]) -> dict[str, TableEntry]:
    """Needs first, otherwise by name."""
    from graphlib import CycleError, TopologicalSorter

    for name, entry in tables.items():
        for need in entry.all_needs:
            if need not in tables:
                raise unknown_name(f"table that {name} may need", need, tables)
    try:
        order = TopologicalSorter({name: sorted(tables[name].all_needs) for name in sorted(tables)}).static_order()
        return {name: tables[name] for name in order}
    except CycleError as error:
        raise InputError(f"Tables need each other in a circle: {' -> '.join(error.args[1])}.") from error
