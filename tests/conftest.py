"""One thread a process, no display, and the way to the real data."""

import os
from pathlib import Path

# Before torch, numpy or matplotlib is imported: make test runs one process a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# The first example pays for imports, so no deadline; in CI the examples are the same every time.
settings.register_profile("invdiff", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("invdiff")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of small real data sets beside the repository, or $INVDIFF_DATA."""
    folder = Path(os.environ.get("INVDIFF_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set INVDIFF_DATA to the folder that has them")
    return folder
