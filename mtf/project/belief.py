"""What a record says, and what of it mtf believes before it starts anything: the one door between.

Everybody who can push ``mtf/ledger`` can write records. A record is therefore never the reason to
run what nobody has committed: before another attempt of a run starts, and before a claim is given
up, the run must be one that this clone would have submitted itself. Its commit is in the history of
the tracked branch, signed where that is required; its folder is in a run root of this user; its
configuration is the one of its spec at that commit, or one that this user has submitted before.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import getuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.core.vocabulary.actions import Cancel, Resume
from mtf.core.vocabulary.experiments import EXECUTION, former_run_key, run_key
from mtf.core.vocabulary.ids import TIMESTAMP_FORMAT, is_inside
from mtf.errors import MtfError, RepositoryError, SpecError
from mtf.project.location.folder import at_commit
from mtf.project.signatures import check_signed
from mtf.project.spec_tree import SpecTree
from mtf.spec.schema.dotted_keys import path_of
from mtf.spec.set_overrides import CHANGEABLE, changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.vocabulary.actions import Action, Plan
    from mtf.core.vocabulary.experiments import Experiment
    from mtf.core.vocabulary.ids import CommitId, RunId
    from mtf.core.vocabulary.records import Attempt, RunRecord
    from mtf.git.repo import GitRepo
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.spec.schema.settings import Settings

# Keys that choose which programs a job runs, and where its metrics go. A change of them is believed
# if this user has made it.
_OWN = frozenset(
    {
        *(("slurm", key) for key in ("venv", "conda", "container", "modules", "variables")),
        *(("logging", key) for key in ("use_wandb", "wandb_entity", "wandb_project")),
    }
)
_NO_VALUE: tuple[Any, ...] = (None, False, [], {}, "")


@dataclass(frozen=True)
class Belief:
    """Judges records by what this clone knows for itself. Each commit and spec is judged once."""

    repo: GitRepo
    store: LedgerStore
    ledger: Ledger
    settings: Settings  # as committed now
    runs_root: Path  # of this clone
    tips: Mapping[str, CommitId]  # what may run: commits in the history of these, by their names
    _pins: dict[CommitId, str | None] = field(default_factory=dict)
    _specs: dict[tuple[CommitId, str, str], tuple[Experiment, ...]] = field(default_factory=dict)

    def sift(self, plan: Plan) -> Plan:
        """Return the plan without what its records alone ask for, and with a note on each."""
        notes: dict[RunId, str] = {}
        kept: list[Action] = []
        for action in plan.actions:
            problem = None
            if isinstance(action, Resume) or (isinstance(action, Cancel) and _gives_up(action)):
                problem = self.why_not(action.record)
            if problem is None:
                kept.append(action)
            else:
                notes[action.run] = f"{action.run} is left alone: {problem}"
        if not notes:
            return plan
        left, said = frozenset(notes), (*plan.notes, *notes.values())
        return replace(plan.only(tuple(kept)), notes=said, left_alone=left)

    def why_not(self, record: RunRecord) -> str | None:
        """Return the reason not to start another attempt of a run, None if it may start."""
        if (problem := self._folder_problem(record)) or (problem := self._origin_problem(record)):
            return problem
        try:
            submission = self.store.submission(self.ledger, record.submission)
        except RepositoryError as e:
            return str(e)
        shared = (submission.commit, submission.spec, submission.grid)
        if shared != (record.commit, record.spec, record.grid):
            return f"it contradicts the record of {record.submission}"
        configs = submission.configs
        if record.member not in configs:
            return f"the record of {record.submission} has no configuration for it"
        own = self._own_request(record, configs[record.member])
        # a program has submitted it, and no committed spec: this user's own request vouches for it
        is_ours = own is not None and not record.wanted
        if problem := self._commit_problem(record.commit, is_ours=is_ours):
            return problem
        if own is None:
            problem = self._config_problem(record, configs[record.member])
        return problem or self._changes_problem(record, configs[record.member], own)

    # -- the folder --------------------------------------------------------------------------------

    def _folder_problem(self, record: RunRecord) -> str | None:
        root = rundir.root_of(Path(record.run_dir), record.run)
        if root == self.runs_root or is_inside(str(root), str(self.runs_root)):
            return None
        with suppress(OSError):
            if (root / rundir.CODE).stat().st_uid == getuid():
                return None
        return f"its run root {root} is not one of this user. Run mtf sync where it is"

    def _origin_problem(self, record: RunRecord) -> str | None:
        """Return a problem if a run begins from a file that is none of the run it names."""
        origin = record.origin
        if origin is None:
            return None
        source = self.ledger.runs.get(origin.run)
        if source is None or not is_inside(origin.path, source.run_dir):
            return f"{origin.path}, from which it begins, is no checkpoint of {origin.run}"
        return None

    # -- the commit --------------------------------------------------------------------------------

    def _commit_problem(self, commit: CommitId, *, is_ours: bool) -> str | None:
        if commit not in self._pins:
            self._pins[commit] = self._signature_problem(commit)
        if (problem := self._pins[commit]) or is_ours:
            return problem
        if not any(self.repo.is_ancestor(commit, tip) for tip in self.tips.values()):
            branches = " or ".join(self.tips)
            self._pins[commit] = (
                f"its commit {commit[:8]} is not in the history of {branches}. If it should run,"
                " merge it, or name its branch in `policies.branches` of mtf.yaml"
            )
        return self._pins[commit]

    def _signature_problem(self, commit: CommitId) -> str | None:
        if self.repo.find_commit(commit) is None:
            return f"its commit {commit[:8]} is not in this clone"
        try:
            check_signed(self.repo, commit, self.settings.policies, self.ledger.runs.values())
        except SpecError as e:
            return e.problems[0].message
        return None

    # -- the configuration -------------------------------------------------------------------------

    def _own_request(self, record: RunRecord, config: Mapping[str, Any]) -> Attempt | None:
        """Return the newest attempt that this user has submitted with this configuration."""
        root = rundir.root_of(Path(record.run_dir), record.run)
        for attempt in reversed(record.attempts):
            folder = rundir.job_dir(root, record.submission, attempt.token)
            try:
                if (folder / rundir.CONFIGS).stat().st_uid != getuid():
                    continue
                request = rundir.read_config(folder, attempt.index)
                about = request.pop("mtf")
                is_it = (about["run"], about["commit"]) == (record.run, record.commit)
                if is_it and request == changed(config, attempt.changes):
                    return attempt
            except (OSError, ValueError, LookupError, TypeError, AttributeError, MtfError):
                continue  # there is none, or it is not what the record says
        return None

    def _config_problem(self, record: RunRecord, config: Mapping[str, Any]) -> str | None:
        """Return a problem if a configuration is not what the spec at the pinned commit says."""
        where = f"{record.spec} at {record.commit[:8]}"
        try:
            found = self._experiments(record)
            asked = self._with_trees(record, found)
            former = {former_run_key(e, trees): (e, trees) for e, trees in asked}
            keys = former | {run_key(e, trees): (e, trees) for e, trees in asked}
        except (MtfError, ValueError) as e:  # ValueError: an impossible time in its id
            return f"{where} cannot be read: {e}"
        if record.key not in keys:
            return f"{where} asks for no such run"
        experiment, trees = keys[record.key]
        try:
            is_same = run_key(replace(experiment, config=config), trees) == record.key
        except (TypeError, AttributeError):
            is_same = False
        wrong = None if is_same else "its values"
        for section in EXECUTION:
            wrong = wrong or _difference(
                section, config.get(section), experiment.config.get(section)
            )
        return wrong and f"its recorded configuration is not that of {where} ({wrong})"

    def _experiments(self, record: RunRecord) -> tuple[Experiment, ...]:
        """Return the experiments of a run's spec, as they were when it was submitted."""
        stamp = record.run.split("/")[1]
        key = record.commit, record.spec, stamp
        if key not in self._specs:
            now = datetime.strptime(stamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
            repo = at_commit(self.repo, record.commit)
            tree = SpecTree.at(repo, record.commit, now=now).checked()
            desired = tree.load([record.spec]).desired
            self._specs[key] = tuple(e for d in desired for e in d.experiments)
        return self._specs[key]

    def _with_trees(
        self, record: RunRecord, experiments: tuple[Experiment, ...]
    ) -> list[tuple[Experiment, dict[str, str]]]:
        paths = sorted({path for e in experiments for path in e.rerun_on})
        trees = at_commit(self.repo, record.commit).object_ids(record.commit, paths)
        return [(e, trees) for e in experiments]

    def _changes_problem(
        self, record: RunRecord, config: Mapping[str, Any], own: Attempt | None
    ) -> str | None:
        """Return a problem if a change is invalid, or is in ``_OWN`` and not made by this user."""
        changes = record.attempt.changes
        known = own.changes if own else {}
        paths = {key: path_of(key) for key in changes}
        foreign = [
            k for k, path in paths.items() if path[:2] in _OWN and changes[k] != known.get(k)
        ]
        foreign = [k for k in foreign if not self._is_asked_by_spec(record, paths[k], changes[k])]
        if foreign:
            shown = ", ".join(sorted(foreign))
            return (
                f"somebody else has set {shown} for it. To do so: mtf retry {record.run} --set ..."
            )
        if any(len(path) < 2 or path[0] not in CHANGEABLE for path in paths.values()):
            return "its record changes what is part of its identity"
        try:
            changed(config, changes)
        except (MtfError, LookupError, TypeError, ValueError) as e:
            return f"the changes in its record are invalid: {e}"
        return None

    def _is_asked_by_spec(self, record: RunRecord, path: tuple[str, ...], value: Any) -> bool:
        """Return True if a run's spec has this value now, on a branch that may run."""
        for tip in self.tips.values():
            with suppress(MtfError, ValueError, LookupError):
                for e in self._experiments(replace(record, commit=tip)):
                    if (e.grid, e.name) == (record.grid, record.experiment):
                        return bool(e.config[path[0]][path[1]] == value)
        return False


def _gives_up(action: Cancel) -> bool:
    """Return True if a cancellation that no person asked for gives up a claim."""
    return action.record.job_id is None and action.record.retry_at is None and not action.asked


def _difference(section: str, recorded: Any, committed: Any) -> str | None:
    """Return the key at which a recorded section is not the committed one, None if it is."""
    if not (isinstance(recorded, dict) and isinstance(committed, dict)):
        is_same = recorded == committed or (recorded in _NO_VALUE and committed in _NO_VALUE)
        return None if is_same else section
    for key in {*recorded, *committed}:
        if key not in recorded and section == "slurm":
            return f"{section}.{key}"  # the job script needs each of them
        if key in recorded and recorded[key] != committed.get(key):
            if key not in committed and recorded[key] in _NO_VALUE:
                continue  # a key of another version
            return f"{section}.{key}"
    return None
