"""The review of a pull request: what merging one commit into another would change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.planner.init_from_names import cycles
from mtf.core.review.changed_runs import Review, differences, review_specs
from mtf.errors import RepositoryError
from mtf.project.affected import also_needed, touched
from mtf.project.cluster_check import known_facts, remarks
from mtf.project.code_files.changed_code import affected_by_code
from mtf.project.committed import keys_of
from mtf.project.init_from_check import unknown_origins_of
from mtf.project.location.folder import at_commit
from mtf.project.sample_scripts import SampleScripts, script_changes
from mtf.project.settings_file import settings_at
from mtf.project.spec_tree import SpecTree
from mtf.project.template_files import FOLDER as TEMPLATES_FOLDER
from mtf.project.template_files import script_kind, templates_at
from mtf.project.tree_check import check_tree
from mtf.spec.compose.config_groups import FOLDER
from mtf.spec.lint.policy_rules import over_budget, violations
from mtf.spec.schema.policies import Policies

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from mtf.core.review.changed_runs import Difference, SpecReview
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId, RunKey
    from mtf.errors import Problem
    from mtf.git.repo import GitRepo
    from mtf.ledger.store import Ledger
    from mtf.project.committed import Keyed
    from mtf.project.project import Project
    from mtf.spec.load import Loaded


def compare(project: Project, base: str, rev: str) -> Review:
    """Return the changes that merging ``rev`` into ``base`` would make.

    ``rev`` is compared with the commit where the two branched off, so that later work on ``base``
    does not look like a removal. Specs that are the same in both commits are not even parsed. The
    policies are those that hold after the merge: those of ``base``, unless ``rev`` changes them.

    Raises:
        RepositoryError: the two have no common commit, as in a shallow clone.
        SpecError: as for ``compare_commits``.
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
        return compare_commits(project, fork, head, settings_at(at_commit(repo, tip), tip).policies)


def compare_commits(
    project: Project, old: CommitId, new: CommitId, policies: Policies | None = None
) -> Review:
    """Return the runs that ``new`` asks for and ``old`` does not.

    ``policies`` are those of the branch to merge into; by default those of ``old``.

    Raises:
        SpecError: the settings of one of the two contain mistakes, or ``new`` breaks a rule for
            trees.
    """
    check_tree(project.repo, new)
    there = at_commit(project.repo, old)
    before = SpecTree.at(there, old).checked()
    after = SpecTree.at(project.repo, new, like=before).checked()
    sides = _Side(there, old, before), _Side(project.repo, new, after)
    found = _both(*sides, project.fetched_ledger())
    specs = tuple(s for s in found.specs if not s.is_same or found.is_changed(s))
    names = {spec.name for spec in specs}
    shown = [d for d, _ in found.after if d.name in names]
    rules = before.settings.policies, after.settings.policies
    base = policies or rules[0]
    are_changed = rules[0] != rules[1]
    in_force = rules[1] if are_changed else base
    broken = list(_broken(shown, in_force))
    old_templates, templates = templates_at(there, old), templates_at(project.repo, new)
    changed = sorted(
        n for n in {*old_templates, *templates} if old_templates.get(n) != templates.get(n)
    )
    kind = script_kind(after.settings)
    judged = [d for d, _ in found.after] if changed else shown
    samples = SampleScripts.of(judged, templates, after.settings)
    specs = tuple(replace(s, demand_of=samples.demand_of(s.name)) for s in specs)
    broken += samples.violations(judged, in_force)
    refused_before = [*_broken(shown, base), *samples.violations(judged, base)]
    facts = known_facts(after.settings, live=False)  # CI runners have no cluster
    advice = remarks(shown, after.settings, facts)
    review = Review(
        head=new,
        base=old,
        specs=specs,
        has_policies=in_force != Policies(),
        untouched=found.untouched,
        problems=tuple(sorted({*found.problems, *broken, *advice})),
        settings=tuple(differences(_other_settings(before), _other_settings(after))),
        policies=_differences(*rules) if are_changed else (),
        loosened=_loosened(refused_before, broken) if are_changed else (),
        scripts=script_changes(judged, old_templates, templates, kind) if changed else None,
        templates=tuple(f"{TEMPLATES_FOLDER}/{name}" for name in changed),
    )
    runs = review.count("new") + review.count("changed")
    return replace(review, over_budget=over_budget(review.cost, runs, in_force.pull_request))


@dataclass(frozen=True)
class _Side:
    """One of the two commits."""

    repo: GitRepo
    commit: CommitId
    tree: SpecTree

    def object_ids(self, paths: Iterable[str]) -> dict[str, str]:
        return self.repo.object_ids(self.commit, paths)

    def keyed(self, loaded: Loaded, recorded: Collection[RunKey]) -> tuple[Keyed, ...]:
        return tuple((d, keys_of(self.repo, self.commit, d, recorded)) for d in loaded.desired)


@dataclass(frozen=True)
class _Found:
    """The specs that may differ between the two commits."""

    after: tuple[Keyed, ...]
    specs: tuple[SpecReview, ...]
    problems: tuple[Problem, ...]
    untouched: int
    changed_paths: frozenset[str]

    def is_changed(self, spec: SpecReview) -> bool:
        """Return True if the file of a spec differs, even if only in comments."""
        return spec.path in self.changed_paths


def _both(old: _Side, new: _Side, ledger: Ledger | None) -> _Found:
    """Load the specs that may differ; without the ledger, ``init_from`` may name an unknown run."""
    paths = _touched(old, new)
    while True:
        before, after = old.tree.load(paths), new.tree.load(paths)
        others = {path: text for path, text in new.tree.specs.items() if path not in paths}
        more = also_needed(before, after, others)
        if not more:
            break
        paths |= more
    runs = ledger.runs if ledger else {}
    records = {r.key: r for r in runs.values() if r.superseded_by is None}
    keyed = _without_broken(old.keyed(before, records), after), new.keyed(after, records)
    changed = frozenset(p for p in paths if old.tree.texts.get(p) != new.tree.texts.get(p))
    specs = review_specs(*keyed, records, _changed_rerun_on(old, new, after.desired))
    problems = [p for p in after.problems if not p.rule]
    problems += [*new.tree.problems, *cycles(after.desired)]
    if ledger is not None:
        problems += unknown_origins_of(keyed[1], runs)
    reviewed = {s.path for s in specs if not s.is_same} | changed
    shown = tuple(p for p in problems if p.is_error or p.path in reviewed)
    return _Found(keyed[1], specs, shown, len(others), changed)


def _without_broken(before: Sequence[Keyed], after: Loaded) -> tuple[Keyed, ...]:
    """Return the old specs without those that have mistakes now: such specs are not deleted."""
    valid = {desired.name for desired in after.desired}
    wrong = {p.path for p in after.problems if p.is_error}
    broken = {d.name for d, _ in before if d.name in after.names or d.path in wrong} - valid
    return tuple((d, keys) for d, keys in before if d.name not in broken)


def _touched(old: _Side, new: _Side) -> set[str]:
    """Return the paths to load: all, if settings or templates change what every job asks for."""
    before, after = old.tree.settings, new.tree.settings
    if (
        before.experiments != after.experiments
        or before.policies != after.policies
        or before.slurm_defaults() != after.slurm_defaults()
        or old.object_ids([TEMPLATES_FOLDER]) != new.object_ids([TEMPLATES_FOLDER])
    ):
        return {*old.tree.specs, *new.tree.specs}
    keywords = {b"rerun_on"}
    by_code = affected_by_code(new.tree.naming, new.tree.code, [old.tree.code], lambda: True)
    has_new_groups = old.object_ids([FOLDER]) != new.object_ids([FOLDER])
    if has_new_groups or any(path.startswith(f"{FOLDER}/") for path in by_code):
        keywords.add(b"defaults")  # a list of config groups
    same = {path: text for path, text in old.tree.specs.items() if path not in by_code}
    return touched(same, new.tree.specs, keywords)


def _changed_rerun_on(old: _Side, new: _Side, desired: Sequence[Desired]) -> set[str]:
    """Return the ``rerun_on`` paths whose content differs between the two commits."""
    paths = {path for spec in desired for e in spec.experiments for path in e.rerun_on}
    before = old.object_ids(paths)
    return {p for p, oid in new.object_ids(paths).items() if oid != before[p]}


def _other_settings(tree: SpecTree) -> dict[str, object]:
    return tree.settings.model_dump(mode="json", exclude={"policies"})


def _differences(before: Policies, after: Policies) -> tuple[Difference, ...]:
    return tuple(differences(before.model_dump(), after.model_dump()))


def _loosened(before: Iterable[Problem], after: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems of policies that held before and no longer do."""

    def identity(problem: Problem) -> tuple[object, ...]:
        spec = problem.message.split(":", 1)[0]
        return spec, problem.rule, problem.path, problem.line, problem.column

    still = set(map(identity, after))
    return tuple(problem for problem in before if identity(problem) not in still)


def _broken(desired: Sequence[Desired], policies: Policies) -> tuple[Problem, ...]:
    return tuple(problem for spec in desired for problem in violations(spec, policies))
