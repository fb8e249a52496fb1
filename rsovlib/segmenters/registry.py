"""The methods by name, and how others join: :func:`register`.

A method is a name, a factory that makes its segmenter, and a sentence. Whoever offers methods (``make_segmenter``,
``rsovlib segment --method``, help texts, notebooks) asks here, so that a new one appears everywhere at once:

    >>> from rsovlib.segmenters.registry import register
    >>> register("mine", "my_package.segmenter:make", doc="what I am working on")  # doctest: +SKIP

Factories of the package are named by dotted path and imported when first used: asking for the names costs nothing, and
methods of a neighbouring package (``rsovlib.fusion``) need not be known here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from rsovlib.errors import InputError, unknown_name

if TYPE_CHECKING:
    from rsovlib.segmenters.base import Segmenter

Factory: TypeAlias = "Callable[..., Segmenter]"
"""Called as ``factory(method, profile=..., device=..., **options)``."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: what ``make_segmenter`` takes.
        factory: makes the segmenter; or its dotted path, ``"package.module:function"``.
        uses_sar: whether the segmenter can use a radar image (see ``segmenters.base.SarSegmenter``).
        doc: what it is, in a few words.
    """

    name: str
    factory: Factory | str
    uses_sar: bool = False
    doc: str = ""

    def make(self, *, profile: str = "embedded", device: str = "auto", **options: Any) -> Segmenter:
        """The segmenter, with its models loaded.

        Raises:
            InputError: the factory is not there, or refuses an option.
            WeightsError: weights that aren't there.
        """
        return self._resolved()(self.name, profile=profile, device=device, **options)

    def _resolved(self) -> Factory:
        if callable(self.factory):
            return self.factory
        place, _, attribute = self.factory.partition(":")
        try:
            found: Factory = getattr(importlib.import_module(place), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            if isinstance(error, ModuleNotFoundError) and not _leads_to(place, error.name):
                raise  # the module is there, and lacks a library of its own
            raise InputError(
                f"The method {self.name!r} is registered, but {self.factory} is not part of this installation; install "
                "the package that has it, or choose another method."
            ) from error
        return found


def _leads_to(module: str, missing: str | None) -> bool:
    """Whether a missing module is the wanted one, or a package around it."""
    return missing is not None and (module == missing or module.startswith(missing + "."))


_methods: dict[str, Method] = {}

METHODS: Mapping[str, Method] = MappingProxyType(_methods)
"""Name -> method, in the order of registration; a view that shows what is registered later."""


def register(
    name: str, factory: Factory | str, *, uses_sar: bool = False, doc: str = "", replace: bool = False
) -> Method:
    """Add a method, for this process.

    Workers in other processes are sent the factory itself: define it at the top of a module that they can import.

    Args:
        name: what ``make_segmenter`` and ``--method`` take; without spaces.
        factory: called as ``factory(name, profile=..., device=..., **options)``, gives a segmenter (see
            ``segmenters.base.Segmenter``); or its dotted path, ``"package.module:function"``.
        uses_sar: whether its segmenter can use a radar image (see ``segmenters.base.SarSegmenter``).
        doc: what it is, in a few words; appears in help texts.
        replace: take the place of a method of this name.

    Returns:
        The method.

    Raises:
        InputError: the name is taken or no name, or the factory is neither callable nor a dotted path.
    """
    if not name or any(character.isspace() for character in name):
        raise InputError(f"A method's name is one word, such as 'mine' or 'mine-2', and not {name!r}.")
    if not (callable(factory) or (isinstance(factory, str) and all(factory.partition(":")))):
        raise InputError(f"The factory of {name!r} is {factory!r}, and must be callable or 'package.module:function'.")
    if name in _methods and not replace:
        raise InputError(f"There is a method {name!r} already; choose another name, or register with replace=True.")
    _methods[name] = Method(name, factory, uses_sar, doc)
    return _methods[name]


def unregister(name: str) -> None:
    """Remove a method.

    Raises:
        InputError: there is no such method.
    """
    find_method(name)
    del _methods[name]


def find_method(name: str) -> Method:
    """A method by name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name not in _methods:
        raise unknown_name("method", name, _methods)
    return _methods[name]


def without_radar(name: str) -> InputError:
    """The error for a radar image that a method can't use."""
    able = [other for other, method in _methods.items() if method.uses_sar]
    return InputError(
        f"The method {name!r} can't use a radar image; leave it out, or choose one that can: {', '.join(able)}."
    )


def method_help() -> str:
    """All methods with what they are, for a help text."""
    return "; ".join(f"{name} ({method.doc})" if method.doc else name for name, method in _methods.items())


_TRAINING_FREE = "rsovlib.segmenters.factories:make_training_free"
_FUSION = "rsovlib.fusion.segmenter:make_fusion_segmenter"

for _name, _doc in {
    "sdci": "SDCI, as its official program works",
    "sdci-v1": "SDCI with DINO",
    "sdci-v2": "SDCI with DINOv2",
    "sdci-v3": "SDCI with DINOv3",
    "sdci-paper": "SDCI, as its paper describes it",
    "valuepath": "CLIP's values without attention: the control",
    "vanilla": "CLIP as it is",
    "maskclip": "MaskCLIP, ECCV 2022",
    "sclip": "SCLIP, ECCV 2024",
    "clearclip": "ClearCLIP, ECCV 2024",
    "naclip": "NACLIP, WACV 2025",
    "resclip": "ResCLIP, CVPR 2025",
    "cliper": "CLIPer, ICCV 2025",
    "proxyclip": "ProxyCLIP, ECCV 2024",
    "corrclip": "CorrCLIP, ICCV 2025",
    "cass": "CASS, CVPR 2025",
    "segearth-ov": "SegEarth-OV, CVPR 2025",
}.items():
    register(_name, _TRAINING_FREE, doc=_doc)

for _name, _sees_radar, _doc in (
    ("mm-ovseg", True, "MM-OVSeg: optical and radar, trained"),
    ("mm-ovseg-no-cmu", True, "MM-OVSeg without cross-modal unification, trained"),
    ("gsnet", False, "GSNet, trained"),
    ("cat-seg", False, "CAT-Seg, trained"),
    ("ebseg", False, "EBSeg, trained"),
):
    register(_name, _FUSION, uses_sar=_sees_radar, doc=_doc)
