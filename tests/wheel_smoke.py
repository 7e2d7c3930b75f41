"""Smoke test of the built wheel, run outside the tree: `python -P wheel_smoke.py SITE TREE`.

SITE is the folder that the wheel was installed into, first on the path; TREE is the repository
that it was built from.
"""

import importlib
import os
import sys
from importlib.metadata import PathDistribution, distributions
from pathlib import Path

SUFFIXES = {".py", ".pyi", ".json", ".safetensors", ".typed"}


def package_files(root: Path) -> set[str]:
    """Files that belong to the package below `root/invdiff`, links followed."""
    found = set()
    for parent, _, names in os.walk(root / "invdiff", followlinks=True):
        files = [Path(parent, name) for name in names]
        found |= {
            path.relative_to(root).as_posix()
            for path in files
            if path.suffix in SUFFIXES or path.parent == root / "invdiff" / "data"
        }
    return found


def check_contents(site: Path, tree: Path) -> None:
    """The wheel holds every file of the package and nothing beside it at the top level."""
    top = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert top <= {"invdiff", "bin"}, f"the wheel installs more than invdiff: {sorted(top)}"
    missing = package_files(tree) - package_files(site)
    assert not missing, f"missing from the wheel: {sorted(missing)}"
    for pattern in (
        "py.typed",
        "__init__.pyi",
        "operators/__init__.pyi",
        "priors/weights/*.safetensors",
        "priors/weights/*.json",
    ):
        assert list((site / "invdiff").glob(pattern)), f"the wheel has no invdiff/{pattern}"
    assert not [path for path in site.rglob("*") if path.is_symlink()], "links in the wheel"


def check_imports(site: Path) -> PathDistribution:
    """`invdiff` comes from the wheel; the bare names are refused; every entry point loads."""
    invdiff = importlib.import_module("invdiff")
    assert Path(invdiff.__file__).is_relative_to(site), f"imported {invdiff.__file__}"
    for name in ("operators", "priors"):
        package = importlib.import_module(f"invdiff.{name}")
        assert Path(package.__file__).is_relative_to(site), f"imported {package.__file__}"
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        raise AssertionError(f"import {name} must fail")
    (installed,) = distributions(name="invdiff", path=[str(site)])
    assert installed.version == invdiff.__version__
    for entry_point in installed.entry_points:
        entry_point.load()
    return installed


def main() -> None:
    """Run every check; an AssertionError ends the run with a non-zero status."""
    site, tree = (Path(argument).resolve() for argument in sys.argv[1:])
    check_contents(site, tree)
    installed = check_imports(site)
    n_files = len(package_files(site))
    print(f"wheel {installed.version}: {n_files} files, {len(installed.entry_points)} entry points")


if __name__ == "__main__":
    main()
