"""The committed table of signatures is that of the installed torch and of mtf itself.

`python -m tests.spec.named_code.test_known_signatures` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.optim import lr_scheduler

import mtf.trainer
from mtf.core.vocabulary import json_text
from mtf.spec.named_code import known_signatures
from mtf.spec.named_code.call_signature import Parameter, Signature, decoded
from mtf.trainer.components import factory, lr_schedulers, optimizers
from mtf.trainer.components.registry import keys_of, load
from mtf.trainer.data import datasets

if TYPE_CHECKING:
    import inspect

MODULES = {
    "torch.nn": torch.nn,
    "torch.optim": torch.optim,
    "torch.optim.lr_scheduler": lr_scheduler,
    "torch.utils.data": torch.utils.data,
}
NO_INIT = {"torch.utils.data": ("Dataset", "IterableDataset")}  # as bases they have no __init__


def table() -> dict[str, Any]:
    """Return the table as the installed versions have it."""
    short = lr_schedulers._SHORT
    return {
        "torch": torch.__version__.partition("+")[0],
        "models": {name: signature_of(load(t, key="")) for name, t in factory.MODELS.items()},
        "datasets": {name: signature_of(load(t, key="")) for name, t in factory.DATASETS.items()},
        "optimizers": {name: kind.__name__ for name, kind in optimizers.OPTIMIZERS.items()},
        "schedulers": {
            **{name: kind.__name__ for name, kind in lr_schedulers._CLASSES.items()},
            **{name: class_name for name, (class_name, _, _) in short.items()},
        },
        "offered": {
            class_name: " ".join(sorted(defaults(9, [0.1])))
            for class_name, _, defaults in short.values()
        },
        "without_init": [f"{m}.{name}" for m, names in NO_INIT.items() for name in names]
        + ["mtf.trainer.Callback"],
        "classes": {name: classes_of(module) for name, module in MODULES.items()},
        "activations": " ".join(n for n in names_of(functional) if callable(vars(functional)[n])),
        "splits": " ".join(datasets.SPLITS),
        "names": {name: " ".join(names_of(module)) for name, module in MODULES.items()},
    }


def names_of(module: Any) -> list[str]:
    return sorted(name for name in vars(module) if not name.startswith("_"))


def classes_of(module: Any) -> dict[str, str]:
    found = {name: vars(module)[name] for name in names_of(module)}
    return {
        name: signature_of(value)
        for name, value in found.items()
        if isinstance(value, type) and value.__module__.startswith("torch.")
    }


def signature_of(factory: Any) -> str:
    try:
        keys = keys_of(factory, key="")
    except ValueError:  # torch.nn.Parameter and the like, made in C
        return "**"
    parameters = {name: _parameter(p) for name, p in keys.parameters.items()}
    return encoded(Signature(keys.name, parameters, keys.takes_any))


def _parameter(parameter: inspect.Parameter) -> Parameter:
    written = parameter.annotation
    text = "" if written is parameter.empty else getattr(written, "__name__", None) or str(written)
    return Parameter(parameter.default is parameter.empty, str(written) if "|" in text else text)


def encoded(signature: Signature) -> str:
    """Return the parameters as text: ``params! lr amsgrad:bool **``; ``!`` marks required ones."""
    words = []
    for name, parameter in signature.parameters.items():
        types = "|".join(sorted(parameter.types))
        words.append(f"{name}{'!' * parameter.is_required}{':' * bool(types)}{types}")
    return " ".join([*words, *["**"] * signature.takes_any])


def test_a_signature_is_read_as_it_was_written() -> None:
    text = "params! lr amsgrad:bool eps:float|int **"
    assert encoded(decoded("Adam", text)) == text


def test_the_table_is_that_of_the_installed_torch_and_of_mtf() -> None:
    assert known_signatures.PATH.read_text() == _text(), (
        "run python -m tests.spec.named_code.test_known_signatures and commit what it writes"
    )


def test_the_table_knows_the_bases_of_most_classes() -> None:
    assert mtf.trainer.Callback.__init__ is object.__init__
    assert "__init__" not in vars(torch.utils.data.Dataset)
    assert "__init__" not in vars(torch.utils.data.IterableDataset)


def _text() -> str:
    return json_text.dumps(table(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(known_signatures.PATH).write_text(_text())
