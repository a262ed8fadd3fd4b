"""Finds the runs that a person means: by id, name, job id or a unique prefix."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.core.vocabulary.states import RunState
from mtf.errors import MtfError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger


def names_of(record: RunRecord) -> tuple[str, ...]:
    """Return all that a run may be called by."""
    grid = (record.grid, f"{record.grid}/{record.experiment}") if record.grid else ()
    jobs = tuple(a.job_id for a in record.attempts if a.job_id)
    return (record.run, record.experiment, record.label, *grid, *jobs)


def newest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs by submission, the newest submission first, members in order of name."""
    by_member = sorted(records, key=lambda r: r.run)
    return sorted(by_member, key=lambda r: r.run.split("/")[1], reverse=True)


def find_run(ledger: Ledger, wish: str) -> RunRecord:
    """Return the one run that ``wish`` names; of an experiment's runs, the newest.

    Raises:
        MtfError: none, or several; the message lists them.
    """
    records = newest_first(ledger.runs.values())
    exact = [r for r in records if wish in names_of(r)]
    if exact:
        newest = [r for r in exact if r.submission == exact[0].submission]
        return _only(wish, newest)
    return _only(wish, [r for r in records if any(n.startswith(wish) for n in names_of(r))])


def _only(wish: str, found: Sequence[RunRecord]) -> RunRecord:
    if not found:
        raise MtfError(f"{wish}: no such run. mtf status lists them")
    if len(found) > 1:
        shown = "\n".join(f"  {r.run}" for r in found[:10])
        more = f"\n  ... and {len(found) - 10} more" if len(found) > 10 else ""
        raise MtfError(f"{wish}: {len(found)} runs are meant by it, name one:\n{shown}{more}")
    return found[0]


def find_runs(ledger: Ledger, wishes: Iterable[str]) -> list[RunRecord]:
    """Return the runs that the wishes name; a grid's name or a submission's id means its members.

    Raises:
        MtfError: one names nothing.
    """
    found: dict[str, RunRecord] = {}
    for wish in wishes:
        records = newest_first(ledger.runs.values())
        group = [r for r in records if wish in (r.grid, r.submission)]
        if group:
            group = [r for r in group if r.submission == group[0].submission]
        for record in group or [find_run(ledger, wish)]:
            found[record.run] = record
    return list(found.values())


def choose(ledger: Ledger, wishes: Sequence[str], where: Sequence[str]) -> list[RunRecord]:
    """Return the runs that the wishes name, and without any the newest of each experiment.

    Only those for which all of ``where`` holds.

    Raises:
        MtfError: a wish names nothing, or a condition cannot be met by any run.
    """
    tests = [_condition(text) for text in where]
    if wishes:
        records = find_runs(ledger, wishes)
    else:
        by_name: dict[tuple[str | None, str], RunRecord] = {}
        for record in newest_first(ledger.runs.values()):
            by_name.setdefault((record.grid, record.experiment), record)
        records = list(by_name.values())
    return [record for record in records if all(test(record) for test in tests)]


_WORDS: Mapping[str, tuple[str, ...]] = {
    "cause": tuple(cause.value for cause in Cause),
    "state": tuple(state.value for state in RunState),
}


def _condition(text: str) -> Callable[[RunRecord], bool]:
    """Return the test that ``cause=host-oom,cuda-oom``, ``state=failed`` or ``name=GLOB`` means.

    Raises:
        UsageError: it means nothing.
    """
    field, _, wish = text.partition("=")
    if field == "name" and wish:
        return lambda record: any(fnmatchcase(name, wish) for name in names_of(record))
    if field not in _WORDS or not wish:
        raise UsageError(f"--where {text}: write cause=..., state=... or name=GLOB")
    words = frozenset(wish.split(","))
    for word in words.difference(_WORDS[field]):
        raise UsageError(
            f"--where {text}: no {field} {word!r}. {did_you_mean(word, _WORDS[field])}"
        )
    return lambda record: getattr(record, field) in words


def matching(ledger: Ledger, globs: Sequence[str]) -> list[RunRecord]:
    """Return the runs whose id or name matches one of the globs (all, when there is none)."""
    return [
        r
        for r in newest_first(ledger.runs.values())
        if not globs or any(fnmatchcase(n, g) for n in names_of(r) for g in globs)
    ]
