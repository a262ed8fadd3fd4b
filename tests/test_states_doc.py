"""docs/states.md shows the tables of the code, and nothing else.

``python -m tests.test_states_doc`` writes them there.
"""

from __future__ import annotations

from pathlib import Path

from mtf.core.vocabulary.causes import ENDS, EXIT_CODES, SIGNALS, STANDINGS, STOPS, Cause
from mtf.core.vocabulary.states import JobState
from mtf.executor.slurm.job_text import STATES
from mtf.spec.schema.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "states.md"


def table(headings: str, rows: list[list[str]]) -> str:
    names = headings.split("|")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def states() -> str:
    rows = []
    for word, state in STATES.items():
        standing = STANDINGS[state]
        run = standing.run or (ENDS[standing.cause].state if standing.cause else "as it was")
        rows.append([f"`{word}`", f"`{run}`", standing.cause or "", standing.action])
    rows.append(["another word", "as it was", "", STANDINGS[JobState.UNKNOWN].action])
    return table("SLURM says|the run is|cause|mtf", rows)


def causes() -> str:
    retried = Settings().retry.on
    rows = [
        [f"`{cause}`", end.meaning, f"`{end.state}`", "yes" if cause in retried else "", end.advice]
        for cause, end in ENDS.items()
    ]
    return table("cause|what happened|state of a run given up|retried by default|then", rows)


def failures() -> str:
    rows = [[f"exit code {code}", cause] for code, cause in EXIT_CODES.items()]
    rows += [[f"signal {number}", cause] for number, cause in SIGNALS.items()]
    rows += [[f"its journal says that it was stopped by {name}", c] for name, c in STOPS.items()]
    return table(
        "a FAILED job without an error in its journal|cause", [list(map(str, r)) for r in rows]
    )


TABLES = {"states": states, "causes": causes, "failures": failures}


def rendered(page: str) -> str:
    for name, render in TABLES.items():
        begin = f"<!-- {name} -->\n"
        before, rest = page.split(begin)
        page = before + begin + render() + "\n" + rest[rest.index("<!-- end -->") :]
    return page


def test_the_page_shows_the_codes_tables() -> None:
    page = PAGE.read_text()
    assert all(f"<!-- {name} -->" in page for name in TABLES)
    assert rendered(page) == page, "run: python -m tests.test_states_doc"


def test_every_cause_has_its_row_and_every_job_state_its_standing() -> None:
    assert ENDS.keys() == set(Cause)
    assert STANDINGS.keys() >= set(STATES.values())


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
