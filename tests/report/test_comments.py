"""The comment on a pull request: its text to the letter, its size, and that nothing breaks out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.core.review.changed_runs import Review, differences, review_specs
from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.records import Best
from mtf.core.vocabulary.states import RunState
from mtf.errors import Problem
from mtf.report.comments import BUDGET, comment
from mtf.report.markup import code, fenced
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


def told() -> Review:
    """A base that changes under a grid that grows, a probe that goes, a run that is there."""
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
    experiments = {k: e for d, keys in (*then, *now) for k, e in zip(keys, d.experiments, strict=True)}  # fmt: skip
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
            Problem("experiments/base.yaml", 4, 60, "search: at most 144 GPU-hours, 100 are allowed", rule="max_gpu_hours"),
            Problem("experiments/x.yaml", 1, 1, "kind is missing: write kind: experiment, grid or base"),
        ),
        over_budget=(("pull_request.max_runs", "3 runs, 2 are allowed"),),
        settings=tuple(differences({"retry": {"max_attempts": 3}}, {"retry": {"max_attempts": 5}})),
        policies=tuple(differences({"max_gpu_hours": None}, {"max_gpu_hours": 100})),
    )  # fmt: skip


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    assert text == path.read_text(encoding="utf-8"), f"{name} differs: look at it, then replace it"


def test_the_comment_to_the_letter() -> None:
    text = comment(told())
    config = re.compile(r"(?<=experiment_name: \"training.seed=1\"\n).*?(?=```)", re.DOTALL)
    assert "  lr: 0.0003\n" in "".join(config.findall(text))
    golden("comment.md", config.sub("", text))


def test_the_same_for_a_terminal() -> None:
    golden("review.txt", review_text(told()) + "\n")


def test_the_same_as_json() -> None:
    value = json.loads(review_json(told()))
    assert value["format"] == 1
    assert value["totals"] == {
        "new": 1, "changed": 2, "done": 1, "unchanged": 1, "removed": 1,
        "gpu_hours": 144.0, "cpu_hours": 288.0,
    }  # fmt: skip
    assert [d["key"] for d in value["differences"] if d["reruns"]] == ["generation", "optimizer.lr"]
    assert [a["experiment"] for a in value["actions"]] == [
        "training.seed=3", "training.seed=1", "training.seed=2",
    ]  # fmt: skip
    back, one, probe, search = value["specs"]
    assert (back["done"], back["best"]["value"]) == (["back"], 0.9625)
    assert one["unchanged"] == ["one"]
    assert probe["going_on"] == ["probe/20260101T110000Z/cccccccc"]
    assert search["parameters"] == {"training.seed": [1, 2, 3]}


def test_nothing_changes() -> None:
    text = comment(Review(HEAD, FORK, ()))
    assert text.startswith("<!-- mtf-plan:v1 -->\n### mtf plan: nothing changes\n")


def test_a_huge_plan_fits_a_forge_and_says_what_was_cut() -> None:
    specs = {
        f"g{n}": GRID.replace("search", f"g{n}")
        + f"  training.seed: [{', '.join(map(str, range(3)))}]\n"
        for n in range(110)
    }
    review = Review(HEAD, FORK, review_specs((), keyed(load(base=BASE, **specs).desired), {}))
    text = comment(review)
    assert len(text) <= BUDGET < 65_536
    assert "details left out: too long for a comment" in text
    assert "*... and 10 more*" in text
    assert text.count("<details>") == text.count("</details>") > 0
    assert text.endswith("</sub>\n")
    problems = tuple(Problem(f"{n}.yaml", 1, 1, "x" * 5000) for n in range(500))
    assert len(comment(replace(review, problems=problems))) <= BUDGET


def test_what_others_wrote_stays_text() -> None:
    assert code("lr") == "`lr`"
    assert code("a|b`c\\") == "<code>a&#124;b&#96;c&#92;</code>"
    assert code("x\n# y\u202e") == "<code>x&#92;u000a&#35; y&#92;u202e</code>"
    assert code("") == "` `"
    assert len(code("y" * 5000)) < 200
    assert fenced("a\n````\nb") == "`````\na\n````\nb\n`````"
    assert "\n" not in code("a\r\nb\u2028c")
