"""Each fault that makes a training depend on interruptions is found and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mtf.errors import MtfError
from mtf.trainer.verify.training_runner import TrainingRunner
from mtf.trainer.verify.verification import REPETITION, Verdict
from tests.trainer.verify.lab import verdict

if TYPE_CHECKING:
    from pathlib import Path


def cause_of(found: Verdict) -> tuple[str, str]:
    assert not found.exact
    assert found.cause is not None
    return found.cause.kind, found.cause.text


def test_a_deterministic_training_is_exact(tmp_path: Path) -> None:
    phases = ["INIT", "TRAIN_BATCH_OPTIM_STEP", "VAL_BATCH_FORWARD"]
    found, events = verdict(tmp_path, request={"phases": phases, "stops": 4})
    assert found.exact, found.cause
    assert found.cause is None
    interrupted = [e for e in events if e["event"] == "interrupted"]
    assert {e["phase"] for e in interrupted} == set(phases)
    assert {e["kill"] for e in interrupted} == {True, False}
    assert all(e["exact"] for e in interrupted)
    (chain,) = (e for e in events if e["event"] == "chain")
    assert chain["exact"]
    assert chain["interruptions"] == 4


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {"model": {"type": "lab:Counting"}},
            ["Counting.calls (6 without the interruption, missing after it)", "/ self.calls`"],
        ),
        # and not the generator of the model, which nobody draws from
        (
            {"model": {"type": "lab:CountingInGlobal"}},
            ["lab.SEEN ({'n': 8} without the interruption, {'n': 0} after it)"],
        ),
        ({"model": {"type": "lab:Hidden"}}, ["Hidden.mean (tensor [6] "]),
    ],
)
def test_state_outside_the_checkpoint_is_named(
    changes: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    found, _ = verdict(tmp_path, **changes)
    kind, text = cause_of(found)
    assert kind == "state-outside"
    assert all(name in text for name in names), text
    assert found.finding is not None
    assert found.finding.at_resume
    assert found.finding.batch == "training batch 1 of epoch 1 (optimizer step 3)"
    assert found.finding.first.startswith("model/net.0.weight: ")


OBJECTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "optimizer-outside": (
        {"model": {"type": "lab:OwnOptimizer"}},
        "OwnOptimizer.inner (in another state after it)",
        "configure_optimizers",
    ),
    "weights-outside": (
        {"model": {"type": "lab:HiddenTeacher"}},
        "HiddenTeacher.teachers (in another state after it)",
        "nn.ModuleList",
    ),
    "metric-outside": (
        {"model": {"type": "lab:ForeignMetric"}, "request": {"phases": ["VAL_BATCH_LOAD"]}},
        "lab.MEAN (in another state after it)",
        "assign the object to an attribute of the model",
    ),
    "state-outside": (
        {"data": {"dataset_name": "lab:OwnEpochs"}},
        "OwnEpochs.drawn (",
        "set_epoch(epoch)",
    ),
    "requires-grad-outside": (
        {"callbacks": {"own": {"type": "lab:Freezing"}}},
        "Net.net.0.weight.requires_grad (True without the interruption, False after it)",
        "on_resume",
    ),
    "generator-outside": (
        {"model": {"type": "lab:Advancing"}},
        "Advancing.rng",
        "numpy.random",
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_with_state_of_their_own_are_named(kind: str, tmp_path: Path) -> None:
    changes, name, cure = OBJECTS[kind]
    found, _ = verdict(tmp_path, **changes)
    assert (cause_of(found)[0], name in cause_of(found)[1]) == (kind, True), found.cause
    assert found.cause is not None
    assert cure in found.cause.cure


def test_unsaved_state_of_a_callback_is_named(tmp_path: Path) -> None:
    kind, text = cause_of(verdict(tmp_path, callbacks={"own": {"type": "lab:Decay"}})[0])
    assert (kind, "Decay.rate (0.53" in text) == ("state-outside", True)


def test_what_a_callback_sets_at_the_start_of_an_epoch_is_named(tmp_path: Path) -> None:
    model, weighing = {"type": "lab:Weighed"}, {"own": {"type": "lab:Weighing"}}
    found, _ = verdict(tmp_path, model=model, callbacks=weighing)
    kind, text = cause_of(found)
    assert kind == "state-outside"
    assert "Weighed.weight (1 without the interruption, missing after it). It is used at" in text
    assert found.cause is not None
    assert "on_resume(training)" in found.cause.cure


def test_state_that_only_changes_the_validation_is_named(tmp_path: Path) -> None:
    request = {"phases": ["SCHEDULER_EPOCH_STEP"]}
    found, _ = verdict(tmp_path, model={"type": "lab:Counting"}, request=request)
    kind, text = cause_of(found)
    assert (kind, "Counting.calls" in text) == ("state-outside", True)
    assert found.finding is not None
    assert found.finding.batch.startswith("validation batch 0")


@pytest.mark.parametrize(
    "changes", [{"data": {"dataset_name": "lab:OwnGenerators"}}, {"entrypoint": "lab:own_order"}]
)
def test_generators_of_a_data_set_and_a_sampler_are_exact(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    assert verdict(tmp_path, **changes)[0].exact


def test_an_unseeded_generator_is_named_with_its_line(tmp_path: Path) -> None:
    found, _ = verdict(tmp_path, model={"type": "lab:Unseeded"})
    kind, text = cause_of(found)
    assert kind == "unseeded-generator"
    assert "numpy.random.default_rng() at lab.py:" in text
    assert "self.rng = np.random.default_rng()" in text
    assert found.finding is not None
    assert found.finding.stage == REPETITION


def test_code_that_reads_the_clock_is_named_with_its_line(tmp_path: Path) -> None:
    kind, text = cause_of(verdict(tmp_path, model={"type": "lab:Clocked"})[0])
    assert kind == "reads-clock"
    assert "time.time() at lab.py:" in text
    assert "time.time() % 1" in text


def test_a_nondeterministic_kernel_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTF_CPUS", "2")
    kind, text = cause_of(verdict(tmp_path, model={"type": "lab:Atomic"})[0])
    assert kind == "nondeterministic-kernel"
    assert "aten.index_put_" in text
    assert "accumulate=True" in text
    assert "use_deterministic_algorithms(True) the training repeats" in text


def test_data_that_depend_on_the_worker_are_recognised(tmp_path: Path) -> None:
    data = {"dataset_name": "lab:PerWorker", "num_workers": 2}
    assert cause_of(verdict(tmp_path, data=data)[0])[0] == "data-workers"


def test_the_order_of_a_set_is_found_in_a_new_interpreter(tmp_path: Path) -> None:
    found, _ = verdict(tmp_path, runner=TrainingRunner, data={"dataset_name": "lab:Ordered"})
    assert cause_of(found)[0] == "hash-order"


def test_a_checkpoint_that_a_resume_cannot_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        MtfError, match="the state cannot be saved: model/_extra_state is of type object"
    ):
        verdict(tmp_path, model={"type": "lab:Unstorable"})


def test_state_that_no_resume_could_read_is_an_error_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(MtfError, match=r"a training failed: .*callbacks.*own.*draw.*odd"):
        verdict(tmp_path, callbacks={"own": {"type": "lab:Keeping"}})


def test_a_training_that_fails_is_an_error_with_its_message(tmp_path: Path) -> None:
    with pytest.raises(MtfError, match=r"a training failed: .*lab has no 'Nowhere'"):
        verdict(tmp_path, model={"type": "lab:Nowhere"})


def test_a_training_that_raises_is_an_error_with_all_lines_and_the_place(tmp_path: Path) -> None:
    with pytest.raises(MtfError, match="a training failed:\n") as failed:
        verdict(tmp_path, data={"dataset_name": "lab:Broken", "num_workers": 1})
    text = str(failed.value)
    assert "is broken:" in text
    assert "no header" in text
    assert 'lab.py", line' in text
    assert "in __getitem__" in text
    assert "one_trial" not in text


@pytest.mark.parametrize(
    ("entrypoint", "is_exact"), [("own_training", True), ("loop", True), ("forgetful_loop", False)]
)
def test_entry_points_are_verified(entrypoint: str, is_exact: bool, tmp_path: Path) -> None:
    phases: list[Any] = ["TRAIN_BATCH_LOAD"] if entrypoint == "own_training" else []
    found, events = verdict(tmp_path, entrypoint=f"lab:{entrypoint}", request={"phases": phases})
    assert found.exact is is_exact
    if not is_exact:
        assert cause_of(found)[0] == "own-loop"
    assert any(e["event"] == "interrupted" for e in events)


def test_a_phase_that_never_occurs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MtfError, match="never reaches VAL_BATCH_END"):
        verdict(tmp_path, data={"val_split": None}, request={"phases": ["VAL_BATCH_END"]})
