"""Specs for tests of the command line."""

SINGLE = """\
kind: experiment
experiment_name: alone
model: {type: mlp, hidden_size: 16, num_layers: 1}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 1, use_amp: false, seed: 0}
optimizer: {type: adamw, lr: 1e-3}
slurm: {time: "00:05:00"}
"""

GRID = """\
kind: grid
name: search
base: base.yaml
parameters: {optimizer.lr: [1e-3, 1e-2], training.seed: [1, 2]}
"""

BASE = SINGLE.replace("kind: experiment", "kind: base").replace("experiment_name: alone\n", "")
