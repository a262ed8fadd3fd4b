"""`SLURMLauncher`: submits configurations, and shows the job script of each."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.commands.submit_from_python import write_script
from mtf.errors import MtfError, SpecError
from mtf.executor.template_names import TEMPLATES, shipped_templates
from mtf.framework.execution import mode_of
from mtf.framework.given_values import as_plain
from mtf.framework.submitter import Submitter
from mtf.project.project import Project, open_project

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import RunId
    from mtf.framework.execution import ExecutionMode
    from mtf.framework.experiment_values import Config
    from mtf.framework.run_handles import Run, Submission

_NAME = TEMPLATES["slurm"]
_IN_REPOSITORY = f"templates/{_NAME}"


class SBATCHTemplate:
    """A Jinja2 template of job scripts for SLURM.

    Attributes:
        path: of its file, None for the template of mtf.
        text: of the template.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Read a template; a folder means the ``job.sbatch.j2`` in it.

        Raises:
            MtfError: it cannot be read.
        """
        self.path = None if path is None else Path(path)
        if self.path is None:
            self.text = shipped_templates()[_NAME]
            return
        self.path = self.path / _NAME if self.path.is_dir() else self.path
        try:
            self.text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            why = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
            raise MtfError(f"template_path: {self.path} cannot be read: {why}") from e

    @property
    def by_name(self) -> dict[str, str]:
        """Return the template under the name that job scripts are rendered by."""
        return {_NAME: self.text}


@dataclass(frozen=True)
class BatchSubmissionResult:
    """The runs of a batch: those that the executor has, and those that it refused."""

    submission: Submission = field(repr=False)
    refused: Mapping[RunId, str]  # -> the reason

    @property
    def runs(self) -> list[Run]:
        """Return a handle on each run that the executor has."""
        return [run for run in self.submission if run.id not in self.refused]

    @property
    def job_ids(self) -> list[str]:
        """Return the job ids of these runs; a run that is not in the queue yet has none."""
        return [str(run) for run in self.runs if run.submitted_as is not None]

    @property
    def success(self) -> bool:
        """Return True if no run was refused."""
        return not self.refused

    def wait(self, every: float | None = None, *, progress: bool = True) -> None:
        """Reconcile these runs until they are over; see ``Submission.wait``."""
        self.submission.wait(every, progress=progress)

    def __iter__(self) -> Iterator[Run]:
        """Yield a handle on each run that the executor has."""
        return iter(self.runs)

    def __len__(self) -> int:
        """Return the number of runs that the executor has."""
        return len(self.runs)


class SLURMLauncher:
    """Submits configurations with the job scripts of a template, to the executor of mtf.yaml.

    Attributes:
        template: of the job scripts, None for that of the commit.
        project_root: the folder with mtf.yaml.
        submitter: resolves and submits configurations.
    """

    def __init__(
        self,
        template_path: str | Path | None = None,
        project_root: str | Path | Project = ".",
    ) -> None:
        """Open the repository that contains ``project_root``.

        Args:
            template_path: a template of job scripts in place of the repository's. Jobs that a later
                sync submits for the same runs have the repository's, so commit it there as well.
            project_root: a folder in the repository.

        Raises:
            MtfError: there is no repository or template, or the repository has no commit.
        """
        if isinstance(project_root, Project):
            project = project_root
        else:
            project = open_project(Path(project_root))
        self.template = None if template_path is None else SBATCHTemplate(template_path)
        self.project_root = project.root
        self.submitter = Submitter(project, self.template.by_name if self.template else None)

    def submit_single_experiment(self, config: Config, mode: ExecutionMode | None = None) -> Run:
        """Submit one configuration and return its run, which equals its job id.

        Raises:
            ConfigurationError: it contains mistakes, or names what HEAD does not have.
            MtfError: it was not submitted.
        """
        (run,) = self.submit_experiments([config], mode)
        return run

    def submit_experiments(
        self, configs: Iterable[Config], mode: ExecutionMode | None = None
    ) -> list[Run]:
        """Submit configurations and return their runs, each of which equals its job id.

        Raises:
            ConfigurationError: one contains mistakes, or names what HEAD does not have; nothing was
                submitted.
            MtfError: the executor refused some of them; the message says which.
        """
        done = self.submit_experiment_batch(configs, mode)
        if done.refused:
            raise MtfError("\n".join(f"{run}: {why}" for run, why in done.refused.items()))
        return done.runs

    def submit_experiment_batch(
        self, configs: Iterable[Config], mode: ExecutionMode | None = None
    ) -> BatchSubmissionResult:
        """Submit configurations together, and return what became of each.

        Raises:
            ConfigurationError: one contains mistakes, or names what HEAD does not have; nothing was
                submitted.
            MtfError: nothing was submitted.
        """
        submitter = self.submitter.pinned(mode_of(mode), snapshot=False)
        wanted = submitter.experiments(configs)
        with self._naming_template():
            outcome = submitter.submit(wanted, mode_of(mode))
        return BatchSubmissionResult(outcome.submission, outcome.refused)

    def generate_sbatch_script(
        self, config: Config, context: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the job script of a configuration to a file, and return its path.

        It is the script that a sync would submit now, but for the token, which each job has anew.
        The file lies in mtf's own folder of the clone; the next script of the experiment replaces
        it.

        Args:
            config: whose script to write.
            context: further values for the template. ``run`` and ``token`` stand for those of a
                recorded run, whose script is then the result.

        Raises:
            ConfigurationError: the configuration contains mistakes.
            MtfError: the template is broken.
        """
        desired = self.submitter.draft(config)
        given = as_plain(context or {}, "context")
        templates = self.submitter.templates
        with self._naming_template():
            return write_script(self.submitter.project, desired, templates, given)

    @contextmanager
    def _naming_template(self) -> Iterator[None]:
        """Name the launcher's own template in messages about it."""
        try:
            yield
        except SpecError:
            raise
        except MtfError as e:
            path = self.template and self.template.path
            if path is None or _IN_REPOSITORY not in str(e):
                raise
            raise MtfError(str(e).replace(_IN_REPOSITORY, str(path))) from None
