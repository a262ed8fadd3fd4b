"""The review of a pull request as a comment, as text and as JSON.

Regenerate the golden files with `python -m tests.report.test_comments`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.core.review.changed_runs import Review, differences, review_specs
from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.records import Best
from mtf.core.vocabulary.shown_text import code
from mtf.core.vocabulary.states import RunState
from mtf.errors import Problem
from mtf.report.comments import BUDGET, comment
from mtf.report.markup import fenced
from mtf.report.reviews import review_json, review_text
from tests.core.planner.worlds import record
from tests.spec.samples import BASE, EXPERIMENT, load

if TYPE_CHECKING:
    from mtf.core.review.changed_runs import Keyed
    from mtf.core.vocabulary.experiments import Desired

GOLDEN = Path(__file__).parent / "golden"
HEAD, FORK = CommitId("a" * 40), CommitId("b" * 40)
SLURM = 'slurm: {gpus_per_node: 4, cpus_per_task: 8, mem: 64G, time: "12:00:00", partition: gpu}\n'
GRID = "kind: grid\nname: search\nbase: base.yaml\nparameters:\n"
PROBE = EXPERIMENT.replace("one", "probe")


def keyed(specs: tuple[Desired, ...]) -> list[Keyed]:
    return [(d, tuple(run_key(e, {}) for e in d.experiments)) for d in specs]


def review_of_everything() -> Review:
    """A review with a changed base, a grown grid, a removed spec, a finished run, every finding."""
    before = load(
        base=BASE + SLURM + "optimizer: {lr: 1e-3}\n",
        search=GRID + "  training.seed: [1, 2]\n",
        probe=PROBE,
        one=EXPERIMENT,
        back=EXPERIMENT.replace("one", "back"),
    ).desired
    after = load(
        base=BASE + SLURM + "optimizer: {lr: 3e-4}\n",
        search=GRID + "  training.seed: [1, 2, 3]\nmax_parallel: 2\n",
        one=EXPERIMENT + "logging: {use_wandb: true, wandb_project: lab}\n",
        back=EXPERIMENT.replace("one", "back") + "generation: 2\n",
    ).desired
    then, now = keyed(before), keyed(after)
    experiments = {
        k: e for d, keys in (*then, *now) for k, e in zip(keys, d.experiments, strict=True)
    }
    probe = next(k for d, keys in then if d.name == "probe" for k in keys)
    back = next(k for d, keys in now if d.name == "back" for k in keys)
    records = {
        probe: record(
            experiments[probe], "probe/20260101T110000Z/cccccccc", state=RunState.RUNNING
        ),
        back: record(
            experiments[back],
            "back/20260101T110000Z/cccccccc",
            state=RunState.COMPLETED,
            best=Best("val_accuracy", 0.9625, 9, 90, "max"),
        ),
    }
    warning = Problem("experiments/search.yaml", 5, 19, "3 seeds | of `one` <b>", "warning")
    return Review(
        HEAD,
        FORK,
        review_specs(then, now, records),
        has_policies=True,
        untouched=998,
        problems=(
            warning,
            Problem(
                "experiments/base.yaml",
                4,
                60,
                "search: at most 144 GPU-hours, 100 are allowed",
                rule="max_gpu_hours",
            ),
            Problem(
                "experiments/x.yaml", 1, 1, "kind is missing: write kind: experiment, grid or base"
            ),
        ),
        over_budget=(("pull_request.max_runs", "3 runs, 2 are allowed"),),
        settings=tuple(differences({"retry": {"max_attempts": 3}}, {"retry": {"max_attempts": 5}})),
        policies=tuple(differences({"max_gpu_hours": None}, {"max_gpu_hours": 100})),
    )


REST_OF_CONFIG = re.compile(r"(?<=experiment_name: \"training.seed=1\"\n).*?(?=```)", re.DOTALL)


def golden_texts() -> dict[str, str]:
    """Return the texts that the golden files hold, by file name."""
    review = review_of_everything()
    return {
        "comment.md": REST_OF_CONFIG.sub("", comment(review)),
        "review.txt": review_text(review) + "\n",
    }


@pytest.mark.parametrize("name", ["comment.md", "review.txt"])
def test_a_review_reads_like_its_golden_file(name: str) -> None:
    text = golden_texts()[name]
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), (
        f"{name} differs. If that is meant: python -m tests.report.test_comments, and read the diff"
    )


def test_a_comment_shows_the_resolved_configuration() -> None:
    config = REST_OF_CONFIG.findall(comment(review_of_everything()))
    assert "  lr: 0.0003\n" in "".join(config)


def test_a_review_as_json_has_the_documented_keys() -> None:
    value = json.loads(review_json(review_of_everything()))
    assert value["format"] == 1
    assert value["totals"] == {
        "new": 1,
        "changed": 2,
        "done": 1,
        "unchanged": 1,
        "removed": 1,
        "gpu_hours": 144.0,
        "cpu_hours": 288.0,
    }
    assert [d["key"] for d in value["differences"] if d["reruns"]] == ["generation", "optimizer.lr"]
    assert [a["experiment"] for a in value["actions"]] == [
        "training.seed=3",
        "training.seed=1",
        "training.seed=2",
    ]
    back, one, probe, search = value["specs"]
    assert (back["done"], back["best"]["value"]) == (["back"], 0.9625)
    assert one["unchanged"] == ["one"]
    assert probe["going_on"] == ["probe/20260101T110000Z/cccccccc"]
    assert search["parameters"] == {"training.seed": [1, 2, 3]}


def test_a_review_without_changes_says_so() -> None:
    text = comment(Review(HEAD, FORK, ()))
    assert text.startswith("<!-- mtf-plan:v1 -->\n### mtf plan: no changes\n")


def test_an_experiment_that_is_recorded_already_is_shown_with_its_record() -> None:
    ((one, (key,)),) = keyed(load(one=EXPERIMENT).desired)
    made = record(one.experiments[0], "one/20260101T110000Z/cccccccc", state=RunState.COMPLETED)
    (spec,) = review_specs((), [(one, (key,))], {key: made})
    assert spec.to_submit == ()
    assert spec.recorded == (made,)


def test_a_huge_review_fits_a_comment_and_says_how_much_was_omitted() -> None:
    specs = {
        f"g{n}": GRID.replace("search", f"g{n}")
        + f"  training.seed: [{', '.join(map(str, range(3)))}]\n"
        for n in range(110)
    }
    review = Review(HEAD, FORK, review_specs((), keyed(load(base=BASE, **specs).desired), {}))
    text = comment(review)
    assert len(text) <= BUDGET < 65_536
    assert "details omitted to fit a comment" in text
    assert "*... and 10 more*" in text
    assert text.count("<details>") == text.count("</details>") > 0
    assert text.endswith("</sub>\n")
    problems = tuple(Problem(f"{n}.yaml", 1, 1, "x" * 5000) for n in range(500))
    assert len(comment(replace(review, problems=problems))) <= BUDGET


def test_names_and_values_cannot_break_out_of_code() -> None:
    assert code("lr") == "`lr`"
    assert code("a|b`c\\") == "<code>a&#124;b&#96;c&#92;</code>"
    assert code("x\n# y\u202e") == "<code>x&#92;u000a&#35; y&#92;u202e</code>"
    assert code("") == "` `"
    assert len(code("y" * 5000)) < 200
    assert fenced("a\n````\nb") == "`````\na\n````\nb\n`````"
    assert "\n" not in code("a\r\nb\u2028c")


if __name__ == "__main__":
    for name, text in golden_texts().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
