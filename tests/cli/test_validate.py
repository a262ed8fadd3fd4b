"""`mtf validate`: on disk, staged, of revisions and ranges; lines, formats and exit codes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import SINGLE
from tests.repos import Repo, make_repo

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = SINGLE.replace("max_epochs: 1", "max_epoch: 1")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "r", {"mtf.yaml": "", "experiments/alone.yaml": SINGLE})


def test_a_typo_is_reported_at_its_line_with_the_nearest_name(repo: Repo) -> None:
    repo.write({"experiments/alone.yaml": BROKEN})
    done = mtf(repo.path, "validate", code=1)
    assert done.stdout.startswith("experiments/alone.yaml:5:")
    assert "max_epochs" in done.stdout


def test_named_files_are_checked_alone_and_need_no_repository(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(SINGLE)
    (tmp_path / "bad.yaml").write_text(BROKEN)
    mtf(tmp_path, "validate", "good.yaml")
    assert mtf(tmp_path, "validate", "good.yaml", "bad.yaml", code=1).stdout.startswith(
        "bad.yaml:5:"
    )


def test_problems_can_be_printed_for_machines(repo: Repo) -> None:
    repo.write({"experiments/alone.yaml": BROKEN})
    (problem,) = mtf_json(repo.path, "validate", "--format", "json", code=1)
    assert (problem["path"], problem["line"]) == ("experiments/alone.yaml", 5)
    assert mtf(repo.path, "validate", "--format", "github", code=1).stdout.startswith(
        "::error file=experiments/alone.yaml,line=5,col="
    )


def test_staged_checks_the_index_not_the_disk(repo: Repo) -> None:
    repo.write({"experiments/alone.yaml": BROKEN})
    repo.git("add", "-A")
    repo.write({"experiments/alone.yaml": SINGLE})
    mtf(repo.path, "validate")
    mtf(repo.path, "validate", "--staged", code=1)
    repo.git("add", "-A")
    repo.write({"experiments/alone.yaml": BROKEN})
    mtf(repo.path, "validate", "--staged")


def test_a_revision_is_checked_whole_and_a_range_for_what_it_changes(repo: Repo) -> None:
    bad = repo.commit({"experiments/alone.yaml": BROKEN})
    good = repo.commit(
        {
            "experiments/alone.yaml": SINGLE,
            "experiments/other.yaml": BROKEN.replace("alone", "other"),
        }
    )
    mtf(repo.path, "validate", "--rev", bad, code=1)
    mtf(repo.path, "validate", "--range", f"{bad}..{good}", code=1)
    last = repo.commit({"experiments/alone.yaml": SINGLE.replace("1e-3", "2e-3")})
    mtf(repo.path, "validate", "--range", f"{good}..{last}")


def test_validating_imports_no_heavy_package(repo: Repo) -> None:
    heavy = {"torch", "lightning", "wandb", "hydra", "numpy", "rich", "git", "jinja2"}
    code = f"""
import sys
sys.argv = ["mtf", "validate"]
from mtf.cli.main import cli
cli.main(standalone_mode=False)
found = {heavy} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], cwd=repo.path, check=True)


def test_init_from_must_name_a_known_run(repo: Repo) -> None:
    tuned = SINGLE.replace("alone", "tuned") + "init_from: aloen\n"
    repo.write({"experiments/tuned.yaml": tuned})
    place = f"experiments/tuned.yaml:{tuned.count(chr(10))}:12: init_from: no run or spec"
    for words in (["validate"], ["validate", "experiments/tuned.yaml"]):
        output = mtf(repo.path, *words, code=1).stdout
        assert output.startswith(place)
        assert "Did you mean 'alone'?" in output
    repo.git("add", "-A")
    assert mtf(repo.path, "validate", "--staged", code=1).stdout.startswith(place)
    repo.write({"experiments/alone.yaml": BROKEN})  # its name may be the right one
    repo.write({"experiments/tuned.yaml": tuned.replace("aloen", "alone")})
    assert "init_from" not in mtf(repo.path, "validate", code=1).stdout
    # the remote may have a ledger that was never fetched
    repo.git("checkout", "-q", "experiments/alone.yaml")
    repo.write({"experiments/tuned.yaml": tuned})
    repo.git("remote", "add", "origin", "elsewhere")
    mtf(repo.path, "validate")


def test_a_circle_of_init_from_is_reported_before_it_is_committed(repo: Repo) -> None:
    repo.commit({"experiments/tuned.yaml": SINGLE.replace("alone", "tuned") + "init_from: alone\n"})
    repo.write({"experiments/alone.yaml": SINGLE + "init_from: tuned\n"})
    repo.git("add", "-A")
    output = mtf(repo.path, "validate", "--staged", code=1).stdout
    assert "init_from: alone waits for tuned waits for alone, so none of them" in output
    assert "experiments/tuned.yaml" not in output


def test_a_symbolic_link_is_reported_and_not_followed(repo: Repo) -> None:
    outside = repo.path.parent / "outside.yaml"
    outside.write_text(BROKEN)
    (repo.path / "experiments/link.yaml").symlink_to(outside)
    assert mtf(repo.path, "validate", code=1).stdout == (
        "experiments/link.yaml:1:1: a symbolic link: a spec must be a file\n"
    )


def test_warnings_alone_exit_with_0(repo: Repo) -> None:
    doubtful = SINGLE.replace("num_workers: 0", "num_workers: 4")
    repo.commit({"experiments/alone.yaml": doubtful})
    for words in ([], ["experiments/alone.yaml"], ["--rev", "HEAD"], ["--range", "HEAD~1..HEAD"]):
        done = mtf(repo.path, "validate", *words, code=0)
        assert "warning: data.num_workers" in done.stdout
        assert done.stderr.startswith("1 warning in ")
    repo.write({"experiments/alone.yaml": doubtful.replace("max_epochs", "max_epoch")})
    repo.git("add", "-A")
    assert "max_epochs" in mtf(repo.path, "validate", "--staged", code=1).stdout
