"""Reading the tiles that :mod:`rsovlib.data.prepare` made, as the same samples that the dataset itself gives."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import torch
from torch.utils.data import Dataset

from rsovlib.data.arrays import Pixels, open_array
from rsovlib.data.cutting import Box
from rsovlib.data.dataset import DataSample, prompts_of, to_tensor
from rsovlib.data.layout import CLOUD_MASK, LABELS
from rsovlib.data.manifest import Manifest, load_manifest
from rsovlib.data.prepare import INDEX, METADATA_KEY
from rsovlib.data.reading import holds_data, stored_to_unit
from rsovlib.errors import InputError, unknown_name


class PreparedDataset(Dataset[Any]):
    """The tiles of a folder that ``rsovlib data prepare`` made.

    Args:
        folder: with ``index.parquet`` in it.
        split: a role of the protocol (``train``, ``val``, ``test``) or a split's name in the index; all by default.
        manifest: the dataset's, where it is not one that comes with rsovlib.
        prompt_set: whose words :attr:`prompts` gives.
        transform: called with each :class:`~rsovlib.data.dataset.DataSample`.

    Attributes:
        index: one row a tile.
        settings: what the tiles were made with.
        classes: the names of the class indices, in order.

    Raises:
        InputError: the folder has no whole index, or the split is unknown.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str | None = None,
        *,
        manifest: Manifest | None = None,
        prompt_set: str | None = None,
        transform: Callable[[DataSample], Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.index, self.settings = read_index(self.folder)
        self.manifest = manifest or load_manifest(self.settings["dataset"])
        self.classes: list[str] = self.settings["classes"]
        self.prompts = prompts_of(self.manifest, self.classes, prompt_set) if prompt_set is not None else []
        self.transform = transform
        if split is not None:
            known = set(self.index["split"]) | set(self.settings["splits"])
            if split not in known:
                raise unknown_name("split of these tiles", split, known)
            name = self.settings["splits"].get(split, split)
            self.index = self.index[self.index["split"] == name].reset_index(drop=True)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Any:
        # Of an empty cell pandas makes NaN, whatever the column's type.
        cells = self.index.iloc[number].to_dict()
        row = {
            key: None if pandas.api.types.is_scalar(cell) and pandas.isna(cell) else cell for key, cell in cells.items()
        }
        sample = self._read(row)
        return sample if self.transform is None else self.transform(sample)

    @property
    def bands(self) -> dict[str, tuple[str, ...]]:
        """For each modality the names of its bands."""
        return {name: tuple(bands) for name, bands in self.settings["bands"].items()}

    def _read(self, row: dict[Any, Any]) -> DataSample:
        pixels = {name: self._image(row, name) for name in self.settings["modalities"]}
        shape = next(found.values.shape[1:] for found in pixels.values() if found is not None)
        images: dict[str, torch.Tensor] = {}
        valid: dict[str, torch.Tensor] = {}
        for name, found in pixels.items():
            files = self.manifest.layout(self.settings["layout"]).files[name]
            if found is None:
                zeros = np.zeros((len(self.bands[name]), *shape), dtype=files.dtype or np.float32)
                found = Pixels(zeros, np.zeros(shape, dtype=bool))
            images[name] = to_tensor(stored_to_unit(found.values, files))
            valid[name] = torch.from_numpy(found.valid)
        tiles = self.settings["tiles"]
        box = None if tiles is None else Box(row["row"], row["column"], row["height"], row["width"])
        return DataSample(
            id=row["id"],
            split=row["split"],
            images=images,
            available={name: found is not None for name, found in pixels.items()},
            valid=valid,
            labels=self._labels(row, shape),
            bands=self.bands,
            cloud_mask=self._cloud_mask(row),
            image_class=None if row["image_class"] is None else int(row["image_class"]),
            crs=row["crs"],
            transform=None if row["geotransform"] is None else tuple(row["geotransform"]),
            box=box,
        )

    def _image(self, row: dict[Any, Any], modality: str) -> Pixels | None:
        path = row[f"path_{modality}"]
        if path is None:
            return None
        with open_array(self.folder / path) as file:
            channels = tuple(range(1, len(self.bands[modality]) + 1))
            found = file.read(channels, slice(0, file.header.height), slice(0, file.header.width))
        bands = self.manifest.modalities[modality].bands
        found = Pixels(found.values, found.valid & holds_data(found.values, [band.nodata for band in bands]))
        # Beyond the image there is filling, which a file without a nodata value can't say.
        tiles = self.settings["tiles"]
        if tiles is not None:
            side = (row["height"], row["width"]) if tiles["edge"] == "clip" else (tiles["size"], tiles["size"])
            rows = round(row["height"] * found.valid.shape[0] / side[0])
            columns = round(row["width"] * found.valid.shape[1] / side[1])
            found.valid[rows:] = False
            found.valid[:, columns:] = False
        return found

    def _cloud_mask(self, row: dict[Any, Any]) -> torch.Tensor | None:
        path = row[f"path_{CLOUD_MASK}"]
        if path is None:
            return None
        with open_array(self.folder / path) as file:
            found = file.read((1,), slice(0, file.header.height), slice(0, file.header.width))
        return torch.from_numpy(found.values[0] != 0)

    def _labels(self, row: dict[Any, Any], shape: tuple[int, ...]) -> torch.Tensor | None:
        path = row[f"path_{LABELS}"]
        if path is None:
            if row["image_class"] is None:
                return None
            return torch.full(shape, int(row["image_class"]), dtype=torch.int64)
        with open_array(self.folder / path) as file:
            found = file.read((1,), slice(0, file.header.height), slice(0, file.header.width))
        return torch.from_numpy(found.values[0].astype(np.int64))


def read_index(folder: str | os.PathLike[str]) -> tuple[pandas.DataFrame, dict[str, Any]]:
    """The table of a folder of tiles, and the settings that they were made with.

    Raises:
        InputError: there is no index, or it is not one that rsovlib wrote.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise InputError(f"There is no {path}; make it with rsovlib data prepare, or let an unfinished run end.")
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read as a Parquet table; run rsovlib data prepare again.") from error
    settings = (table.schema.metadata or {}).get(METADATA_KEY)
    if settings is None:
        raise InputError(f"{path} was not written by rsovlib data prepare; give the folder of prepared tiles.")
    return table.replace_schema_metadata().to_pandas(), json.loads(settings)
