"""What all parts of a manifest are made of: checked numbers and texts, and blocks that know their keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Int = Annotated[int, Field(strict=True)]
Positive = Annotated[int, Field(strict=True, gt=0)]
Count = Annotated[int, Field(strict=True, ge=0)]
Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Length = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
Byte = Annotated[int, Field(strict=True, ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
Text = Annotated[str, Field(min_length=1)]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$")]
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]
Checksum = Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
Dtype = Literal["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


class Strict(BaseModel):
    """A part of a manifest: only the keys named here, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        """Name the nearest right key; pydantic by itself only says that a key is not permitted."""
        if not isinstance(data, Mapping):
            raise ValueError(f"must be a block of keys, not {data!r}")
        for key in data:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(cls.model_fields)}"
                raise ValueError(f"there is no key {str(key)!r} here; {hint}")
        return data


def no_repeats(what: str, items: Iterable[object]) -> None:
    """Raise ValueError if an item occurs twice."""
    seen: set[object] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"{what} {item!r} occurs twice")
        seen.add(item)
