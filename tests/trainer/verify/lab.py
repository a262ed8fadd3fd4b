"""A user's repository with one exact training and many that differ after an interruption."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.trainer.verify.__main__ import REQUEST
from mtf.trainer.verify.training_runner import Training, TrainingRunner, VerifyRequest
from mtf.trainer.verify.verification import Verdict, verify
from tests.trainer.runs import config_with

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.trainer.verify.parallel_trials import Steps

CODE = """\
import copy, random, time
import numpy as np
import torch
import torchmetrics
from torch import nn
from torch.utils.data import Dataset, get_worker_info
from mtf.trainer.loop.callbacks import Callback
from mtf.trainer.loop.phases import Phase

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, num_classes))
    def forward(self, x):
        return self.net(x)
    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

class Counting(Net):
    calls = 0
    def training_step(self, batch):
        self.calls += 1
        return self.loss(batch) / self.calls

SEEN = {"n": 0}

class CountingInGlobal(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.idle = np.random.default_rng()
    def training_step(self, batch):
        SEEN["n"] += 1
        return self.loss(batch) / SEEN["n"]

class Advancing(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.rng = random.Random(7)
    def training_step(self, batch):
        return self.loss(batch) * (1 + self.rng.random())

class Unseeded(Advancing):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.rng = np.random.default_rng()

class Hidden(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.mean = torch.zeros(6)
    def training_step(self, batch):
        self.mean += batch[0].mean(0).detach()
        return self.loss((batch[0] - self.mean, batch[1]))

class Clocked(Net):
    def training_step(self, batch):
        return self.loss(batch) * (1 + time.time() % 1)

class OwnOptimizer(Net):
    "Steps a part by an optimizer of its own, whose momentum no checkpoint holds."
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.shift = nn.Parameter(torch.zeros(6))
        self.inner = torch.optim.SGD([self.shift], lr=0.1, momentum=0.9)
    def training_step(self, batch):
        self.inner.step()
        return self.loss((batch[0] - self.shift, batch[1]))

class HiddenTeacher(Net):
    "Follows a slow copy of itself, which it keeps in a list so that it is not trained."
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.teachers = [copy.deepcopy(self.net)]
    def training_step(self, batch):
        teacher = self.teachers[0]
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), self.net.parameters()):
                slow.lerp_(fast, 0.1)
        return self.loss(batch) + (self(batch[0]) - teacher(batch[0]).detach()).pow(2).mean()

MEAN = torchmetrics.MeanMetric()

class ForeignMetric(Net):
    def training_step(self, batch):
        return self.loss(batch)
    def validation_step(self, batch):
        MEAN.update(self.loss(batch))
        return {"loss": MEAN.compute()}

class Unstorable(Net):
    def get_extra_state(self):
        return object()
    def set_extra_state(self, state):
        pass

class Atomic(Net):
    "With two threads, index_put_ adds in any order: a kernel that is not deterministic."
    def training_step(self, batch):
        where = torch.arange(200_000) % 4
        what = torch.sin(torch.arange(200_000.0)) * batch[0].mean()
        return self.loss(batch) * torch.zeros(4).index_put_((where,), what, accumulate=True).sum()

class Decay(Callback):
    "Decays the learning rate, and forgets at a resume how far it was."
    phases = (Phase.TRAIN_BATCH_END,)
    rate = 1.0
    def after(self, phase, training):
        self.rate *= 0.9
        for optimizer in training.engine.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.rate * 0.01

class Freezing(Callback):
    "Freezes a layer in each process that resumes, and in no other."
    def on_resume(self, training):
        training.engine.module.net[0].requires_grad_(False)

class Weighing(Callback):
    "Sets a weight of the loss at the start of each epoch, and not again at a resume within one."
    phases = (Phase.TRAIN_START_EPOCH,)
    def before(self, phase, training):
        training.engine.module.weight = training.state.epoch

class Weighed(Net):
    def training_step(self, batch):
        return self.loss(batch) * (1 + getattr(self, "weight", 0))
    def validation_step(self, batch):
        return {"loss": self.loss(batch)}

class Keeping(Callback):
    "Keeps an object in its state that no resume could read."
    def state_dict(self):
        return {"mean": np.float64(0.5), "draw": [{"odd": object()}]}

class Data(Dataset):
    num_classes = 3
    def __init__(self, split):
        generator = torch.Generator().manual_seed(len(split))
        self.x = torch.randn(30 if split == "train" else 9, 6, generator=generator)
    def __len__(self):
        return len(self.x)
    def noise(self):
        return random.random() + float(np.random.rand())
    def __getitem__(self, index):
        return self.x[index] + self.noise(), index % 3

class OwnGenerators(Data):
    def __init__(self, split):
        super().__init__(split)
        self.rngs = [random.Random(7), np.random.default_rng()]
    def noise(self):
        return float(sum(rng.random() for rng in self.rngs))

class OwnEpochs(Data):
    "A curriculum that counts by itself how much was drawn."
    drawn = 0
    def noise(self):
        self.drawn += 1
        return self.drawn / 100

class OwnOrder:
    "A batch sampler that shuffles by a generator of its own."
    def __init__(self, size):
        self.size, self.rng = size, np.random.default_rng(5)
    def __len__(self):
        return self.size // 4
    def __iter__(self):
        yield from self.rng.permutation(self.size)[: 4 * len(self)].reshape(-1, 4).tolist()

class Broken(Data):
    def __getitem__(self, index):
        if index < 5:
            return super().__getitem__(index)
        raise ValueError("sample %d is broken:\\n  no header" % index)

class PerWorker(Data):
    def noise(self):
        worker = get_worker_info()
        return worker.id if worker else 0

class Ordered(Data):
    def __init__(self, split):
        super().__init__(split)
        self.names = list({str(n) for n in range(20)})
    def noise(self):
        return int(self.names[0]) * 20 + int(self.names[1])

def own_training(run):
    data = run.data()
    model = Net(3)
    run.trainer(model, run.optimizer(model)).fit(data.train, data.validation)

def own_order(run):
    model = Net(3)
    loader = torch.utils.data.DataLoader(Data("train"), batch_sampler=OwnOrder(30))
    run.trainer(model, run.optimizer(model)).fit(loader)

def loop(run, forgets=False):
    model = Net(3)
    optimizer = run.optimizer(model)
    x, y = torch.randn(32, 6, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 3
    saved = run.resume() or {}
    if saved:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if not forgets:
            torch.set_rng_state(saved["rng"])
    for epoch in range(saved.get("epoch", 0), 5):
        optimizer.zero_grad()
        model.loss((x, y)).backward()
        optimizer.step()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        run.checkpoint({**state, "rng": torch.get_rng_state(), "epoch": epoch + 1}, epoch + 1, epoch)
        time.sleep(0.02)
        run.stop_if_requested(epoch + 1, epoch)

def forgetful_loop(run):
    loop(run, forgets=True)
"""
CONFIG: dict[str, Any] = {
    "experiment_name": "lab",
    "model": {"type": "lab:Net"},
    "data": {"dataset_name": "lab:Data", "num_workers": 0},
    "training": {
        "max_epochs": 2,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "use_amp": False,
    },
    "optimizer": {"type": "adamw", "lr": 1e-2},
    "scheduler": {"type": "onecycle"},
    "checkpoint": {"every_n_steps": 2, "keep_last": 2},
    "logging": {"log_scalars_every_n_steps": 1},
    "callbacks": {"ema": {}},
    "entrypoint": None,
}


class ForkingRunner(TrainingRunner):
    """Forks instead of starting new interpreters, each of which imports torch for seconds."""

    def steps(self, *args: Any, **options: Any) -> Steps[Training]:
        options["fresh"] = False
        return super().steps(*args, **options)


def scratch(tmp: Path, **changes: Any) -> Path:
    """Return the scratch folder for a configuration, with its code in ``tmp/repo``."""
    root, folder = tmp / "repo", tmp / "scratch"
    root.mkdir()
    folder.mkdir()
    (root / "lab.py").write_text(CODE)
    config = config_with(CONFIG, changes)
    names = ("run", "submission", "experiment", "key", "commit", "manifest")
    paths = {"code_dir": str(root), "repository": str(root)}
    config["mtf"] = dict.fromkeys(names, "lab") | {"grid": None} | paths
    (folder / rundir.CONFIG).write_text(rundir.render_yaml(config))
    request = {
        "batches": 5,
        "val_batches": 2,
        "phases": ["TRAIN_BATCH_END"],
        "stops": 0,
        "jobs": None,
    }
    (folder / REQUEST).write_text(json.dumps(request))
    return folder


def verdict(
    tmp: Path,
    *,
    runner: type[TrainingRunner] = ForkingRunner,
    forks: bool = True,
    request: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[Verdict, list[dict[str, Any]]]:
    """Verify the training of a configuration; return the verdict and the events."""
    folder = scratch(tmp, **changes)
    path = folder / REQUEST
    path.write_text(json.dumps(json.loads(path.read_text()) | (request or {})))
    events: list[dict[str, Any]] = []

    def emit(event: str, **facts: Any) -> None:
        events.append({"event": event, **facts})

    whole_request = VerifyRequest.read(path)
    return verify(runner(folder, whole_request, forks=forks), whole_request, emit), events
