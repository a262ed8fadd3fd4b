"""Files of any shape are errors at a place: the bad one is named, and the others go on.

Records of the ledger are in ``tests/ledger/test_codec.py``, plain YAML in ``tests/spec/yaml``.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtf.core.planner.journal_reader import fold, with_progress
from mtf.errors import Problem, SpecError
from mtf.ledger.codec import encode_run
from mtf.rundir import JOURNAL, read_journal
from mtf.spec.compose.config_groups import Groups
from mtf.spec.load import load_specs
from mtf.spec.schema.settings import parse_settings
from mtf.spec.yaml.reader import load_yaml
from tests.ledger.test_store import RUN
from tests.spec.samples import EXPERIMENT, STAMP

if TYPE_CHECKING:
    from collections.abc import Callable

SINGLE = """\
kind: experiment
experiment_name: bad
model: {type: mlp, hidden_size: 8}
data: {dataset_name: digits}
optimizer: {type: adamw, lr: 0.1, betas: [0.9, 0.99]}
slurm: {time: "1:00", variables: {A: b}, extra: [--nice=1], modules: [cuda]}
callbacks: {ema: {decay: 0.9}}
init_from: {run: one}
rerun_on: [src]
training: {max_epochs: 2}
"""
GRID = """\
kind: grid
name: bad
base: {model: {type: mlp}, data: {dataset_name: digits}}
parameters: {model.hidden_size: [8, 16]}
linked: [[{optimizer.lr: 0.1, training.seed: 1}]]
conditional: [{set: {model.dropout: [0.1, 0.2]}, when: {model.hidden_size: 8}}]
sample: {optimizer.weight_decay: {distribution: uniform, low: 0, high: 1, n: 2}}
exclude: [{model.hidden_size: 16, training.seed: 1}]
naming: parameters
"""
COMPOSED = """\
kind: experiment
experiment_name: bad
defaults: [_self_, {model: small}, {optional data@data: x}]
data: {dataset_name: digits, x: "${model.type}"}
"""
SPECS = [load_yaml(text.encode(), "a")[0] for text in (SINGLE, GRID, COMPOSED)]
CONF = {"conf/model/small.yaml": b"type: mlp\n"}
SETTINGS = load_yaml(
    b"""\
branch: main
experiments: experiments
runs_root: runs
slurm: {partition: low}
cluster: {name: big, partitions: {low: {time: "1:00:00", nodes: [{count: 2, cpus: 8, mem: 10G}]}}}
clusters: {other: {executor: local}}
retry: {on: [preempted], backoff: 1}
environment: {modules: [a], variables: {A: 1}}
local: {max_parallel: 2}
policies: {max_gpus: 4}
""",
    "a",
)[0]
TEXTS = (
    "${oc.env:HOME} ${a} ??? .. ../../x ~ $HOME {{7*7}} nan 1e5 _self_ _target_ a.b.c 0 \0 \ud800"
)
HOSTILE: list[Any] = [*TEXTS.split(" "), "", " ", "\n", "\u202e", "\x1b[31m", "a" * 5000]
HOSTILE += [None, True, 0, -1, 2**63, 2**64, -(10**400), 10**400, 1e308, -0.0, 1e-320]
HOSTILE += [[], {}, [[]], {"": 1}, {"type": "x"}, {"run": "x"}, [None] * 300, [["x"]]]
HOSTILE += [{"defaults": ["a"]}, {"_target_": "os.system"}, {str(i): i for i in range(300)}]
KEYS = st.text(max_size=9) | st.sampled_from(["a.b", "${x}", "x" * 2000, "", "type", "defaults"])
JSON = st.recursive(
    st.sampled_from(HOSTILE) | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values within a value."""
    items: Any = enumerate(value) if isinstance(value, list) else ()
    items = value.items() if isinstance(value, dict) else items
    return [at, *(place for key, item in items for place in places(item, (*at, key)))]


def changed(draw: Callable[..., Any], value: Any) -> Any:
    """Return a value with others at one to three of its places, or with further keys."""
    made = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from([place for place in places(made) if place]))
        parent = made
        for key in above:
            parent = parent[key]
        if isinstance(parent, dict) and draw(st.booleans()):
            last = draw(KEYS)
        parent[last] = copy.deepcopy(draw(JSON))
    return made


@settings(max_examples=250)
@given(st.data())
def test_a_spec_of_any_shape_is_read_or_named_and_the_others_go_on(data: st.DataObject) -> None:
    spec = changed(data.draw, data.draw(st.sampled_from(SPECS)))
    raw = json.dumps(spec).encode()
    files = {"experiments/bad.yaml": raw, "experiments/one.yaml": EXPERIMENT.encode()}
    loaded = load_specs(files, parse_settings(b""), STAMP, Groups(lambda: CONF))
    names = {desired.name for desired in loaded.desired}
    assert "one" in names
    assert len(names) == 2 or loaded.problems or spec["kind"] == "base"
    for problem in map(str, loaded.problems):
        assert re.match(r"(experiments|conf)/[a-z/]+\.yaml:\d+:\d+: .", problem)
    for desired in loaded.desired:
        json.dumps([experiment.config for experiment in desired.experiments], allow_nan=False)


def settings_problems(raw: bytes) -> list[Problem]:
    """Return the problems of settings, none if they can be used."""
    try:
        parse_settings(raw).serving("other").slurm_defaults()
    except SpecError as e:
        return e.problems
    return []


@settings(max_examples=150)
@given(st.data())
def test_settings_of_any_shape_are_read_or_wrong_at_a_place(data: st.DataObject) -> None:
    for problem in settings_problems(json.dumps(changed(data.draw, SETTINGS)).encode()):
        assert re.match(r"mtf\.yaml:\d+:\d+: .", str(problem))


KINDS = (
    "started proof progress metrics checkpoint unsaved stopped failed refused noted finished else"
)
FIELDS = (
    "at token job_id epoch step total_steps max_epochs steps_per_s eta_s metrics monitor mode path"
    " sha256 bytes reason packages_sha256"
)
EVENTS = st.fixed_dictionaries(
    {"event": st.sampled_from(KINDS.split())}, optional=dict.fromkeys(FIELDS.split(), JSON)
)
ODD = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"event": 1}',
    b"\xff\xfe",
    b'{"event": "failed", "reason": "\\ud800"}',
]
ODD += [b'{"event": "metrics", "metrics": {"a": NaN}}', b'{"event": "progress", "epoch": 1e999}']
ODD += [b"[" * 100_000, b'{"event": "progress", "epoch": ' + b"9" * 5000 + b"}"]
LINES = EVENTS.map(json.dumps).map(str.encode) | st.binary(max_size=30) | st.sampled_from(ODD)


@settings(max_examples=120)
@given(st.lists(LINES, max_size=8))
@example(ODD)
def test_a_journal_of_any_lines_gives_a_record_that_can_be_written(lines: list[bytes]) -> None:
    last = b'{"event": "progress", "epoch": 3, "step": 17}'
    with tempfile.TemporaryDirectory() as where:
        (Path(where) / JOURNAL).write_bytes(b"\n".join([*lines, last]))
        progress = fold(read_journal(Path(where)), "/runs/a")
    assert (progress.epoch, progress.step) == (3, 17)
    encode_run(with_progress(RUN, progress))
