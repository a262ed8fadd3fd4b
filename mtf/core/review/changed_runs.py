"""The runs that a commit adds, changes or removes, and why changed runs run again. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtf.core.review.costs import Cost, sum_of, total_cost
from mtf.core.sbatch.section_options import section_demand
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.experiments import EXECUTION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from mtf.core.sbatch.demand import Demand
    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.core.vocabulary.ids import CommitId, RunKey
    from mtf.core.vocabulary.jobs import Resources
    from mtf.core.vocabulary.records import RunRecord
    from mtf.errors import Problem

Keyed = tuple["Desired", tuple["RunKey", ...]]
_Known = dict[tuple[str, int, int], "tuple[Difference, ...]"]


@dataclass(frozen=True)
class Difference:
    """One key whose value differs. Values are JSON; None: the key is missing on that side."""

    key: str
    old: str | None
    new: str | None

    @property
    def reruns(self) -> bool:
        """Return True if it makes a new run; other keys say how a run is executed or watched."""
        return self.key.split(".", 1)[0] not in EXECUTION


@dataclass(frozen=True)
class Run:
    """One run, as its spec asks for it now and as the spec did before."""

    now: Experiment | None  # None: no longer asked for
    record: RunRecord | None = None  # of ``now``, where there is one
    before: Experiment | None = None
    record_before: RunRecord | None = None
    differences: tuple[Difference, ...] = ()
    place: int = 0  # in its spec

    @property
    def name(self) -> str:
        """Return the experiment's or the member's name."""
        experiment = self.now or self.before
        assert experiment is not None
        return experiment.name


@dataclass(frozen=True)
class ScriptChange:
    """The change that a change of the templates makes in job scripts, shown for one run."""

    run: str
    specs: int  # whose scripts change
    lines: tuple[str, ...]  # a unified diff


@dataclass(frozen=True)
class SpecReview:
    """The runs of one spec; each run is in one of the five groups."""

    name: str
    path: str
    path_before: str | None  # None: the spec is new
    max_parallel: int | None
    new: tuple[Run, ...] = ()
    changed: tuple[Run, ...] = ()  # resolved values differ: these run anew
    done: tuple[Run, ...] = ()  # new or changed, but already recorded: nothing runs
    unchanged: tuple[Run, ...] = ()  # may differ in how they are executed
    removed: tuple[Run, ...] = ()
    on_change: str = "keep"  # or "cancel": what to do with active runs that changed ones replace
    # the upper bounds of a run, by its script
    demand_of: Callable[[Resources], Demand] = field(default=section_demand, compare=False)

    @property
    def to_submit(self) -> tuple[Run, ...]:
        """Return the runs that a sync will submit because of this."""
        return tuple(sorted((*self.new, *self.changed), key=lambda run: run.place))

    @property
    def recorded(self) -> tuple[RunRecord, ...]:
        """Return the ledger's records of the runs that the spec asks for."""
        runs = (*self.done, *self.unchanged)
        return tuple(run.record for run in runs if run.record is not None)

    @property
    def giving_way(self) -> tuple[RunRecord, ...]:
        """Return the active runs that changed ones replace (``on_change: cancel``)."""
        if self.on_change != "cancel":
            return ()
        successors = {run.name for run in self.to_submit}
        return tuple(r for r in self._active_before if r.experiment in successors)

    @property
    def going_on(self) -> tuple[RunRecord, ...]:
        """Return the active runs that no spec asks for any more, and that continue."""
        ending = {record.run for record in self.giving_way}
        return tuple(record for record in self._active_before if record.run not in ending)

    @property
    def _active_before(self) -> list[RunRecord]:
        runs = (*self.changed, *self.done, *self.removed)
        records = [r.record_before for r in runs if r.record_before is not None]
        return [record for record in records if not record.is_over]

    @property
    def cost(self) -> Cost:
        """Return the greatest cost of its new and changed runs."""
        runs = (run.now.resources for run in self.to_submit if run.now is not None)
        return total_cost(runs, self.demand_of)

    @property
    def is_same(self) -> bool:
        """Return True if the spec asks for the same runs, executed in the same way."""
        differs = self.to_submit or self.done or self.removed
        return not differs and not any(run.differences for run in self.unchanged)


@dataclass(frozen=True)
class Review:
    """Everything that merging one commit into another changes."""

    head: CommitId
    base: CommitId  # where the two branched off
    specs: tuple[SpecReview, ...]
    has_policies: bool = False
    untouched: int = 0  # spec files that are equal on both sides and were not read
    problems: tuple[Problem, ...] = ()  # mistakes, warnings, broken policies
    over_budget: tuple[tuple[str, str], ...] = ()  # rule and message, of all changes together
    settings: tuple[Difference, ...] = ()  # changes in mtf.yaml, except its policies
    policies: tuple[Difference, ...] = ()  # changes in its policies
    loosened: tuple[Problem, ...] = ()  # problems under the policies before this change
    scripts: ScriptChange | None = None  # of changed templates
    templates: tuple[str, ...] = ()  # paths of those that change

    @property
    def is_empty(self) -> bool:
        """Return True if merging changes no run and not how one is executed."""
        return all(spec.is_same for spec in self.specs) and not self.scripts

    @property
    def is_refused(self) -> bool:
        """Return True if a part of it must not be submitted."""
        return bool(self.over_budget) or any(p.is_error for p in self.problems)

    @property
    def cost(self) -> Cost:
        """Return the greatest cost of all new and changed runs."""
        return sum_of(spec.cost for spec in self.specs)

    def count(self, kind: str) -> int:
        """Return the number of runs of a kind (``new``, ``changed``, ...)."""
        return sum(len(getattr(spec, kind)) for spec in self.specs)


def review_specs(
    before: Iterable[Keyed],
    after: Iterable[Keyed],
    records: Mapping[RunKey, RunRecord],
    changed_paths: Collection[str] = (),
) -> tuple[SpecReview, ...]:
    """Return the review of each spec, in the order of their names.

    Args:
        before: the specs at the base.
        after: the specs at the head.
        records: the ledger's, by key.
        changed_paths: the ``rerun_on`` paths whose content differs between base and head.
    """
    old = {desired.name: (desired, keys) for desired, keys in before}
    now = {desired.name: (desired, keys) for desired, keys in after}
    return tuple(
        _review(old.get(name), now.get(name), records, changed_paths)
        for name in sorted({*old, *now})
    )


def _review(
    old: Keyed | None,
    now: Keyed | None,
    records: Mapping[RunKey, RunRecord],
    changed_paths: Collection[str],
) -> SpecReview:
    left = _by_key(old)
    same = {key: left.pop(key) for key in _by_key(now) if key in left}
    counterparts = {_values(e): (key, e) for key, e in left.items()}
    found: defaultdict[str, list[Run]] = defaultdict(list)
    known: _Known = {}
    for place, (key, experiment) in enumerate(_by_key(now).items()):
        record = records.get(key)
        if key in same:
            how = tuple(differences(_execution(same[key]), _execution(experiment)))
            found["unchanged"].append(Run(experiment, record, same[key], record, how))
            continue
        key_before, other = counterparts.get(_values(experiment), (None, None))
        if key_before is None or other is None:
            found["done" if record else "new"].append(Run(experiment, record, place=place))
            continue
        del left[key_before]
        why = tuple(_why(other, experiment, changed_paths, known))
        run = Run(experiment, record, other, records.get(key_before), why, place)
        found["done" if record else "changed"].append(run)
    gone = [Run(None, None, e, records.get(key)) for key, e in left.items()]
    spec = (now or old or (None,))[0]
    assert spec is not None
    kinds: dict[str, Any] = {kind: tuple(runs) for kind, runs in found.items()}
    path_before = old[0].path if old else None
    return SpecReview(
        spec.name,
        spec.path,
        path_before,
        spec.max_parallel,
        **kinds,
        removed=tuple(gone),
        on_change=spec.on_change,
    )


def _by_key(keyed: Keyed | None) -> dict[RunKey, Experiment]:
    if keyed is None:
        return {}
    desired, keys = keyed
    return dict(zip(keys, desired.experiments, strict=True))


def _execution(experiment: Experiment) -> dict[str, Any]:
    return {key: value for key, value in experiment.config.items() if key in EXECUTION}


def _values(experiment: Experiment) -> str:
    """Return the values that identify a member in its spec, whatever else changes."""
    return json_text.dumps(experiment.parameters, sort_keys=True)


def _why(
    old: Experiment, new: Experiment, changed_paths: Collection[str], known: _Known
) -> Iterator[Difference]:
    """Yield the differences that make a new run; ``known`` caches compared sections."""
    for name in dict.fromkeys((*old.config, *new.config)):
        before, after = old.config.get(name), new.config.get(name)
        if name != "experiment_name":
            pair = (
                name,
                id(before),
                id(after),
            )  # members of a grid share equal sections
            if pair not in known:
                known[pair] = tuple(differences(before, after, name))
            yield from known[pair]
    if old.generation != new.generation:
        yield Difference("generation", str(old.generation), str(new.generation))
    if old.rerun_on != new.rerun_on:
        yield Difference("rerun_on", json_text.dumps(old.rerun_on), json_text.dumps(new.rerun_on))
    for path in new.rerun_on:
        if path in changed_paths:
            yield Difference(f"rerun_on {path}", "as it was", "changed")


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[Difference]:
    """Yield the keys of two configurations whose values differ, nested keys by dotted names."""
    if old is new:
        return
    if isinstance(old, dict | None) and isinstance(new, dict | None):
        before, after = old or {}, new or {}
        for key in dict.fromkeys((*before, *after)):
            if prefix or key != "experiment_name":
                name = f"{prefix}.{key}" if prefix else str(key)
                yield from differences(before.get(key), after.get(key), name)
    elif old != new or type(old) is not type(new):
        yield Difference(prefix, _json(old), _json(new))


def _json(value: Any) -> str | None:
    return None if value is None else json_text.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Summary:
    """One change of one key, with the number of runs that have it."""

    change: Difference
    runs: int
    specs: tuple[str, ...]


@dataclass
class _Tally:
    runs: int = 0
    specs: dict[str, None] = field(default_factory=dict)


def summarise(specs: Sequence[SpecReview]) -> tuple[Summary, ...]:
    """Return each change of the configurations once; those that make new runs come first."""
    tallies: defaultdict[Difference, _Tally] = defaultdict(_Tally)
    for spec in specs:
        for run in (*spec.changed, *spec.done, *spec.unchanged):
            for difference in run.differences:
                tally = tallies[difference]
                tally.runs += 1
                tally.specs[spec.name] = None
    found = [Summary(d, tally.runs, tuple(tally.specs)) for d, tally in tallies.items()]
    return tuple(sorted(found, key=lambda s: (not s.change.reruns, s.change.key, -s.runs)))
