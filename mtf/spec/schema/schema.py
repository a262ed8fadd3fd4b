"""What experiments and grids may say, with every default: the sections, the specs, the config."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from mtf.spec.schema.slurm_section import SLURMConfig
from mtf.spec.schema.strict import Open, Strict
from mtf.spec.schema.words import Name, OneLine, RelativePath, matching

__all__ = ["SLURMConfig", "Strict"]

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Type = Annotated[str, matching(r"[^\s\x00-\x1f]+", "a type, like mlp or package.module:Name")]
Entrypoint = Annotated[
    str,
    matching(
        r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", "an entry point like package.module:function"
    ),
]


class ModelConfig(Open):
    """The model; further keys go to its constructor."""

    type: Type
    """Registered name (mlp, transformer, timm:resnet50) or package.module:Name."""
    hidden_size: Count = 512
    """Width of the hidden layers."""
    num_layers: Count = 6
    """Number of layers."""
    dropout: Fraction = 0.1
    """Probability of dropping a unit, from 0 to below 1."""
    activation: str = "relu"
    """Activation function by its name in torch.nn.functional."""


class DataConfig(Open):
    """The data; further keys go to the data set."""

    dataset_name: Type
    """Registered name (digits, synthetic) or package.module:Name."""
    train_split: OneLine = "train"
    """Name of the split that is trained on."""
    val_split: OneLine | None = "validation"
    """Name of the split that is validated on; null: no validation."""
    num_workers: Annotated[int, Field(ge=0)] = 4
    """Processes that load data; 0 loads in the training process."""
    pin_memory: bool = True
    """Whether batches are loaded into page-locked memory (only where there is a GPU)."""


class TrainingConfig(Strict):
    """The training loop."""

    max_epochs: Count = 100
    """Epochs to train for."""
    batch_size: Count = 32
    """Samples in a batch of each process."""
    gradient_accumulation_steps: Count = 1
    """Batches whose gradients are summed for one optimizer step."""
    max_grad_norm: Positive | None = 1.0
    """Norm that gradients are clipped to; null: no clipping."""
    use_amp: bool = True
    """Whether to use mixed precision where the device has it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initialisation, data order, augmentation and dropout."""
    max_grad_value: Positive | None = None
    """Value that gradients are clipped to, element by element; null: no such clipping."""
    on_nonfinite: Literal["skip", "stop"] | None = None
    """What a loss or gradient that is no finite number does: skip that optimizer step, or stop the
    training there, complete; null: the run fails."""
    compile: bool = False
    """Whether the model goes through torch.compile."""
    combine: Literal["cycle", "shortest", "in_turn"] | None = None
    """How several training sets make one epoch: the shorter ones come around again (cycle, null),
    all end with the shortest, or their batches come one by one."""


class OptimizerConfig(Open):
    """The optimizer; further keys go to its constructor."""

    type: Type = "adamw"
    """Name of an optimizer of torch, or package.module:Name."""
    lr: Positive = 1e-4
    """Learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of Adam's running means; only for optimizers that have them."""


class SchedulerConfig(Open):
    """The learning-rate scheduler; further keys go to its constructor."""

    type: Type
    """Name of a scheduler of torch, or package.module:Name."""


class EarlyStoppingConfig(Strict):
    """Ends the training when a metric has not improved for some epochs."""

    monitor: OneLine | None = None
    """The metric; null: that of the checkpoint section."""
    mode: Literal["min", "max"] | None = None
    """Whether less or more of it is better; null: as the checkpoint section says, else min."""
    patience: Count = 5
    """Epochs without improvement that are accepted."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as an improvement is more than this."""


class EMAConfig(Strict):
    """Keeps an exponential moving average of the weights."""

    decay: Fraction = 0.999
    """Weight of the past at each update."""
    every_n_steps: Count = 1
    """Optimizer steps between two updates."""
    evaluate: bool = True
    """Whether validation runs on the average."""


class CallbacksConfig(Open):
    """What a training does besides; further keys are one's own: ``name: {type: package.module:Name,
    ...}``, the other keys going to its constructor."""

    early_stopping: EarlyStoppingConfig | None = None
    """Ends the training when a metric does not improve; null: it does not."""
    ema: EMAConfig | None = None
    """Keeps an average of the weights; null: it does not."""

    @model_validator(mode="after")
    def _own_ones_have_a_type(self) -> Self:
        for name, given in self.further.items():
            if not isinstance(given, dict) or not isinstance(given.get("type"), str):
                raise ValueError(  # noqa: TRY004 -- what pydantic takes for a finding
                    f"{name} needs a type: {name}: {{type: package.module:Name}}"
                )
        return self


class LoggingConfig(Strict):
    """What is logged where; not part of a run's identity."""

    use_wandb: bool = False
    """Whether to log to Weights & Biases as well."""
    wandb_project: OneLine | None = None
    """Project there; null: its own default."""
    wandb_entity: OneLine | None = None
    """User or team there; null: its own default."""
    log_scalars_every_n_steps: Count = 50
    """Steps between two log lines of scalars."""
    tensorboard: bool = False
    """Whether to write events for TensorBoard, in tensorboard/ of the run folder."""
    csv: bool = False
    """Whether to write csv/metrics.csv in the run folder."""
    log_images_every_n_steps: Count | None = 500
    """Steps between two sets of logged images (W&B and TensorBoard show them); null: none."""
    log_gradients: bool = False
    """Whether to log norms and histograms of the gradients, before clipping."""
    log_model_parameters: bool = False
    """Whether to log norms and histograms of the parameters."""
    log_histograms_every_n_steps: Count = 500
    """Steps between two sets of them."""


class InitFromConfig(Strict):
    """The checkpoint of another run to begin from; a run's name alone stands for all of it."""

    run: OneLine
    """A run id, an experiment's name, grid/member, or a grid's name for the best of its members."""
    checkpoint: Literal["latest", "best"] = "latest"
    """Its newest checkpoint, or that of the best value of its monitored metric."""
    load: Literal["weights", "all"] = "weights"
    """The weights alone, or all of the state: the training goes on where that one ended."""
    strict: bool = True
    """Whether all weights must be there and fit; false: those that fit are taken, and it is said
    which do not."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _all_is_strict(self) -> Self:
        if self.load == "all" and not self.strict:
            raise ValueError("load: all takes up a whole state: strict must be true")
        return self


class CheckpointConfig(Strict):
    """When the state is saved and what is kept; not part of a run's identity."""

    every_n_epochs: Count | None = 1
    """Epochs between two checkpoints; null: none by epochs."""
    every_n_steps: Count | None = None
    """Steps between two checkpoints; null: none by steps."""
    every_n_minutes: Positive | None = None
    """Minutes between two checkpoints; null: none by time."""
    keep_last: Count = 3
    """Number of newest checkpoints that are kept."""
    keep_best: Annotated[int, Field(ge=0)] = 1
    """Number of best checkpoints that are kept, of those at the end of an epoch; 0: none."""
    monitor: OneLine | None = None
    """Metric that says which checkpoint is best; null: val_loss if there is one."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the monitored metric is better."""
    on_error: Literal["continue", "stop"] = "continue"
    """Whether a training whose state cannot be saved goes on to the next save, or fails."""


class Sections(Strict):
    """What an experiment computes and how it is executed."""

    model: ModelConfig
    data: DataConfig
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig | None = None
    init_from: InitFromConfig | None = None
    callbacks: CallbacksConfig = Field(default_factory=CallbacksConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    logging: LoggingConfig = Field(default_factory=LoggingConfig)
    slurm: SLURMConfig = Field(default_factory=SLURMConfig)
    entrypoint: Entrypoint | None = None
    """Function of the pinned code that is called in place of the built-in training."""
    description: str | None = None
    """What this is about, for people."""
    owner: OneLine | None = None
    """Who answers for it."""

    @model_validator(mode="before")
    @classmethod
    def _trainer_is_training(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "trainer" not in value or "training" in value:
            return value  # both: trainer is told as an unknown key
        return {"training" if key == "trainer" else key: item for key, item in value.items()}


class _Control(Strict):
    """What a spec says beyond configurations."""

    generation: Count = 1
    """Raise it to run what has run already once more."""
    rerun_on: list[RelativePath] = Field(default_factory=list)
    """Paths of the repository whose change makes this run anew."""
    cluster: Name | None = None
    """Cluster that runs it; null: the one of the settings."""
    on_change: Literal["keep", "cancel"] = "keep"
    """What becomes of active runs of the former configuration when a changed one is submitted."""


class ExperimentSpec(Sections, _Control):
    """A file of ``kind: experiment``, or of ``kind: base``, which only grids build on."""

    kind: Literal["experiment", "base"] = "experiment"
    experiment_name: Name
    """Name of the experiment, unique in the repository."""


class Origin(Strict):
    """The checkpoint of another run that this one begins from."""

    run: str
    path: str
    sha256: str
    step: int


class RunInfo(Strict):
    """Which run this is and where its code stands. All paths are absolute."""

    run: str
    submission: str
    experiment: str
    grid: str | None
    key: str
    commit: str
    code_dir: str
    manifest: str
    """The manifest that proves the content of ``code_dir`` (see ``git_tree_ids``)."""
    repository: str
    """Root of the live repository, which nothing may be imported from."""
    origin: Origin | None = None
    """What ``init_from`` has come to."""


class ExperimentConfig(Sections):
    """The resolved configuration as the job loads it from ``config.yaml``."""

    experiment_name: str
    """A single experiment's own name, or a member's name within its grid."""
    mtf: RunInfo


Values = Annotated[list[JsonValue], Field(min_length=1)]
Match = Annotated[dict[str, JsonValue], Field(min_length=1)]


class Conditional(Strict):
    """Values that only some members of a grid get."""

    set: dict[str, Values] = Field(min_length=1)
    """Keys with their values, multiplied into the members that match."""
    when: Match
    """Keys with the value that a member must have."""


DISTRIBUTIONS = {
    "uniform": {"low", "high"},
    "loguniform": {"low", "high"},
    "normal": {"mean", "std"},
    "int": {"low", "high"},
    "choice": {"values"},
}


class Sample(Strict):
    """One randomly drawn key. Each distribution needs its own parameters."""

    distribution: Literal["uniform", "loguniform", "normal", "int", "choice"]
    """How it is drawn."""
    low: float | None = None
    """Least value (uniform, loguniform, int)."""
    high: float | None = None
    """Greatest value (uniform, loguniform; included for int)."""
    mean: float | None = None
    """Mean (normal)."""
    std: Positive | None = None
    """Standard deviation (normal)."""
    values: list[JsonValue] | None = None
    """What to choose from (choice)."""
    n: Count | None = None
    """Number of draws; all sampled keys are drawn together, so it is needed only once."""
    seed: int = 0
    """Seed of this key's draws; a greater ``n`` keeps the draws there are."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        needed = DISTRIBUTIONS[self.distribution]
        given = {"low", "high", "mean", "std", "values"} & self.model_fields_set
        if given != needed:
            raise ValueError(f"{self.distribution} takes {' and '.join(sorted(needed))}")
        low, high = self.low or 0.0, self.high or 0.0
        if "low" in needed and not low < high:
            raise ValueError(f"low, {low:g}, must be less than high, {high:g}")
        if self.distribution == "loguniform" and low <= 0:
            raise ValueError("low must be greater than 0 for loguniform")
        if self.distribution == "int" and not (low.is_integer() and high.is_integer()):
            raise ValueError("low and high must be whole numbers for int")
        if self.values == []:
            raise ValueError("values must not be empty")
        return self


class GridSpec(_Control):
    """A file of ``kind: grid``: many experiments from one base."""

    kind: Literal["grid"] = "grid"
    name: Name
    """Name of the grid, unique in the repository."""
    base: JsonValue
    """Path of the base, relative to this file, or an experiment written here."""
    parameters: dict[str, Values] = Field(default_factory=dict)
    """Dotted keys with the values that are combined in every way."""
    linked: list[Annotated[list[Match], Field(min_length=1)]] = Field(default_factory=list)
    """Groups of values that vary together; the groups are combined in every way."""
    conditional: list[Conditional] = Field(default_factory=list)
    """Values for the members that match."""
    sample: dict[str, Sample] = Field(default_factory=dict)
    """Randomly drawn keys; the draws are combined with everything else."""
    exclude: list[Match] = Field(default_factory=list)
    """Combinations that are left out."""
    naming: Literal["hash", "parameters", "timestamp", "sequential"] = "parameters"
    """How members are named."""
    max_parallel: Count | None = None
    """How many members run at the same time; null: as many as the cluster gives."""
    max_runs: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Greatest number of members that is not a mistake."""
    description: str | None = None
    """What this is about, for people."""
    owner: OneLine | None = None
    """Who answers for it."""
