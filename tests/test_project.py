"""The project's own files agree with each other, and the package is as light and as layered as it claims."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import rsovlib
from rsovlib.errors import InputError
from rsovlib.resources import resource

# conda-forge's name -> PyPI's, where they differ by more than case and hyphens.
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
CONDA_ONLY = {"python", "pip"}

# Programs and plug-ins that are used without being imported.
NOT_IMPORTED = {
    "ipykernel": "runs the notebooks",
    "jupyterlab": "is where they are read",
    "pyarrow": "pandas writes Parquet and Feather with it",
    "pyogrio": "geopandas writes vector files with it",
}


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, Version]:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds exact versions only"
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def requirements(project: dict, extras: bool = True) -> list[Requirement]:
    optional = project["optional-dependencies"].values() if extras else ()
    return [Requirement(r) for r in [*project["dependencies"], *(r for extra in optional for r in extra)]]


def test_every_dependency_has_a_lower_bound(project: dict):
    for requirement in requirements(project):
        assert [s.operator for s in requirement.specifier] == [">="], f"{requirement}: one lower bound"
    names = [canonicalize_name(r.name) for r in requirements(project)]
    assert len(names) == len(set(names))
    for part in (project["dependencies"], *project["optional-dependencies"].values()):
        part_names = [canonicalize_name(Requirement(line).name) for line in part]
        assert part_names == sorted(part_names)


def test_constraints_pin_every_dependency_within_its_bound(project: dict, pins: dict[str, Version]):
    for requirement in requirements(project):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin: run `make lock`"
        assert pin in requirement.specifier, f"{requirement} is not met by the pin {pin}: run `make lock`"


def test_constraints_serve_every_platform(repository: Path, pins: dict[str, Version]):
    text = (repository / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"@|file:|https?:|^-", text, re.M), "no addresses and no options"
    assert not [name for name in pins if re.match(r"nvidia-|cuda-|triton", name)]
    assert not [str(v) for v in pins.values() if v.local]


@pytest.mark.skipif("CI" not in os.environ, reason="only in CI: elsewhere you may try other versions than the pinned")
def test_what_is_installed_are_the_pins(project: dict, pins: dict[str, Version]):
    """What the tests run with is what constraints.txt says: for everything that was installed for us."""
    wanted = [(r, frozenset({"dev"})) for r in [Requirement("rsovlib[dev]")]]
    seen: set[str] = set()
    while wanted:
        requirement, extras = wanted.pop()
        for line in importlib.metadata.requires(requirement.name) or ():
            child = Requirement(line)
            if child.marker and not any(child.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                continue
            name = canonicalize_name(child.name)
            if name in seen:
                continue
            seen.add(name)
            wanted.append((child, frozenset(child.extras)))
            if name in pins:
                assert Version(Version(importlib.metadata.version(name)).public) == pins[name], name
    assert len(seen) > 100
    assert seen - set(pins) <= {n for n in seen if re.match(r"nvidia-|cuda-|triton|rsovlib|setuptools", n)}


def test_environment_yml_is_in_step(repository: Path, project: dict):
    environment = yaml.safe_load((repository / "environment.yml").read_text(encoding="utf-8"))
    assert set(environment) <= {"name", "channels", "dependencies", "variables"}, "keys that conda knows"
    assert environment["name"] == project["name"]
    assert environment["channels"] == ["conda-forge"]
    *specs, with_pip = environment["dependencies"]
    assert with_pip == {"pip": ["-e ."]}
    found: dict[str, SpecifierSet] = {}
    for spec in specs:
        match = re.fullmatch(r"([a-z0-9][a-z0-9._-]*)((?:[<>=!]=?[0-9][0-9a-z.]*)?)", spec)
        assert match, f"{spec!r} is no name with a bound"
        name = canonicalize_name(CONDA_NAMES.get(match[1], match[1]))
        assert name not in found, f"{name} stands there twice"
        found[name] = SpecifierSet(match[2])
    assert found.pop("python") == SpecifierSet(project["requires-python"])
    assert found.pop("pip") == SpecifierSet()
    assert found == {canonicalize_name(r.name): r.specifier for r in requirements(project, extras=False)}


def imported(files: list[Path]) -> set[str]:
    """The top-level names that Python files and notebooks import, wherever in them."""
    names = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".ipynb":
            cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
            lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
            text = "\n".join(line if not line.lstrip().startswith(("%", "!")) else "" for line in lines)
        for node in ast.walk(ast.parse(text, str(file))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names


def test_every_import_is_declared_and_every_dependency_is_used(repository: Path, project: dict):
    files = [*(repository / "rsovlib").rglob("*.py"), *(repository / "notebooks").rglob("*.ipynb")]
    names = imported([file for file in files if ".ipynb_checkpoints" not in file.parts])
    names -= set(sys.stdlib_module_names) | {"rsovlib"}
    distributions = importlib.metadata.packages_distributions()
    unknown = sorted(name for name in names if name not in distributions)
    core = {canonicalize_name(r.name) for r in requirements(project, extras=False)}
    optional = {canonicalize_name(r.name) for r in requirements(project)} - core
    optional_imports = {"cv2", "ipyleaflet", "codecarbon"}
    assert set(unknown) <= optional_imports, f"imported, but neither installed nor optional: {unknown}"
    used = {canonicalize_name(d) for name in names for d in distributions.get(name, ())}
    undeclared = {name for name in used - core - optional if name not in {"mpl-toolkits"}}
    assert not undeclared, f"imported, but not in pyproject.toml: {sorted(undeclared)}"
    idle = core - used - set(NOT_IMPORTED)
    assert not idle, f"in pyproject.toml, but never imported: {sorted(idle)}"


HEAVY = (
    "torch",
    "numpy",
    "rasterio",
    "open_clip",
    "timm",
    "matplotlib",
    "pandas",
    "scipy",
    "numba",
    "skimage",
    "IPython",
)


@pytest.mark.parametrize("module", ["rsovlib", "rsovlib.errors", "rsovlib.files", "rsovlib.resources", "rsovlib.cli"])
def test_light_modules_load_no_heavy_library(repository: Path, module: str):
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", ""), f"import {module}"


def test_public_names_are_found_when_asked_for():
    assert rsovlib.segment.__name__ == "segment"
    assert rsovlib.Segmentation.__name__ == "Segmentation"
    assert rsovlib.metrics.SegmentationMetrics
    assert {"segment", "Segmentation", "kernels", "plots", "__version__"} <= set(dir(rsovlib))
    with pytest.raises(AttributeError, match="no attribute 'segmet'"):
        rsovlib.segmet  # noqa: B018


def test_every_submodule_in_the_list_exists_or_is_still_to_come(repository: Path):
    there = {p.stem for p in (repository / "rsovlib").glob("*.py")} | {
        p.parent.name for p in (repository / "rsovlib").glob("*/__init__.py")
    }
    assert there - {"__init__", "__main__", "cli"} <= rsovlib._SUBMODULES
    assert rsovlib._SUBMODULES - there <= {"fusion"}


def test_version_is_the_same_everywhere(repository: Path):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == rsovlib.__version__
    assert importlib.metadata.version("rsovlib") == rsovlib.__version__
    Version(rsovlib.__version__)


def test_citation_names_the_four_papers(repository: Path):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license", "references"} <= set(citation)
    papers = [r for r in citation["references"] if r["type"] in ("article", "conference-paper")]
    assert len(papers) == 4
    for paper in papers:
        assert paper["title"]
        assert all("family-names" in author for author in paper["authors"])
        assert re.fullmatch(r"\d{4}\.\d{5}", paper["identifiers"][0]["value"].removeprefix("arXiv:"))


def test_resources_come_from_the_checkout(repository: Path):
    assert resource("pyproject.toml") == repository / "pyproject.toml"
    assert resource("py.typed") == repository / "rsovlib" / "py.typed"
    with pytest.raises(InputError, match=r"'notebooks/none\.ipynb' does not come with"):
        resource("notebooks/none.ipynb")


def test_a_wheel_holds_all_that_the_checkout_has(repository: Path, tmp_path: Path):
    """`pip install .` gives the same as `make setup`: models, notebooks, manifests and the command."""
    code = f"import hatchling.build; print(hatchling.build.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        held = set(wheel.namelist())
        commands = wheel.read(f"rsovlib-{rsovlib.__version__}.dist-info/entry_points.txt").decode()
    assert "rsovlib = rsovlib.cli:main" in commands
    for folder, suffixes in {
        "rsovlib": (".py", ".typed", ".yaml", ".json", ".md", ".gz", ".j2", ".safetensors"),
        "notebooks": (".ipynb",),
        "data_manifests": (".yaml",),
    }.items():
        for path in (repository / folder).rglob("*"):
            if path.suffix in suffixes and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
                name = path.relative_to(repository).as_posix()
                assert (name if folder == "rsovlib" else f"rsovlib/{name}") in held
    assert not [name for name in held if name.startswith(("tests", "notebooks", "tools"))]


SPECIAL = ["two words.tif", "a'b\".tif", "$HOME `id` $(id).tif", "x; echo bad", "ü, ß; “quoted”", ""]


@pytest.mark.parametrize("value", SPECIAL)
def test_make_demo_hands_arguments_over_unchanged(repository: Path, tmp_path: Path, value: str):
    """What `make demo` would run, with a Python in its place that only prints its arguments."""
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys, json; print(json.dumps(sys.argv[1:]))" "$@"\n')
    fake.chmod(0o755)
    stamp = tmp_path / "installed-here"
    stamp.write_text(f"{repository}\n")
    variables = [f"IMAGE={value}", f"CLASSES={value}", "OUT=an out", f"VENV={tmp_path}"]
    # A stray variable of the environment is no argument.
    environment = {**os.environ, "IMAGE": "stray", "CLASSES": "stray", "MAKEFLAGS": ""}
    command = ["make", "--no-print-directory", "-o", "pyproject.toml", "-o", "constraints.txt", "demo", *variables]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=True)
    options = ["--image", value, "--classes", value] if value else []
    assert json.loads(done.stdout) == ["-m", "rsovlib.experiments.demo", "--out", "an out", *options]
