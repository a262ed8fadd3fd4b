"""`SpecTree`: the specs of a commit, the index, the disk and a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.errors import SpecError
from mtf.git.repo import GitRepo
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.spec.schema.settings import Settings
from tests.cli.specs import BASE, GRID, SINGLE
from tests.repos import Repo, make_repo

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mtf.spec.load import Loaded

pytest.importorskip("hydra")  # for config groups
FILES = {
    "mtf.yaml": "slurm: {mem: 3G}\n",
    "conf/optimizer/quick.yaml": "type: sgd\nlr: 0.25\n",
    "experiments/alone.yaml": SINGLE,
    "experiments/base.yaml": BASE,
    "experiments/search.yaml": GRID,
    "experiments/grouped.yaml": SINGLE.replace("alone", "grouped").replace(
        "optimizer: {type: adamw, lr: 1e-3}\n", "defaults: [{optimizer: quick}, _self_]\n"
    ),
    "experiments/notes.txt": "not a spec\n",
}
OTHER = {
    "mtf.yaml": "slurm: {mem: 5G}\n",
    "conf/optimizer/quick.yaml": "type: sgd\nlr: 0.5\n",
    "experiments/alone.yaml": SINGLE.replace("1e-3", "2e-3"),
    "experiments/new.yaml": SINGLE.replace("alone", "new"),
}


class CountingRepo(GitRepo):
    """A repository that counts the objects that are read from it."""

    read_ids: list[str]

    def blobs(self, oids: Iterable[str], most: int | None = None) -> dict[str, bytes]:
        wanted = list(oids)
        self.read_ids = [*getattr(self, "read_ids", []), *wanted]
        return super().blobs(wanted, most)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "r", FILES)


def head(repo: Repo) -> CommitId:
    return CommitId(repo.git("rev-parse", "HEAD"))


def configs(loaded: Loaded) -> dict[str, object]:
    """Return the configuration of each experiment, by its name."""
    assert not loaded.problems
    return {f"{d.name}/{e.name}": e.config for d in loaded.desired for e in d.experiments}


def test_the_same_files_load_the_same_from_commit_index_and_disk(repo: Repo) -> None:
    git = GitRepo(repo.path)
    trees = [SpecTree.at(git, head(repo)), SpecTree.of_index(git), SpecTree.on_disk(repo.path)]
    first, *others = (configs(tree.load_all()) for tree in trees)
    assert len(first) == 6
    assert others == [first, first]
    assert {frozenset(tree.specs) for tree in trees} == {
        frozenset(p for p in FILES if p.startswith("experiments/") and p.endswith(".yaml"))
    }
    assert [tree.problems for tree in trees] == [()] * 3


def test_a_commit_the_index_and_the_disk_do_not_mix(repo: Repo) -> None:
    old = configs(SpecTree.at(GitRepo(repo.path), head(repo)).load_all())
    repo.write(OTHER)
    repo.git("add", "-A")
    staged = configs(SpecTree.on_disk(repo.path).load_all())
    repo.write(FILES)
    (repo.path / "experiments/new.yaml").unlink()
    assert configs(SpecTree.at(GitRepo(repo.path), head(repo)).load_all()) == old
    assert configs(SpecTree.of_index(GitRepo(repo.path)).load_all()) == staged != old
    assert configs(SpecTree.on_disk(repo.path).load_all()) == old


def test_some_specs_load_without_the_others(repo: Repo) -> None:
    repo.commit({"experiments/broken.yaml": "kind: [\n"})
    tree = SpecTree.at(GitRepo(repo.path), head(repo))
    loaded = tree.load(["experiments/search.yaml", "experiments/gone.yaml"])
    assert [d.name for d in loaded.desired] == ["search"]
    assert not loaded.problems
    assert {p.path for p in tree.load_all().problems} == {"experiments/broken.yaml"}


def test_specs_are_read_when_first_used_and_groups_when_a_spec_names_one(repo: Repo) -> None:
    git = CountingRepo(repo.path)
    tree = SpecTree.at(git, head(repo))
    assert tree.settings.slurm_defaults()["mem"] == "3G"
    assert not hasattr(git, "read_ids")
    tree.load(["experiments/alone.yaml"])
    assert len(git.read_ids) == 5  # the files in the folder of specs
    tree.load(["experiments/search.yaml"])
    assert len(git.read_ids) == 5
    tree.load(["experiments/grouped.yaml"])
    assert len(git.read_ids) == 6


def test_files_that_a_similar_tree_has_read_are_not_read_again(repo: Repo) -> None:
    git = CountingRepo(repo.path)
    before = SpecTree.at(git, head(repo))
    assert len(before.specs) == 4
    repo.commit({"experiments/alone.yaml": SINGLE.replace("1e-3", "2e-3")})
    git.read_ids.clear()
    after = SpecTree.at(git, head(repo), like=before)
    assert b"2e-3" in after.specs["experiments/alone.yaml"]
    assert len(git.read_ids) == 1
    assert after.time == before.time
    assert configs(after.load_all()) == configs(SpecTree.at(git, head(repo)).load_all())


def test_wrong_settings_are_reported_and_the_defaults_used(repo: Repo) -> None:
    repo.commit({"mtf.yaml": "brunch: main\n"})
    git = GitRepo(repo.path)
    for tree in (SpecTree.at(git, head(repo)), SpecTree.of_index(git), SpecTree.on_disk(repo.path)):
        assert tree.settings == Settings()
        assert "Did you mean 'branch'?" in str(tree.problems[0])
        assert configs(tree.load(["experiments/alone.yaml"]))
        with pytest.raises(SpecError, match="branch"):
            tree.checked()


def test_without_settings_the_defaults_apply(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"experiments/alone.yaml": SINGLE})
    tree = SpecTree.at(GitRepo(repo.path), head(repo))
    assert tree.checked() is tree
    assert tree.settings == Settings()


def test_a_spec_that_is_no_regular_file_is_a_problem(repo: Repo, tmp_path: Path) -> None:
    (repo.path / "experiments/link.yaml").symlink_to(tmp_path / "r/experiments/alone.yaml")
    repo.git("add", "-A")
    module = f"160000,{head(repo)},experiments/module.yaml"
    repo.git("update-index", "--add", "--cacheinfo", module)
    repo.git("commit", "-qm", "odd")
    git = GitRepo(repo.path)
    link = "experiments/link.yaml:1:1: a symbolic link: a spec must be a file"
    module = "experiments/module.yaml:1:1: a submodule: a spec must be a file"
    for tree in (SpecTree.at(git, head(repo)), SpecTree.of_index(git)):
        assert list(map(str, tree.problems)) == [link, module]
        assert len(tree.specs) == 4
    assert list(map(str, SpecTree.on_disk(repo.path).problems)) == [link]


def test_paths_on_disk_are_relative_to_the_users_folder(repo: Repo) -> None:
    folder = repo.path / "experiments" / "deep"
    folder.mkdir()
    (folder / "own.yaml").write_text(SINGLE.replace("alone", "own"))
    tree = SpecTree.on_disk(folder)
    assert {"../alone.yaml", "own.yaml"} <= set(tree.specs)
    assert "own/own" in configs(tree.load(["own.yaml"]))


def test_other_folders_on_disk_can_be_read_as_well(repo: Repo, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "own.yaml").write_text(SINGLE.replace("alone", "own"))
    assert "../outside/own.yaml" not in SpecTree.on_disk(repo.path).specs
    tree = SpecTree.on_disk(repo.path, also=[outside])
    assert {"../outside/own.yaml", "experiments/alone.yaml"} <= set(tree.specs)


def test_a_value_is_a_spec_with_the_settings_and_groups_given(repo: Repo) -> None:
    tree = SpecTree.at(GitRepo(repo.path), head(repo))
    value = {
        "kind": "experiment",
        "experiment_name": "one",
        "defaults": [{"optimizer": "quick"}, "_self_"],
        "model": {"type": "mlp"},
        "data": {"dataset_name": "digits"},
    }
    (one,) = SpecTree.of_value(value, tree.settings, tree.groups).load([VALUE]).desired
    config = one.experiments[0].config
    assert config["optimizer"]["lr"] == 0.25
    assert config["slurm"]["mem"] == "3G"
