"""What Devito needs of the machine; what is missing, locked or overloaded is told, not hung on."""

from __future__ import annotations

import builtins
import os
import sys
import time
from pathlib import Path

import pytest

from invdiff.errors import InputError, InvdiffError, MissingDependencyError, UnsupportedError
from invdiff.operators.seismic import Threads
from invdiff.operators.seismic.environment import (
    available_cores,
    check_compiler,
    check_lock,
    check_threads,
    load_devito,
)
from tests.support.seismic_cases import acoustic, domain, line, model

pytestmark = pytest.mark.seismic


def assert_tells(error: InvdiffError) -> None:
    for part in (error.what, error.got, error.expected, error.hint):
        assert part is not None
        assert str(part) in str(error)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compilation cache for this test alone."""
    devito = pytest.importorskip("devito")
    folder = tmp_path / "codepy"
    folder.mkdir()
    compiler = type(devito.configuration["compiler"])
    monkeypatch.setattr(compiler, "get_codepy_dir", lambda self: folder)
    return folder


def make_lock(folder: Path, *, age: float) -> Path:
    folder.mkdir(exist_ok=True)
    lock = folder / "lock"
    lock.touch()
    then = time.time() - age
    os.utime(lock, (then, then))
    return lock


# ---------------------------------------------------------------- Devito and its compiler


def test_devito_is_loaded_quietly(own_cache: Path) -> None:
    assert load_devito().configuration["log-level"] == os.environ.get("DEVITO_LOGGING", "WARNING")


def test_missing_devito(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "devito"]:
        monkeypatch.delitem(sys.modules, name)
    imported = builtins.__import__

    def without_devito(name: str, *args: object) -> object:
        if name.partition(".")[0] == "devito":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_devito)
    with pytest.raises(MissingDependencyError, match="Devito") as raised:
        acoustic()
    assert_tells(raised.value)
    assert "invdiff[seismic]" in raised.value.hint
    assert "Deepwave" in raised.value.hint


def test_missing_compiler(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(own_cache))
    with pytest.raises(MissingDependencyError, match="C compiler") as raised:
        acoustic()
    assert_tells(raised.value)
    assert "gcc" in raised.value.hint


def test_compiler_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "some-cc"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check_compiler("some-cc")
    with pytest.raises(MissingDependencyError, match="other-cc"):
        check_compiler("other-cc")


# ---------------------------------------------------------------- the compilation cache


@pytest.mark.parametrize("place", [".", "6643e03"])
def test_stale_lock(own_cache: Path, place: str) -> None:
    lock = make_lock(own_cache / place, age=3600)
    with pytest.raises(UnsupportedError, match="locked") as raised:
        acoustic()
    assert_tells(raised.value)
    assert str(lock) in str(raised.value)
    lock.unlink()
    acoustic()


def test_stale_lock_before_a_solve(own_cache: Path) -> None:
    """The lock may come after the operator was built."""
    operator = acoustic(line(n_samples=201), domain((25, 31)))
    make_lock(own_cache / "1f652f3", age=3600)
    with pytest.raises(UnsupportedError, match="locked"):
        operator(model((25, 31)))


def test_lock_of_a_compilation_at_work(own_cache: Path) -> None:
    make_lock(own_cache / "6643e03", age=5)
    check_lock(own_cache)


def test_no_cache_yet(tmp_path: Path) -> None:
    check_lock(tmp_path / "absent")


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("check", [check_threads, Threads])
@pytest.mark.parametrize("n", [0, -1, 10_000])
def test_refused_threads(check: type[Threads], n: int) -> None:
    with pytest.raises(InputError, match="threads") as raised:
        check(n)
    assert_tells(raised.value)


def test_as_many_threads_as_two_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "invdiff.operators.seismic.environment.available_cores"
    for cores, limit in ((1, 4), (2, 4), (16, 32)):
        monkeypatch.setattr(where, lambda cores=cores: cores)
        for n in (1, 4, limit):
            check_threads(n)
        with pytest.raises(InputError, match="oversubscribed") as raised:
            check_threads(limit + 1)
        assert raised.value.hint.startswith(f"Use {cores}:")


def test_openmp_settings_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels have no parallel regions, whatever these say."""
    monkeypatch.setenv("DEVITO_LANGUAGE", "openmp")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    check_threads(4)


@pytest.mark.parametrize(
    ("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
)
def test_quota_of_a_container(tmp_path: Path, quota: str, expected: int | None) -> None:
    everything = available_cores(tmp_path / "absent")
    assert everything >= 1
    file = tmp_path / "cpu.max"
    file.write_text(quota + "\n")
    assert available_cores(file) == (expected or everything)
