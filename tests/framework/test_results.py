"""What runs have reached, from Python and as files: results, curves, weights."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf import History, ModelTrainingFramework, MtfError, ParameterGrid, ValueTable, load_model
from mtf.framework.results.notebook_html import curves_html
from mtf.framework.results.scalar_history import read_history
from tests.cli.lab import SETTINGS, stop_jobs
from tests.cli.mtf import mtf, mtf_json
from tests.repos import make_repo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf import Run

NETS = """\
import torch
from torch import nn

WIDTH = 16

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b = nn.Linear(64, WIDTH), nn.Linear(WIDTH, num_classes)
        self.tied = self.a
        self.register_buffer("table", torch.arange(6).reshape(2, 3).t())

    def forward(self, x):
        return self.b(self.a(x.flatten(1)).relu())
"""
BASE: dict[str, Any] = {
    "model": {"type": "nets:Net"},
    "data": {"dataset_name": "digits", "num_workers": 0},
    "training": {"max_epochs": 2, "use_amp": False, "batch_size": 64},
    "optimizer": {"type": "adamw", "lr": 1e-2},
    "callbacks": {"ema": {"decay": 0.5, "evaluate": False}},
    "logging": {"log_scalars_every_n_steps": 10},
}
RATES = ParameterGrid("rates", {"optimizer.lr": [1e-5, 1e-2]})


class Lab:
    """A repository with a grid of two trained runs; the second has learned something."""

    def __init__(self, folder: Path) -> None:
        self.repo = make_repo(folder / "lab", {"mtf.yaml": SETTINGS, "nets.py": NETS})
        self.path = self.repo.path
        self.framework = ModelTrainingFramework(self.path)
        self.runs = self.framework.run_grid_search(BASE, [RATES], local=True)
        self.runs.wait(0.2, progress=False)
        self.poor = self.framework.run("rates/lr=1e-05")
        self.good = self.framework.run("rates/lr=0.01")


_LABS: list[Lab] = []


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return the lab that all tests share; the first one makes it."""
    if not _LABS:
        _LABS.append(Lab(tmp_path_factory.mktemp("results")))
    return _LABS[0]


@pytest.fixture(autouse=True, scope="module")
def stop_workers() -> Iterator[None]:
    yield
    for lab in _LABS:
        stop_jobs(lab.path)
    _LABS.clear()


@pytest.fixture
def good(lab: Lab) -> Run:
    return lab.good


# -- results ---------------------------------------------------------------------------------------


def test_the_results_of_a_grid_are_typed_and_the_best_comes_first(lab: Lab) -> None:
    found = lab.framework.results("rates")
    assert [result.run for result in found] == [lab.good.id, lab.poor.id]
    best = found[0]
    assert (best.name, best.state, best.epoch) == ("rates/lr=0.01", "completed", 2)
    assert best.parameters == {"optimizer.lr": 0.01}
    assert best.metrics == lab.good.metrics
    assert best.best is not None
    assert best.best.value == best.metrics["val_loss"]
    assert lab.good.result == best
    table = found.table
    assert table["optimizer.lr"] == [0.01, 1e-5]
    assert table["val_loss"] == [r.metrics["val_loss"] for r in found]
    assert {"name", "state", "run", "best_val_loss"} <= set(table.columns)
    with pytest.raises(KeyError, match=r"no column 'loss'; there are name, state"):
        table["loss"]


def test_runs_are_chosen_by_the_conditions_of_the_command_line(lab: Lab) -> None:
    loss = lab.good.metrics["val_loss"]
    assert [r.id for r in lab.framework.runs(where=f"val_loss<={loss}")] == [lab.good.id]
    both = ["state=completed", "lr=1e-5"]
    (found,) = lab.framework.runs("rates/*", where=both)
    assert found.id == lab.poor.id
    assert len(lab.framework.runs()) == 2
    assert list(lab.framework.runs(where="state=failed")) == []
    with pytest.raises(MtfError, match=r"no run has a metric or parameter 'val_los'\. Did you"):
        lab.framework.runs(where="val_los<1")
    assert lab.framework.run("rates/lr=0.01").id == lab.good.id
    with pytest.raises(MtfError, match="no such run"):
        lab.framework.run("nothing")


def test_a_frame_has_the_rows_of_the_table(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []

    def frame(columns: Any, **_: Any) -> str:
        taken.append(columns)
        return "frame"

    for name in ("pandas", "polars"):  # neither is needed to test what they get
        library = SimpleNamespace(DataFrame=frame, __spec__=object())
        monkeypatch.setitem(sys.modules, name, library)
    found = lab.framework.results("rates")
    assert (found.to_pandas(), found.to_polars()) == ("frame", "frame")
    assert taken[0] == taken[1]
    assert taken[0]["optimizer.lr"] == [0.01, 1e-5]


def test_without_pandas_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MtfError, match=r"pandas is not installed .* Run pip install pandas"):
        ValueTable({"a": [1]}).to_pandas()


def test_a_run_tells_its_configuration_and_its_output(good: Run) -> None:
    assert good.config["model"] == {"type": "nets:Net"}
    assert good.config["optimizer"]["lr"] == 0.01
    assert isinstance(good.logs(), str)
    assert "use_amp" not in good.logs(err=True)


def test_the_history_has_each_scalar_as_a_column(good: Run) -> None:
    history = good.history()
    assert history.columns[:2] == ["step", "epoch"]
    assert {"train_loss", "lr", "val_loss", "train_loss_epoch"} <= set(history.columns)
    last = history.curve("val_loss")[-1]
    assert last[1] == good.metrics["val_loss"]
    assert [row["val_loss"] for row in history if row["val_loss"] is not None] == [
        value for _, value in history.curve("val_loss")
    ]


def test_a_history_without_rows_and_with_a_torn_one_can_be_read(tmp_path: Path) -> None:
    assert len(read_history(str(tmp_path))) == 0
    assert "0 rows" in read_history(str(tmp_path))._repr_html_()
    rows = '{"step": 1, "epoch": 0, "train_loss": null, "train_loss_text": "NaN", "lr": 0.1}\n{"st'
    (tmp_path / "scalars.jsonl").write_text(rows)
    (row,) = read_history(str(tmp_path))
    assert (row["step"], row["lr"]) == (1, 0.1)
    assert math.isnan(row["train_loss"])
    assert "<svg" in read_history(str(tmp_path))._repr_html_()  # of lr; the other has no point


# -- in a notebook ---------------------------------------------------------------------------------


def elements(html: str, name: str) -> list[ET.Element]:
    return list(ET.fromstring(f"<div>{html}</div>").iter(name))


def test_results_and_runs_are_tables_in_a_notebook(lab: Lab) -> None:
    for shown in (lab.framework.results("rates"), lab.framework.runs(), lab.runs):
        html = shown._repr_html_()
        assert html is not None
        texts = [cell.text for cell in elements(html, "td")]
        assert {"rates/lr=0.01", "rates/lr=1e-05", "completed"} <= set(texts)
    assert "rates/lr=0.01" in repr(lab.framework.results("rates"))


def test_a_run_shows_its_curves_in_colours_of_the_page(good: Run) -> None:
    html = good._repr_html_()
    charts = elements(html, "svg")
    titles = [str(chart.get("aria-label")).partition(":")[0] for chart in charts]
    assert {"loss", "accuracy", "lr"} <= set(titles)
    frames = elements(html, "rect")
    assert [frame.get("stroke") for frame in frames] == ["currentColor"] * len(charts)
    assert not re.search(r"https?://|<script", html)


def test_a_name_in_a_table_is_text_and_no_markup() -> None:
    html = ValueTable({"<b>": ["<script>alert(1)</script>"]}, "<i>")._repr_html_()
    assert "<script" not in html
    assert [cell.text for cell in elements(html, "td")] == ["<script>alert(1)</script>"]


def test_a_long_curve_keeps_its_peaks_and_its_gaps() -> None:
    curve = [(float(x), 0.0) for x in range(10_000)]
    curve[5_003] = 5_003.0, 100.0
    curve[7_000] = 7_000.0, math.nan
    html = curves_html({"loss": {"train_loss": curve}})
    assert len(html) < 12_000
    (path,) = elements(html, "path")
    assert " 4.0" in str(path.get("d"))  # the peak, at the top of the frame
    assert "nan" not in html
    assert curves_html({"loss": {"train_loss": [(1.0, math.inf)]}}).count("<svg") == 0


# -- weights ---------------------------------------------------------------------------------------


def test_a_checkpoint_is_loaded_into_a_model(lab: Lab, good: Run) -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(64, 16), "b": torch.nn.Linear(16, 10)})
    with pytest.raises(MtfError, match="the weights do not fit the model: not in the model: table"):
        good.checkpoint.load(model)
    assert good.checkpoint.load(model, strict=False) is model
    held = good.checkpoint.state_dict()
    assert torch.equal(model.state_dict()["a.weight"], held["a.weight"])
    average = good.checkpoint.state_dict(average=True)
    assert not torch.equal(average["a.weight"], held["a.weight"])
    assert good.best_checkpoint.epoch in (1, 2)


def test_a_model_is_built_by_its_pinned_code_whatever_the_work_tree_holds(lab: Lab) -> None:
    held = lab.good.checkpoint.state_dict()
    (lab.path / "nets.py").write_text("WIDTH = 3\n")
    sys.path.insert(0, str(lab.path))
    try:
        nets = importlib.import_module("nets")
        for model in (
            load_model(lab.good),
            load_model("rates/lr=0.01", root=lab.path, best=True),
            load_model(Path(lab.good.result.run_dir)),
        ):
            assert type(model).__name__ == "Net"
            assert not model.training
            assert all(torch.equal(value, held[n]) for n, value in model.state_dict().items())
        assert sys.modules["nets"] is nets
        assert nets.WIDTH == 3
    finally:
        sys.path.remove(str(lab.path))
        sys.modules.pop("nets", None)
        lab.repo.git("checkout", "-q", "nets.py")


def test_an_export_is_a_plain_file_with_its_facts_beside_it(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    told = mtf(lab.path, "checkpoint", "export", "rates/lr=0.01", "-o", str(file))
    assert told.stdout.startswith(f"{file}: 7 tensors of {lab.good.id}, epoch 2, step ")
    assert "the run also has averaged weights (callbacks.ema): --average" in told.stderr
    held = lab.good.checkpoint.state_dict()
    weights = torch.load(file, weights_only=True)
    assert list(weights) == list(held)
    assert all(torch.equal(weights[name], held[name]) for name in held)
    facts = json.loads(file.with_name("weights.pt.json").read_text())
    assert (facts["run"], facts["commit"]) == (lab.good.id, lab.repo.git("rev-parse", "HEAD"))
    assert facts["config"]["optimizer"]["lr"] == 0.01
    assert facts["checkpoint"]["sha256"] == lab.good.checkpoint.sha256
    again = mtf(lab.path, "checkpoint", "export", "rates/lr=0.01", "-o", str(file), code=64)
    assert "exists. Name another file, or add --force to replace it" in again.stderr
    average = mtf_json(
        lab.path,
        *("checkpoint", "export", "rates/lr=0.01", "-o", str(file)),
        *("--force", "--average", "--json"),
    )
    assert average["tensors"] == 7
    weights = torch.load(file, weights_only=True)
    assert torch.equal(weights["a.bias"], lab.good.checkpoint.state_dict(average=True)["a.bias"])


def test_a_safetensors_file_holds_the_facts_too(lab: Lab, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    file = tmp_path / "weights.safetensors"
    mtf(lab.path, "checkpoint", "export", "rates/lr=0.01", "--best", "-o", str(file))
    with safetensors.safe_open(file, "pt") as opened:
        facts = opened.metadata()
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert facts["run"] == lab.good.id
    assert json.loads(facts["config"])["model"] == {"type": "nets:Net"}
    held = lab.good.best_checkpoint.state_dict()
    assert weights.keys() == held.keys()  # tied weights under both names, and one with gaps
    assert all(torch.equal(weights[name], held[name]) for name in held)


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("rates/lr=0.01", "-o", "w.bin"), "must end in .pt or .safetensors", 64),
        (("rates/lr=0.01", "-o", "no/w.pt"), "there is no folder no. Make it first", 64),
        (("rate", "-o", "w.pt"), "rate: names 2 runs. Choose one", 1),
        (("nothing", "-o", "w.pt"), "nothing: no such run", 1),
    ],
)
def test_an_export_that_cannot_be_writes_nothing(
    words: tuple[str, ...], message: str, code: int, lab: Lab
) -> None:
    refused = mtf(lab.path, "checkpoint", "export", *words, code=code)
    assert message in refused.stderr
    assert not list(lab.path.glob("w.*"))


def test_a_damaged_checkpoint_is_neither_exported_nor_loaded(lab: Lab, tmp_path: Path) -> None:
    path = lab.poor.checkpoint.path
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-1])
        refused = mtf(
            lab.path, "checkpoint", "export", lab.poor.id, "-o", f"{tmp_path}/w.pt", code=1
        )
        assert "is not the recorded checkpoint: its sha256 is another" in refused.stderr
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(MtfError, match="is not the recorded checkpoint"):
            load_model(lab.poor)
    finally:
        path.write_bytes(whole)


def test_a_history_is_a_table_of_its_own_kind(good: Run) -> None:
    assert isinstance(good.history(), History)
