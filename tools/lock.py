"""Write constraints.txt: the versions that pip resolves today for rsovlib with every extra.

Left out are the packages that differ from platform to platform and that torch itself pins exactly (the CUDA
libraries and triton), so that the same file serves a laptop without a GPU, macOS and a GPU server.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PLATFORM = re.compile(r"nvidia-.*|cuda-.*|triton|rsovlib")
HEADER = """\
# Exact versions that the tests run with; `make setup` installs them. Written by `make lock`; don't edit by hand.
# The CUDA libraries and triton are not here: torch pins those that its build for a platform needs.
"""


def resolved(requirements: list[str]) -> dict[str, str]:
    """Name -> version of everything that pip would install for the requirements into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        wanted = Path(folder, "requirements.txt")
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), "--requirement", str(wanted)], check=True)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in installed}


def canonical(name: str) -> str:
    """The name as PyPI compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    pins = {name: version for name, version in resolved(requirements).items() if not PLATFORM.fullmatch(name)}
    lines = [f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(pins.items())]
    target = REPOSITORY / "constraints.txt"
    beside = target.with_suffix(".part")
    beside.write_text(HEADER + "".join(lines), encoding="utf-8")
    os.replace(beside, target)
    print(f"{target}: {len(lines)} versions")


if __name__ == "__main__":
    main()
