"""The outcome of a sync, or of a command on runs, as text and as JSON values."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from mtf.core.planner.deeds import Deed
from mtf.core.vocabulary.states import RunState
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtf.core.planner.deeds import Done
    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord

_FEW = 3  # runs of a grid that get a line each
_MOST = 30  # lines
# Deeds that are said by run or grid; submissions are said as they are made.
_SAID = (
    Deed.ADOPTED,
    Deed.COMPLETED,
    Deed.INTERRUPTED,
    Deed.HELD_BACK,
    Deed.FAILED,
    Deed.TIMEOUT,
    Deed.CANCELLED,
    Deed.LOST,
    Deed.PRUNED,
    Deed.REPLACED,
)
_JSON_KEYS = {
    Deed.TIMEOUT: "timeout",
    Deed.UNCLEAR: "uncertain",
    Deed.PUT_OFF: "put_off",
    Deed.HELD_BACK: "held_back",
}


def done_counts(done: Iterable[Done]) -> dict[str, int]:
    """Return the number of runs for each deed that was done."""
    counts = Counter(one.deed for one in done)
    return {deed.value: counts[deed] for deed in Deed if counts[deed]}


def counts_text(counts: Mapping[str, int]) -> str:
    """Return text like ``3 submitted, 1 failed``; words with the number 0 are left out."""
    return ", ".join(f"{n} {word}" for word, n in counts.items() if n) or "nothing done"


def done_as_json(done: Iterable[Done]) -> dict[str, dict[str, str]]:
    """Return an object for each deed: from runs to their jobs, or to the reasons."""
    found: dict[str, dict[str, str]] = {json_key(deed): {} for deed in Deed}
    for one in done:
        found[json_key(one.deed)][one.run] = one.reason
    return found


def json_key(deed: Deed) -> str:
    """Return the key of a deed in JSON."""
    return _JSON_KEYS.get(deed, deed.value.replace(" ", "_"))


def ended_runs(done: Iterable[Done]) -> set[RunId]:
    """Return the runs whose end was observed."""
    ends = (Deed.COMPLETED, Deed.FAILED, Deed.TIMEOUT, Deed.CANCELLED, Deed.LOST)
    return {one.run for one in done if one.deed in ends}


def incomplete_text(waited_for: Sequence[RunRecord]) -> str:
    """Return a line about the runs that did not complete, though nobody asked mtf to cancel them.

    It is empty if there are none.
    """
    missing = [
        r for r in waited_for if r.state is not RunState.COMPLETED and not r.cancel_requested
    ]
    if not missing:
        return ""
    states = Counter(r.state for r in missing)
    which = ", ".join(f"{n} {state}" for state, n in states.items())
    return (
        f"{len(missing)} of {count(len(waited_for), 'run')} did not complete ({which})."
        f" mtf status shows why; mtf retry --where state={missing[0].state} runs them again"
    )


def done_lines(done: Iterable[Done]) -> list[str]:
    """Return a line for each run that something happened to; many runs of a grid get one line."""
    groups: dict[tuple[Deed, str], list[Done]] = defaultdict(list)
    for one in done:
        groups[one.deed, one.owner].append(one)
    lines = [
        line
        for deed in _SAID
        for (each, owner), members in groups.items()
        if each is deed
        for line in _group_lines(deed, owner, members)
    ]
    if len(lines) > _MOST:
        more = len(lines) - _MOST + 1
        lines = [*lines[: _MOST - 1], f"... and {more} more: mtf status"]
    return lines


def _group_lines(deed: Deed, owner: str, members: Sequence[Done]) -> list[str]:
    if len(members) <= _FEW:
        return [
            f"{deed:<11} {one.label}{f': {_first_line(one.reason)}' if one.reason else ''}"
            for one in members
        ]
    causes = Counter(one.cause for one in members if one.cause and one.cause != deed)
    why = f" ({counts_text({str(c): n for c, n in causes.most_common()})})" if causes else ""
    return [f"{deed:<11} {owner}: {count(len(members), 'run')}{why}"]


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
