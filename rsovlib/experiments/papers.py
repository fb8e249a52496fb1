"""What the papers printed: one YAML file a paper in ``rsovlib/experiments/papers``, transcribed with its sources.

Every other place that shows a paper's number takes it from here: the tables of ``rsovlib reproduce`` name a table of a
paper in their ``published:`` part, notebooks call :func:`paper_table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rsovlib.data.yamlfile import read_yaml, sentence
from rsovlib.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).resolve().parent / "papers"

Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperTable(_Strict):
    """A table of numbers, as printed.

    Attributes:
        name: what this package calls it, ``"table1"``.
        source: where it stands, for the reader: ``"arXiv 2601.21159, Table 1"``.
        title: what it shows.
        dataset: name of the manifest of the data that it was measured on; one for all columns, or one a column.
        metric: of the numbers, as notebooks record it; one for all columns, or one a column.
        unit: of the numbers; likewise.
        columns: in the paper's order.
        titles: column -> what it stands for, where its name doesn't say it.
        rows: name -> numbers; None where the paper has none.
        dash: what None means in this table.
        notes: of this package, not the authors'.
    """

    name: Text
    source: Text
    title: Text
    dataset: str | dict[str, str] = ""
    metric: str | dict[str, str] = "miou"
    unit: str | dict[str, str] = "percent"
    columns: tuple[str, ...] = Field(min_length=1)
    titles: dict[str, str] = Field(default_factory=dict)
    rows: dict[str, tuple[float | None, ...]] = Field(min_length=1)
    dash: str = ""
    notes: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> PaperTable:
        for row, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"the row {row!r} has {len(values)} numbers for {len(self.columns)} columns")
            if None in values and not self.dash:
                raise ValueError(f"the row {row!r} has a gap, but dash doesn't say what a gap means")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("a column stands twice")
        for what in ("dataset", "metric", "unit"):
            each = getattr(self, what)
            if isinstance(each, dict) and set(each) != set(self.columns):
                raise ValueError(f"{what} doesn't name one for each column")
        if not set(self.titles) <= set(self.columns):
            raise ValueError("titles names something that is no column")
        return self

    def value(self, row: str, column: str) -> float | None:
        """The number in a cell; None where the paper has none.

        Raises:
            InputError: no such row or column.
        """
        return self.row(row)[self._place(column)]

    def row(self, name: str) -> tuple[float | None, ...]:
        """The numbers of a row, in the order of the columns."""
        if name not in self.rows:
            raise unknown_name(f"row in {self.source}", name, self.rows)
        return self.rows[name]

    def column(self, name: str) -> dict[str, float | None]:
        """Row -> number of a column."""
        place = self._place(name)
        return {row: values[place] for row, values in self.rows.items()}

    def of(self, what: str, column: str) -> str:
        """The ``"dataset"``, ``"metric"`` or ``"unit"`` of a column."""
        self._place(column)
        value: str | dict[str, str] = getattr(self, what)
        return value[column] if isinstance(value, dict) else value

    def cells(self) -> Iterator[tuple[str, str, float]]:
        """Row, column and number of every cell that has one."""
        for row, values in self.rows.items():
            for column, value in zip(self.columns, values, strict=True):
                if value is not None:
                    yield row, column, value

    def frame(self) -> pd.DataFrame:
        """As a table of pandas, rows and columns in the paper's order, gaps as NaN."""
        import pandas as pd

        frame = pd.DataFrame.from_dict(self.rows, orient="index", columns=list(self.columns), dtype=float)
        return frame.rename_axis(index=self.source)

    def _place(self, column: str) -> int:
        if column not in self.columns:
            raise unknown_name(f"column in {self.source}", column, self.columns)
        return self.columns.index(column)


class Paper(_Strict):
    """A paper, what was read of it, and its tables.

    Attributes:
        name: short, the stem of its file: ``"sdci"``.
        title, authors, year, venue: of the publication; authors are "" where they were not at hand.
        arxiv, doi: its identifiers, or "".
        code: the authors' repository, or "".
        read: which parts the numbers were taken from.
        facts: what its tables say in words: settings, seen and unseen classes.
        tables: by name.
    """

    name: Text
    title: Text
    authors: str = ""
    year: int
    venue: Text
    arxiv: str = ""
    doi: str = ""
    code: str = ""
    read: Text
    facts: dict[str, Any] = Field(default_factory=dict)
    tables: dict[str, PaperTable] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _names(cls, content: Any) -> Any:
        """Each table knows its name, and its source begins with the paper's."""
        if not isinstance(content, Mapping) or not isinstance(content.get("tables"), Mapping):
            return content
        short = f"arXiv {content['arxiv']}" if content.get("arxiv") else f"{content.get('venue', '')}"
        tables = {
            name: {**table, "name": name, "source": f"{short}, {table['source']}"}
            if isinstance(table, Mapping) and isinstance(table.get("source"), str)
            else table
            for name, table in content["tables"].items()
        }
        return {**content, "tables": tables}


def paper_names() -> tuple[str, ...]:
    """The papers whose numbers come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@cache
def load_paper(name: str) -> Paper:
    """A paper with its tables.

    Args:
        name: one of :func:`paper_names`.

    Raises:
        InputError: there is no such paper, or its file is wrong.
    """
    if name not in paper_names():
        raise unknown_name("paper", name, paper_names())
    return read_paper(FOLDER / f"{name}.yaml")


def read_paper(path: Path) -> Paper:
    """A paper from a file of this form.

    Raises:
        InputError: the file is wrong; the sentence names the key.
    """
    try:
        paper = Paper.model_validate(read_yaml(path))
    except ValidationError as error:
        raise InputError(sentence(path, error)) from error
    if paper.name != path.stem:
        raise InputError(f"{path}: name is {paper.name!r}, but the file is called {path.name}; make them the same.")
    return paper


def paper_table(paper: str, table: str) -> PaperTable:
    """One table of a paper.

    Args:
        paper: one of :func:`paper_names`.
        table: name of the table in its file.

    Raises:
        InputError: there is no such paper or table.

    Example:
        >>> paper_table("sdci", "table1").value("SDCI-v1", "GID ori")
        58.93
    """
    tables = load_paper(paper).tables
    if table not in tables:
        raise unknown_name(f"table of {paper}", table, tables)
    return tables[table]


def published_part(
    reference: str,
    rows: Mapping[str, str] | Sequence[str] | None = None,
    columns: Mapping[str, str] | Sequence[str] | None = None,
) -> dict[str, Any]:
    """A part of a paper's table, in the form of a ``published:`` entry of ``rsovlib/experiments/tables``.

    Args:
        reference: ``"sdci/table1"``.
        rows: which to take; all if None. A mapping gives them other names: ours -> the paper's.
        columns: likewise.

    Raises:
        InputError: an unknown paper, table, row or column.
    """
    paper, slash, name = reference.partition("/")
    if not slash:
        raise InputError(f"{reference!r} names no table of a paper; write it as paper/table, for example sdci/table1.")
    table = paper_table(paper, name)
    taken_rows = _renamed(rows, tuple(table.rows))
    taken_columns = _renamed(columns, table.columns)
    return {
        "source": f"{table.source}: {table.title}",
        "columns": tuple(taken_columns),
        "rows": {ours: [table.value(row, one) for one in taken_columns.values()] for ours, row in taken_rows.items()},
        **{
            what: {ours: table.of(what, column) for ours, column in taken_columns.items()}
            for what in ("dataset", "metric", "unit")
        },
    }


def _renamed(chosen: Mapping[str, str] | Sequence[str] | None, known: tuple[str, ...]) -> dict[str, str]:
    if chosen is None:
        return {name: name for name in known}
    return dict(chosen) if isinstance(chosen, Mapping) else {name: name for name in chosen}
