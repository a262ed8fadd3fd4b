"""The evidence of the probes leads to the right diagnosis."""

from __future__ import annotations

from dataclasses import replace

from mtf.trainer.verify.batch_records import BatchPosition, BatchRecord, first_difference
from mtf.trainer.verify.diagnose import Evidence, why_not_repeatable, why_not_resumable
from mtf.trainer.verify.random_sources import CLOCK, UNSEEDED, Source
from mtf.trainer.verify.tensor_ops import Op, first_different_op

POSITION = BatchPosition("training", 0, 1, 1)
RECORD = BatchRecord(POSITION, 1, "same", (1.0,), "loss")
OP = Op("0.False.1.TRAIN_BATCH_FORWARD", 1, "aten.mul", "in", "2.0", "", "out", "m.py:5", "x * f()")
LOG = Source(CLOCK, "time.time()", "log.py", 9, "now = time.time()")
CLOCK_THERE = Source(CLOCK, "time.time()", "m.py", 5, "x * f()")
DICE = Source(UNSEEDED, "os.urandom()", "data.py", 3, "seed = os.urandom(8)")


def test_an_operation_with_equal_inputs_and_different_outputs_is_a_kernel() -> None:
    seen = Evidence(op=(OP, replace(OP, output="other")), sources=(LOG, DICE))
    assert why_not_repeatable(seen).kind == "nondeterministic-kernel"


def test_the_clock_is_the_cause_before_an_unseeded_draw_if_its_line_differs() -> None:
    other = replace(OP, numbers="3.0", output="other")
    assert why_not_repeatable(Evidence(op=(OP, other), sources=(LOG, DICE))).kind == (
        "unseeded-generator"
    )
    seen = Evidence(op=(OP, other), sources=(DICE, LOG, CLOCK_THERE))
    cause = why_not_repeatable(seen)
    assert cause.kind == "reads-clock"
    assert "m.py:5" in cause.text


def test_of_many_different_attributes_those_on_the_differing_line_are_named() -> None:
    op = replace(OP, text="x * self.scale")
    hidden = {"Net.log": ("1", "2"), "Net.scale": ("3", "4")}
    cause = why_not_resumable(Evidence(op=(op, replace(op, output="other")), hidden=hidden))
    assert cause.kind == "state-outside"
    assert "Net.scale (3 without the interruption, 4 after it)" in cause.text
    assert "Net.log" not in cause.text


def test_a_log_that_reads_the_clock_is_not_the_cause_where_state_is_unsaved() -> None:
    seen = Evidence(sources=(LOG,), hidden={"Net.calls": ("3", "0")})
    assert why_not_resumable(seen).kind == "state-outside"


def test_an_unexplained_difference_names_the_first_operation() -> None:
    op = replace(OP, numbers="1.0", output="other")
    cause = why_not_resumable(Evidence(batches=(RECORD, RECORD), op=(OP, op)))
    assert cause.kind == "unknown"
    assert "aten.mul at m.py:5: `x * f()`, which gets 2.0 and then 1.0" in cause.text


def test_the_first_difference_is_that_of_the_earliest_batch() -> None:
    later = replace(RECORD, position=replace(POSITION, batch=2), loss="a")
    whole = {r.position.key: r for r in (RECORD, later)}
    other = whole | {later.position.key: replace(later, loss="b")}
    assert first_difference(whole, whole) is None
    found = first_difference(whole, other)
    assert found is not None
    assert found[0].position.batch == 2


def test_operations_are_compared_batch_by_batch() -> None:
    ours = {"a": [OP], "b": [OP, OP]}
    assert first_different_op(ours, ours) is None
    theirs = {"b": [OP, replace(OP, output="other")]}
    assert first_different_op(ours, theirs) == (OP, replace(OP, output="other"))
