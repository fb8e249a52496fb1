"""Where the files that come with rsovlib stand: beside the package in a checkout, inside it after `pip install`."""

from __future__ import annotations

from pathlib import Path

from rsovlib.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The path of a file or folder that comes with rsovlib.

    Args:
        name: path with forward slashes, for example ``"notebooks/quickstart.ipynb"`` or ``"data_manifests"``.

    Returns:
        An existing path: in the checkout's top folder if there is one, otherwise in the installed package.

    Raises:
        InputError: nothing of that name comes with this installation.
    """
    # The package comes first: only a wheel holds notebooks/ inside it, and beside an installed
    # package is site-packages, where a folder called "notebooks" would be somebody else's.
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / name).exists() and (root == _PACKAGE or (root / "pyproject.toml").is_file()):
            return root / name
    raise InputError(f"{name!r} does not come with this installation of rsovlib in {_PACKAGE}; install it again.")
