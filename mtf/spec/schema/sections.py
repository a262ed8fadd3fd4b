"""The sections of an experiment (model, data, training, ...): their keys, types and defaults."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mtf.core.vocabulary.spelling import nearest
from mtf.spec.schema.slurm_section import SLURMConfig
from mtf.spec.schema.strict import Constructed, Open, Strict
from mtf.spec.schema.text_types import OneLine, matching

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Type = Annotated[
    str, matching(r"[^\s\x00-\x1f]+", "a type without spaces, like mlp or package.module:Name")
]
Entrypoint = Annotated[
    str,
    matching(
        r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", "an entry point like package.module:function"
    ),
]


class ModelConfig(Constructed):
    """The model. Further keys go to its constructor."""

    known_types: ClassVar[frozenset[str]] = frozenset({"mlp", "transformer"})
    defaulted = frozenset({"hidden_size", "num_layers", "dropout", "activation"})

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

    @property
    def is_known_type(self) -> bool:
        """Return True for the models of mtf, whose defaults are those of the section."""
        return self.type in self.known_types


class DataConfig(Open):
    """The data. Further keys go to the data set."""

    dataset_name: Type
    """Registered name (digits, synthetic) or package.module:Name."""
    train_split: OneLine = "train"
    """Name of the training split."""
    val_split: OneLine | None = "validation"
    """Name of the validation split; null: no validation."""
    num_workers: Annotated[int, Field(ge=0)] = 4
    """Processes that load data; 0: the training process loads it."""
    pin_memory: bool = True
    """True: batches are loaded into page-locked memory (only with a GPU)."""


class TrainingConfig(Strict):
    """The training loop."""

    max_epochs: Count = 100
    """Epochs to train for."""
    limit_train_batches: Count | None = None
    """Batches of each process in an epoch; null: all."""
    limit_val_batches: Count | None = None
    """Batches of each process in a validation; null: all."""
    batch_size: Count = 32
    """Samples in each batch of each process."""
    gradient_accumulation_steps: Count = 1
    """Batches whose gradients are accumulated for one optimizer step."""
    max_grad_norm: Positive | None = 1.0
    """Norm to clip gradients to; null: no clipping."""
    use_amp: bool = True
    """True: use mixed precision if the device supports it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initialisation, data order, augmentation and dropout."""
    max_grad_value: Positive | None = None
    """Value to clip each element of the gradients to; null: no such clipping."""
    on_nonfinite: Literal["skip", "stop"] | None = None
    """What to do if a loss or gradient is not finite: skip that optimizer step, or stop the
    training there as complete; null: the run fails."""
    compile: bool = False
    """True: compile the model's training_step, or its forward pass, with torch.compile."""
    find_unused_parameters: bool = False
    """True: several processes also train a model some of whose parameters take no part in the loss
    of a batch (slower)."""
    combine: Literal["cycle", "shortest", "in_turn"] | None = None
    """How several training sets make one epoch. cycle (null): a batch of each at a time, shorter
    sets repeated. shortest: the same until the shortest ends. in_turn: one batch at a time."""


class OptimizerConfig(Constructed):
    """The optimizer. Further keys go to its constructor."""

    defaulted = frozenset({"lr", "weight_decay", "betas"})

    type: Type = "adamw"
    """Name of an optimizer of torch, or package.module:Name."""
    lr: Positive = 1e-4
    """Learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of Adam's running means; ignored by optimizers without them."""

    @property
    def is_known_type(self) -> bool:
        """Return True for the optimizers of torch by name: the section's defaults are theirs."""
        return ":" not in self.type


class SchedulerConfig(Open):
    """The learning-rate scheduler. Further keys go to its constructor."""

    type: Type
    """Name of a scheduler of torch, or package.module:Name."""


class EarlyStoppingConfig(Strict):
    """Stops the training when a metric has not improved for some epochs."""

    monitor: OneLine | None = None
    """The metric to watch; null: the one of the checkpoint section."""
    mode: Literal["min", "max"] | None = None
    """Whether lower or higher values are better; null: as in the checkpoint section, else min."""
    patience: Count = 5
    """Epochs without improvement before the training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Smallest change that counts as an improvement (it must be greater than this)."""


class EMAConfig(Strict):
    """Keeps an exponential moving average of the weights."""

    decay: Fraction = 0.999
    """Weight of the former average at each update."""
    every_n_steps: Count = 1
    """Optimizer steps between two updates."""
    evaluate: bool = True
    """True: validate with the averaged weights."""


class CallbacksConfig(Open):
    """Built-in and custom callbacks.

    A further key adds a callback of your own: ``name: {type: package.module:Name, ...}``; the other
    keys go to its constructor.
    """

    early_stopping: EarlyStoppingConfig | None = None
    """Stops the training when a metric does not improve; null: off."""
    ema: EMAConfig | None = None
    """Keeps an average of the weights; null: off."""

    @model_validator(mode="after")
    def _custom_callbacks_have_a_type(self) -> Self:
        for name, given in self.further.items():
            if not isinstance(given, dict) or not isinstance(given.get("type"), str):
                near = nearest(name, type(self).model_fields)
                hint = f" Did you mean {near!r}?" if near else ""
                raise ValueError(  # noqa: TRY004 -- pydantic reports ValueError only
                    f"{name} needs a type.{hint} Write {name}: {{type: package.module:Name}}"
                )
        return self


class LoggingConfig(Strict):
    """What is logged, and where. Not part of a run's identity."""

    use_wandb: bool | None = None
    """True: also log to Weights & Biases. null: if it is installed where the job runs, and a key or
    WANDB_MODE=offline is set there."""
    wandb_project: OneLine | None = None
    """W&B project; null: W&B's default."""
    wandb_entity: OneLine | None = None
    """W&B user or team; null: W&B's default."""
    log_scalars_every_n_steps: Count = 50
    """Steps between two logged values of each scalar."""
    tensorboard: bool = False
    """True: write TensorBoard events to tensorboard/ in the run folder."""
    csv: bool = False
    """True: write csv/metrics.csv in the run folder."""
    log_images_every_n_steps: Count | None = 500
    """Steps between two sets of logged images (for W&B and TensorBoard); null: no images."""
    log_gradients: bool = False
    """True: log norms and histograms of the gradients, before clipping."""
    log_model_parameters: bool = False
    """True: log norms and histograms of the parameters."""
    log_histograms_every_n_steps: Count = 500
    """Steps between two sets of histograms."""


class InitFromConfig(Strict):
    """The checkpoint of another run to start from. May be given as the run's name alone."""

    run: OneLine
    """A run id, an experiment's name, grid/member, or a grid's name for its best member."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The run's newest checkpoint, or the one with the best value of its monitored metric."""
    load: Literal["weights", "all"] = "weights"
    """weights: the weights alone. all: the whole state, so that the training goes on where the
    other one ended."""
    strict: bool = True
    """True: all weights must exist and fit. False: those that fit are loaded, the others are listed
    in the log."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _all_is_strict(self) -> Self:
        if self.load == "all" and not self.strict:
            raise ValueError("load: all requires strict: true")
        return self


class CheckpointConfig(Strict):
    """When checkpoints are saved and how many are kept. Not part of a run's identity."""

    every_n_epochs: Count | None = 1
    """Epochs between two checkpoints; null: no checkpoints by epochs."""
    every_n_steps: Count | None = None
    """Steps between two checkpoints; null: no checkpoints by steps."""
    every_n_minutes: Positive | None = None
    """Minutes between two checkpoints; null: no checkpoints by time."""
    keep_last: Count = 3
    """Number of newest checkpoints to keep."""
    keep_best: Annotated[int, Field(ge=0)] = 1
    """Number of best checkpoints to keep, among those at the end of an epoch; 0: none."""
    monitor: OneLine | None = None
    """Metric that decides which checkpoint is best; null: val_loss, if the training has it."""
    mode: Literal["min", "max"] = "min"
    """Whether lower or higher values of the monitored metric are better."""
    on_error: Literal["continue", "stop"] = "continue"
    """What to do if a checkpoint cannot be saved: continue until the next one, or stop the run as
    failed."""


class Content(Strict):
    """The sections of an experiment without ``slurm``: what it computes, saves and logs."""

    model: ModelConfig
    data: DataConfig | None = None
    training: TrainingConfig = Field(default_factory=TrainingConfig.defaults)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig.defaults)
    scheduler: SchedulerConfig | None = None
    init_from: InitFromConfig | None = None
    callbacks: CallbacksConfig = Field(default_factory=CallbacksConfig.defaults)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig.defaults)
    logging: LoggingConfig = Field(default_factory=LoggingConfig.defaults)
    entrypoint: Entrypoint | None = None
    """Function of your code that is called instead of the built-in training."""
    description: str | None = None
    """Free text about the experiment."""
    owner: OneLine | None = None
    """Who is responsible for it."""

    @model_validator(mode="before")
    @classmethod
    def _trainer_is_training(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "trainer" not in value or "training" in value:
            return value  # with both, trainer is reported as an unknown key
        return {"training" if key == "trainer" else key: item for key, item in value.items()}


class Sections(Content):
    """The sections of an experiment: what it computes and how it runs."""

    slurm: SLURMConfig = Field(default_factory=SLURMConfig.defaults)
