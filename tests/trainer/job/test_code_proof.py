"""A job refuses to run anything but the pinned commit."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING

import pytest

from mtf.spec.schema.run_config import RunInfo
from mtf.trainer.job.code_proof import (
    Pinned,
    RefusedError,
    packages,
    proof_facts,
    prove_checkout,
    prove_modules,
    put_first,
)
from tests.trainer.runs import write_checkout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILES = {
    "zoo/__init__.py": "",
    "zoo/lion.py": "name = 'pinned'\n",
    "src/reef/__init__.py": "",
    "folder/deep/data.txt": "1\n",
}


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    """Return a run whose checkout is as it should be."""
    commit, folder, manifest = write_checkout(tmp_path / "runs", FILES)
    (tmp_path / "live").mkdir()
    return RunInfo(
        run="r",
        submission="s",
        experiment="e",
        grid=None,
        key="k",
        commit=commit,
        code_dir=str(folder),
        manifest=str(manifest),
        repository=str(tmp_path / "live"),
    )


@pytest.fixture
def code(tmp_path: Path, info: RunInfo) -> Path:
    return tmp_path / "runs" / ".code" / info.commit


@pytest.fixture
def imports() -> Iterator[None]:
    """Forget what the test imports."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_an_untouched_checkout_is_proved(info: RunInfo, code: Path) -> None:
    (code / "zoo" / "__pycache__").mkdir()
    (code / "zoo" / "__pycache__" / "lion.cpython-311.pyc").write_bytes(b"compiled")
    pinned = prove_checkout(info)
    assert pinned.files == set(FILES)
    facts = proof_facts(pinned, 3)
    assert (facts["commit"], facts["modules"]) == (info.commit, 3)
    assert len(facts["tree"]) == 40


def changed(code: Path) -> str:
    (code / "zoo" / "lion.py").write_text("name = 'Pinned'\n")
    return "zoo/lion.py has other content than at commit"


def missing(code: Path) -> str:
    (code / "zoo" / "lion.py").unlink()
    return r"zoo/lion.py cannot be read \(No such file or directory\)"


def added(code: Path) -> str:
    (code / "folder" / "results.csv").write_text("")
    return "folder/results.csv is not in commit"


def added_link(code: Path) -> str:
    (code / "more").symlink_to("/tmp")
    return "more is not in commit"


def linked(code: Path) -> str:
    content = (code / "zoo" / "lion.py").read_text()
    (code.parent / "elsewhere.py").write_text(content)
    (code / "zoo" / "lion.py").unlink()
    (code / "zoo" / "lion.py").symlink_to(code.parent / "elsewhere.py")
    return "zoo/lion.py is a symbolic link, unlike the file at"


def executable(code: Path) -> str:
    (code / "zoo" / "lion.py").chmod(0o755)
    return "zoo/lion.py has another file mode than"


@pytest.mark.parametrize("damage", [changed, missing, added, added_link, linked, executable])
def test_a_checkout_that_is_not_the_commit_is_refused(
    damage: Callable[[Path], str], info: RunInfo, code: Path
) -> None:
    message = damage(code)
    with pytest.raises(RefusedError, match=message):
        prove_checkout(info)


def test_a_manifest_that_was_adapted_to_the_damage_is_refused(info: RunInfo, code: Path) -> None:
    (code / "zoo" / "lion.py").unlink()
    manifest = json.loads((code.parent / f"{info.commit}.json").read_text())
    del manifest["files"]["zoo/lion.py"]
    (code.parent / f"{info.commit}.json").write_text(json.dumps(manifest))
    with pytest.raises(RefusedError, match="list of files is not that of commit"):
        prove_checkout(info)


def test_a_missing_manifest_is_refused(info: RunInfo, code: Path) -> None:
    (code.parent / f"{info.commit}.json").unlink()
    with pytest.raises(RefusedError, match="could not read the checkout's manifest"):
        prove_checkout(info)


def test_the_checkout_and_its_src_win_over_the_live_tree(
    info: RunInfo, code: Path, tmp_path: Path, imports: None
) -> None:
    (tmp_path / "live" / "zoo").mkdir()
    (tmp_path / "live" / "zoo" / "__init__.py").write_text("")
    (tmp_path / "live" / "zoo" / "lion.py").write_text("name = 'live'\n")
    sys.path.insert(0, str(tmp_path / "live"))
    put_first(info)
    assert importlib.import_module("zoo.lion").name == "pinned"
    importlib.import_module("reef")
    assert prove_modules(prove_checkout(info)) == 3


@pytest.mark.parametrize("path", ["zoo/lion.py", "zoo/tiger.py"])
def test_a_module_of_the_live_tree_is_refused_with_the_cure(
    path: str, info: RunInfo, code: Path, tmp_path: Path, imports: None
) -> None:
    live = tmp_path / "live"
    (live / "zoo").mkdir()
    (live / "zoo" / "__init__.py").write_text("")
    (live / path).write_text("")
    pinned = prove_checkout(info)
    sys.path.insert(0, str(live))
    importlib.import_module(path.removesuffix(".py").replace("/", "."))
    with pytest.raises(RefusedError) as refused:
        prove_modules(pinned)
    message = str(refused.value)
    assert f"module zoo comes from {live}/zoo/__init__.py" in message
    assert f"instead of {code}/zoo/__init__.py" in message
    assert "an editable install of zoo pointing at the live work tree: pip uninstall zoo" in message


def test_what_the_commit_lacks_is_not_taken_from_the_live_tree(
    info: RunInfo, tmp_path: Path, imports: None
) -> None:
    (tmp_path / "live" / "desert.py").write_text("")
    sys.path.insert(0, str(tmp_path / "live"))
    importlib.import_module("desert")
    with pytest.raises(RefusedError, match=r"desert.py and not from the pinned checkout"):
        prove_modules(prove_checkout(info))


def test_another_commits_checkout_is_refused(info: RunInfo, tmp_path: Path, imports: None) -> None:
    _, other, _ = write_checkout(tmp_path / "runs", {"ocean.py": ""})
    sys.path.insert(0, str(other))
    importlib.import_module("ocean")
    with pytest.raises(RefusedError, match="module ocean comes from"):
        prove_modules(prove_checkout(info))


def test_an_environment_inside_the_repository_is_no_part_of_it(
    info: RunInfo, code: Path, tmp_path: Path, imports: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "live"
    for folder in (live / ".venv" / "lib", live / "other" / "site-packages"):
        folder.mkdir(parents=True)
        (folder / f"{folder.name[:4]}_tool.py").write_text("")
        sys.path.insert(0, str(folder))
    monkeypatch.setattr(sys, "prefix", str(live / ".venv"))
    importlib.import_module("lib_tool")
    importlib.import_module("site_tool")
    assert prove_modules(prove_checkout(info)) == 0


def test_a_namesake_from_elsewhere_is_refused(info: RunInfo, tmp_path: Path, imports: None) -> None:
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "reef.py").write_text("")
    sys.path.insert(0, str(tmp_path / "site-packages"))
    importlib.import_module("reef")
    with pytest.raises(RefusedError, match="another reef was imported before the checkout's"):
        prove_modules(prove_checkout(info))


def test_a_checkout_file_named_as_a_standard_module_is_no_mismatch(tmp_path: Path) -> None:
    _, folder, _ = write_checkout(tmp_path / "runs", {"json.py": "", "types.py": ""})
    pinned = Pinned(folder, tmp_path / "live", "c", "t", frozenset({"json.py", "types.py"}))
    assert prove_modules(pinned) == 0


def test_the_installed_packages_have_one_digest() -> None:
    found, digest = packages()
    assert found["pytest"] == pytest.__version__
    assert (found, digest) == packages()
