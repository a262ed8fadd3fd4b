"""JSON that mtf writes is strict, and gives back the numbers that JSON has no way to write."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf import rundir
from mtf.cli.show_runs import results_as_json
from mtf.commands.show_runs import as_json_list
from mtf.core.planner.journal_reader import fold
from mtf.core.planner.rows.run_rows import recorded_row
from mtf.core.scalar_rows import row_values
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.records import Best
from mtf.ledger.codec import decode_run, encode_run
from mtf.reconcile import summaries
from mtf.trainer.storage.scalars import SCALARS, Scalars
from tests.core.planner.worlds import experiment, record

NAMES = st.sampled_from(["a", "a_text", "a_text_text", "b"])
NUMBERS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf])
METRICS = st.dictionaries(NAMES, NUMBERS, max_size=4)
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.integers() | st.sampled_from(["x", "NaN and others"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def strict(text: str | bytes) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # NaN equals itself, and 0.0 is not -0.0


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_numbers_are_written_as_strict_json_and_read_back(value: dict[str, Any]) -> None:
    text = json_text.dumps(value)
    strict(text)
    assert same(json_text.loads(text), value)
    assert same(json_text.loads(text.encode()), value)


def test_a_number_that_is_not_finite_is_null_with_its_name_beside_it() -> None:
    value = {"loss": math.nan, "nested": [{"norm": -math.inf}], "ppl": [1.0, math.inf]}
    assert strict(json_text.dumps(value)) == {
        "loss": None,
        "loss_text": "NaN",
        "nested": [{"norm": None, "norm_text": "-Infinity"}],
        "ppl": [1.0, None],
        "ppl_text": [None, "Infinity"],
    }


def test_a_name_takes_no_other_keys_place() -> None:
    text = json_text.dumps({"loss": math.nan, "loss_text": 0.5})
    assert strict(text) == {"loss": None, "loss_text_text": "NaN", "loss_text": 0.5}


def test_finite_json_is_that_of_the_standard_library() -> None:
    value = {"b": [1, 2.5, None, "é"], "a": {}}
    assert json_text.dumps(value) == json.dumps(value)
    options: Any = {"indent": 1, "sort_keys": True, "ensure_ascii": False}
    assert json_text.dumps(value, **options) == json.dumps(value, **options)


def test_files_of_earlier_versions_with_bare_nan_are_read() -> None:
    assert same(
        json_text.loads('{"loss": NaN, "ppl": Infinity}'), {"loss": math.nan, "ppl": math.inf}
    )


@given(METRICS)
def test_the_journal_is_strict_json_and_gives_the_metrics_back(metrics: dict[str, float]) -> None:
    with TemporaryDirectory() as folder:
        rundir.append_journal(Path(folder), "metrics", {"epoch": 1, "step": 2, "metrics": metrics})
        strict(Path(folder, rundir.JOURNAL).read_bytes())
        events = rundir.read_journal(Path(folder))
    assert same(dict(fold(events, folder).metrics), metrics)


@given(st.lists(METRICS, max_size=3))
def test_scalars_are_strict_json_and_give_their_rows_back(rows: list[dict[str, float]]) -> None:
    with TemporaryDirectory() as folder:
        scalars = Scalars(Path(folder))
        for row in rows:
            scalars.append(row)
        for line in Path(folder, SCALARS).read_bytes().splitlines():
            strict(line)
        assert same(list(scalars.rows()), rows)
        scalars.close()


def test_a_mirror_gets_the_same_numbers_from_the_file_as_from_the_training(tmp_path: Path) -> None:
    histogram = {"norm": math.inf, "low": 0.0, "high": 0.0, "counts": []}
    row = {"epoch": 1, "step": 1, "val_loss": math.nan, "gradients": {"w": histogram}}
    scalars = Scalars(tmp_path)
    scalars.append(row)
    (read,) = scalars.rows()
    scalars.close()
    assert same(row_values(read).numbers, row_values(row).numbers)
    assert same(row_values(read).numbers["gradients/w/norm"], math.inf)


@given(METRICS, NUMBERS.filter(lambda value: not math.isnan(value)))
def test_records_and_what_commands_print_of_them_are_strict_json(
    metrics: dict[str, float], best: float
) -> None:
    run = record(experiment(), metrics=metrics, best=Best("a", best, 1, 2))
    raw = encode_run(run)
    strict(raw)
    assert same(decode_run(raw), run)
    (status,) = strict(as_json_list([recorded_row(run)]))
    assert same(json_text.without_names(status["metrics"]), metrics)
    (result,) = strict(results_as_json([run]))
    assert same(json_text.without_names(result["metrics"]), metrics)
    (summary,) = strict(summaries.results([run]))["runs"]
    assert same(json_text.without_names(summary["metrics"]), metrics)


@pytest.mark.parametrize("value", [b"null", b"NaN", b'null, "value_text": "NaN"'])
def test_a_best_value_that_is_no_number_is_not_read(value: bytes) -> None:
    raw = encode_run(replace(record(experiment()), best=Best("a", 0.25, 1, 2)))
    assert b'"value": 0.25' in raw
    assert decode_run(raw.replace(b'"value": 0.25', b'"value": ' + value)).best is None
