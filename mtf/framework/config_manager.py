"""`ConfigurationManager`: the committed configurations of a repository."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.commands.uncommitted import noticing_uncommitted
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import MtfError, SpecError
from mtf.framework.experiment_values import as_config
from mtf.framework.submitter import Submitter
from mtf.framework.validator import ConfigValidator
from mtf.project.project import Project, open_project
from mtf.project.spec_tree import SpecTree

if TYPE_CHECKING:
    from mtf.core.vocabulary.experiments import Desired
    from mtf.framework.experiment_values import Config
    from mtf.framework.validator import ValidationResult
    from mtf.spec.schema.experiment_config import ExperimentConfig

_log = logging.getLogger("mtf")


class ConfigurationManager:
    """Lists and loads the specs at HEAD, the commit that a program's runs are pinned to."""

    def __init__(self, root: str | Path | Project = ".") -> None:
        """Open the repository that contains ``root``.

        Raises:
            RepositoryError: there is none, or it has no commit.
        """
        self._project = root if isinstance(root, Project) else open_project(Path(root))
        self._submitter = Submitter(self._project)

    def list(self) -> list[str]:
        """Return the names of the experiments and grids, without those that have mistakes."""
        return sorted(desired.name for desired in self._tree().load_all().desired)

    def load(self, name: str) -> ExperimentConfig:
        """Return an experiment with all defaults.

        Args:
            name: of the experiment, or the path of its file in the repository; ``grid/member`` for
                a member of a grid.

        Raises:
            MtfError: there is no such experiment.
            SpecError: it contains mistakes.
        """
        grid, slash, member = name.partition("/")
        desired = self._find(name) or (self._find(grid) if slash else None)
        if desired is None:
            raise MtfError(f"no spec at HEAD is named {name!r}. {self._known(name)}")
        found = [e for e in desired.experiments if e.grid is None or e.name == member]
        if not found:
            members = [f"{desired.name}/{e.name}" for e in desired.experiments]
            raise MtfError(
                f"{desired.name} is a grid of {len(members)} experiments: load_grid loads them"
                f" all. {did_you_mean(name, members)}".rstrip()
            )
        return as_config(desired, found[0], has_slurm=self._submitter.asks_for_more(found[0]))

    def load_grid(self, name: str) -> tuple[ExperimentConfig, ...]:
        """Return the members of a grid, or an experiment alone; see ``load``."""
        desired = self._find(name)
        if desired is None:
            raise MtfError(f"no spec at HEAD is named {name!r}. {self._known(name)}")
        return tuple(
            as_config(desired, e, has_slurm=self._submitter.asks_for_more(e))
            for e in desired.experiments
        )

    def resolve(self, config: Config) -> ExperimentConfig:
        """Return a configuration with all defaults of mtf and of mtf.yaml.

        Raises:
            ConfigurationError: it contains mistakes; the error has all of them.
        """
        return self._submitter.config(config)

    def validate(self, config: Config) -> ValidationResult:
        """Return the errors and warnings of a configuration, under the repository's settings."""
        return ConfigValidator(self._project.settings).validate_config(config)

    def _tree(self) -> SpecTree:
        """Return the specs at HEAD; what is not committed is said, since it is not among them."""
        repo = self._project.repo
        with noticing_uncommitted(self._project) as uncommitted:
            tree = SpecTree.at(repo, repo.commit("HEAD"))
            for note in uncommitted():
                _log.warning("note: %s", note)
        return tree.checked()

    def _find(self, name: str) -> Desired | None:
        """Return the spec with a name, or at a path.

        Raises:
            SpecError: it has mistakes.
        """
        tree = self._tree()
        if name in tree.texts:
            loaded = tree.load([name])
            if any(problem.is_error for problem in loaded.problems):
                raise SpecError(list(loaded.problems))
            return next(iter(loaded.desired), None)
        loaded = tree.load_all()
        found = next((desired for desired in loaded.desired if desired.name == name), None)
        if found is None and (name in loaded.names or loaded.unread):
            raise SpecError([problem for problem in loaded.problems if problem.is_error])
        return found

    def _known(self, name: str) -> str:
        return did_you_mean(name, self.list()) or "There are no specs at HEAD: commit one"
