"""What merging one commit into another means: read from commits and the ledger alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.core.planner.init_from_names import circles
from mtf.core.review.changed_runs import Review, differences, review_specs
from mtf.core.vocabulary.ids import timestamp
from mtf.errors import RepositoryError
from mtf.project.affected import also_needed, touched
from mtf.project.cluster_check import known_facts, remarks
from mtf.project.committed import groups_at, keys_of, spec_files
from mtf.project.init_from_check import unknown_origins_of
from mtf.project.project import settings_at
from mtf.spec.compose.config_groups import FOLDER
from mtf.spec.lint.policy_rules import over_budget, violations
from mtf.spec.load import is_spec, load_some
from mtf.spec.schema.policies import Policies

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mtf.core.review.changed_runs import SpecReview
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId
    from mtf.errors import Problem
    from mtf.git.repo import GitRepo
    from mtf.ledger.store import Ledger
    from mtf.project.committed import Keyed
    from mtf.project.project import Project
    from mtf.spec.load import Loaded
    from mtf.spec.schema.settings import Settings


def compare(project: Project, base: str, rev: str) -> Review:
    """Return what merging ``rev`` into ``base`` means.

    The comparison starts where the two branched off, so that what happened on ``base`` since is
    not taken for a removal. Specs that are the same on both sides are not even parsed. Policies
    are those that hold after the merge: the base's of now, unless ``rev`` changes them.

    Raises:
        RepositoryError: the histories do not meet (a shallow clone, mostly).
        SpecError: the settings of one of the two are wrong.
    """
    repo = project.repo
    with repo.reading():
        tip, head = repo.commit(base), repo.commit(rev)
        fork = repo.merge_base(tip, head)
        if fork is None:
            raise RepositoryError(
                f"{base} and {rev} have no common commit here."
                " In CI, check out with the whole history (fetch-depth: 0)"
            )
        return compare_commits(project, fork, head, settings_at(repo, tip).policies)


def compare_commits(
    project: Project, old: CommitId, new: CommitId, policies: Policies | None = None
) -> Review:
    """Return what ``new`` asks for that ``old`` does not; ``policies``: those of the base now."""
    before = _Side.at(project.repo, old, {})
    sides = before, _Side.at(project.repo, new, before.blobs)
    ledger = project.ledger()
    found = _both(*sides, ledger, certain=ledger.tip is not None or project.remote is None)
    specs = tuple(s for s in found.specs if not s.is_same or found.is_changed(s))
    names = {spec.name for spec in specs}
    shown = [d for d, _ in found.after if d.name in names]
    settings = sides[1].settings
    rules = sides[0].settings.policies, settings.policies
    base = policies or rules[0]
    are_changed = rules[0] != rules[1]
    in_force = rules[1] if are_changed else base
    broken = _broken(shown, in_force)
    facts = known_facts(settings, live=False)  # a forge's runner has no cluster
    review = Review(
        head=new,
        base=old,
        specs=specs,
        has_policies=in_force != Policies(),
        untouched=found.untouched,
        problems=tuple(sorted({*found.problems, *broken, *remarks(shown, settings, facts)})),
        settings=tuple(differences(_settings(sides[0]), _settings(sides[1]))),
        policies=tuple(differences(rules[0].model_dump(), rules[1].model_dump())),
        loosened=_loosened(_broken(shown, base), broken) if are_changed else (),
    )
    runs = review.count("new") + review.count("changed")
    return replace(review, over_budget=over_budget(review.cost, runs, in_force.pull_request))


@dataclass(frozen=True)
class _Side:
    """One of the two commits."""

    repo: GitRepo
    commit: CommitId
    settings: Settings
    texts: Mapping[str, bytes]
    irregular: tuple[Problem, ...]
    blobs: Mapping[str, bytes]  # the same texts by object id

    @classmethod
    def at(cls, repo: GitRepo, commit: CommitId, known: Mapping[str, bytes]) -> _Side:
        """Read a commit; ``known`` holds blobs that have been read already."""
        settings = settings_at(repo, commit)
        entries = repo.files(commit, settings.experiments)
        texts, irregular = spec_files(repo, entries, known)
        blobs = {entries[path].oid: text for path, text in texts.items()}
        return cls(repo, commit, settings, texts, tuple(irregular), blobs)

    def load(self, paths: Collection[str], stamp: str) -> Loaded:
        there = [p for p in paths if p in self.texts]
        groups = groups_at(self.repo, self.commit)
        return load_some(there, self.texts, self.settings, stamp, groups=groups)

    def keyed(self, loaded: Loaded) -> tuple[Keyed, ...]:
        return tuple((d, keys_of(self.repo, self.commit, d)) for d in loaded.desired)


@dataclass(frozen=True)
class _Found:
    """What both sides ask for, as far as it may differ."""

    after: tuple[Keyed, ...]
    specs: tuple[SpecReview, ...]
    problems: tuple[Problem, ...]
    untouched: int
    changed_paths: frozenset[str]

    def is_changed(self, spec: SpecReview) -> bool:
        """Return whether the file of a spec differs, be it in words alone."""
        return spec.path in self.changed_paths


def _both(old: _Side, new: _Side, ledger: Ledger, *, certain: bool) -> _Found:
    """Load what may differ. ``certain``: the ledger is all there is, no name is known elsewhere."""
    stamp = timestamp(datetime.now(UTC))
    paths = _touched(old, new)
    while True:
        before, after = old.load(paths, stamp), new.load(paths, stamp)
        others = {p: text for p, text in new.texts.items() if is_spec(p) and p not in paths}
        more = also_needed(before, after, others)
        if not more:
            break
        paths |= more
    keyed = _readable(old.keyed(before), after), new.keyed(after)
    changed = frozenset(p for p in paths if old.texts.get(p) != new.texts.get(p))
    records = {r.key: r for r in ledger.runs.values()}
    specs = review_specs(*keyed, records, _moved(old, new, after.desired))
    problems = [p for p in after.problems if not p.rule]
    problems += [*new.irregular, *circles(after.desired)]
    if certain:
        problems += unknown_origins_of(keyed[1], ledger.runs)
    theirs = {s.path for s in specs if not s.is_same} | changed
    shown = tuple(p for p in problems if p.is_error or p.path in theirs)
    return _Found(keyed[1], specs, shown, len(others), changed)


def _readable(before: Sequence[Keyed], after: Loaded) -> tuple[Keyed, ...]:
    """Return the specs without those that have mistakes now: they are not gone."""
    there = {one.name for one in after.desired}
    wrong = {p.path for p in after.problems if p.is_error}
    broken = {d.name for d, _ in before if d.name in after.names or d.path in wrong} - there
    return tuple((d, keys) for d, keys in before if d.name not in broken)


def _touched(old: _Side, new: _Side) -> set[str]:
    """Return the paths to load: all, where the settings change what every spec comes to."""
    one, other = old.settings, new.settings
    if one.experiments != other.experiments or one.policies != other.policies:
        return {p for p in (*old.texts, *new.texts) if is_spec(p)}
    if one.slurm_defaults() != other.slurm_defaults():
        return {p for p in (*old.texts, *new.texts) if is_spec(p)}
    marks = {b"rerun_on"}
    if old.repo.object_ids(old.commit, [FOLDER]) != new.repo.object_ids(new.commit, [FOLDER]):
        marks.add(b"defaults")  # a list of config groups
    return touched(old.texts, new.texts, marks)


def _moved(old: _Side, new: _Side, desired: Sequence[Desired]) -> set[str]:
    """Return the ``rerun_on`` paths whose content is not the same on both sides."""
    paths = {path for one in desired for e in one.experiments for path in e.rerun_on}
    before = old.repo.object_ids(old.commit, paths)
    return {p for p, oid in new.repo.object_ids(new.commit, paths).items() if oid != before[p]}


def _settings(side: _Side) -> dict[str, object]:
    return side.settings.model_dump(mode="json", exclude={"policies"})


def _loosened(before: Iterable[Problem], after: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return what broke a policy before, but no longer."""

    def what(problem: Problem) -> tuple[object, ...]:
        spec = problem.message.split(":", 1)[0]
        return spec, problem.rule, problem.path, problem.line, problem.column

    still = set(map(what, after))
    return tuple(problem for problem in before if what(problem) not in still)


def _broken(desired: Sequence[Desired], policies: Policies) -> tuple[Problem, ...]:
    return tuple(problem for one in desired for problem in violations(one, policies))
