"""The sections of an experiment (model, data, training, ...): their keys, types and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mtf.spec.schema.slurm_section import SLURMConfig
from mtf.spec.schema.strict import Open, Strict
from mtf.spec.schema.text_types import OneLine, matching

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
    """Callbacks of a training.

    A further key adds a callback of your own: ``name: {type: package.module:Name, ...}``; the other
    keys go to its constructor.
    """

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
