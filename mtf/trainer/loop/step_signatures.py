"""Checks a model's own steps before the training: what they take, and that they return something.

Many models were written for Lightning, whose steps take an index and log through ``self.log``.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.loop.metric_objects import has_metric_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

TRAINING, VALIDATION = "training_step", "validation_step"
# methods that a LightningModule has, and no other module
_LIGHTNINGS = frozenset(
    {"log", "log_dict", "manual_backward", "optimizers", "lr_schedulers", "toggle_optimizer"}
)
# hooks that Lightning calls, by the beginning of their names or in full
_HOOKS = ("on_train_", "on_validation_", "on_before_", "on_after_", "on_fit_")
_WHOLE_HOOKS = frozenset(
    {
        "training_epoch_end",
        "validation_epoch_end",
        "training_step_end",
        "validation_step_end",
        "optimizer_step",
        "optimizer_zero_grad",
        "configure_gradient_clipping",
        "lr_scheduler_step",
    }
)


def check_steps(module: nn.Module) -> bool:
    """Check the steps of a module that has a ``training_step``.

    Returns:
        True for a ``training_step(batch, optimizer)``: several optimizers take turns.

    Raises:
        MtfError: they cannot be called as they are defined, return nothing, or rely on Lightning.
    """
    takes_turns = _takes_optimizer(module)
    _check_source(module, TRAINING)
    if getattr(module, VALIDATION, None) is not None:
        _takes_batch(module, VALIDATION)
        _check_source(module, VALIDATION)
    return takes_turns


def note_on_hooks(module: nn.Module) -> str | None:
    """Return a sentence about hooks of Lightning that nothing calls, None if there are none."""
    hooks = sorted(_hooks_of(module)) if hasattr(module, TRAINING) else []
    if not hooks:
        return None
    return (
        f"mtf never calls {', '.join(hooks)} of {type(module).__name__}, as Lightning does: write a"
        " callback instead (mtf.trainer.Callback)"
    )


def _takes_optimizer(module: nn.Module) -> bool:
    """Return True for a ``training_step(batch, optimizer)``.

    Raises:
        MtfError: it takes something else.
    """
    rest = _takes_batch(module, TRAINING, but="optimizer")
    optimizer = next((p for p in rest if p.name == "optimizer"), None)
    if optimizer is None:
        return False
    if optimizer.default is not optimizer.empty:
        raise _wrong(
            module,
            TRAINING,
            "optimizer has a default, so it is open whether the optimizers take turns. Remove the"
            " default, or the parameter",
        )
    return True


def _takes_batch(module: nn.Module, step: str, *, but: str = "") -> list[inspect.Parameter]:
    """Return the parameters of a step after the batch; all but the one named ``but`` are optional.

    Raises:
        MtfError: the step cannot be called with a batch alone.
    """
    function = getattr(module, step)
    if not callable(function):
        raise MtfError(f"{type(module).__name__}.{step} is no method: define it with (self, batch)")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # not written in Python
        return []
    by_position = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,  # of a decorator
    )
    if not parameters or parameters[0].kind not in by_position:
        raise _wrong(module, step, "it takes no batch as its first argument")
    rest = parameters[1:]
    for parameter in rest:
        if parameter.kind is parameter.VAR_POSITIONAL:
            name = f"*{parameter.name}"
            raise _wrong(module, step, f"nothing is passed as {name}. Remove {name}")
        needed = parameter.default is parameter.empty
        if needed and parameter.kind is not parameter.VAR_KEYWORD and parameter.name != but:
            raise _wrong(module, step, f"nothing is passed as {parameter.name}. Remove it")
        if parameter.name == but and parameter.kind is parameter.POSITIONAL_ONLY:
            raise _wrong(module, step, f"{but} is passed by its name. Remove the slash")
    return rest


def _wrong(module: nn.Module, step: str, what: str) -> MtfError:
    shown = ", ".join(map(str, inspect.signature(getattr(module, step)).parameters.values()))
    turns = ", or (self, batch, optimizer) for optimizers that take turns"
    return MtfError(
        f"{type(module).__name__}.{step}({shown}): {what}: define it with (self, batch)"
        f"{turns if step == TRAINING else ''}"
    )


def _check_source(module: nn.Module, step: str) -> None:
    """Refuse a step that returns nothing, or that calls methods of Lightning.

    A validation step would fail after a whole epoch only.

    Raises:
        MtfError: it does.
    """
    if (function := _source_of(getattr(module, step))) is None:
        return
    name = f"{type(module).__name__}.{step}"
    called = {node.attr for node in _own_attributes(function)} & _LIGHTNINGS
    if foreign := sorted(attr for attr in called if not hasattr(module, attr)):
        raise MtfError(
            f"{name} uses self.{foreign[0]}, which only a LightningModule has: return a dict"
            ' instead, such as {"loss": loss, "accuracy": accuracy}; mtf logs its values'
        )
    returns = [n for n in _walk(function) if isinstance(n, ast.Return) and n.value is not None]
    is_plain = not any(
        isinstance(n, ast.Yield | ast.YieldFrom | ast.Raise) for n in _walk(function)
    )
    may_be_empty = step == VALIDATION and has_metric_objects(module)
    if not returns and is_plain and not may_be_empty:
        what = "the loss" if step == TRAINING else "a dict of metrics by name"
        raise MtfError(f"{name} returns nothing: return {what}")


def _source_of(step: Any) -> ast.FunctionDef | None:
    """Return the syntax tree of a step, None where its source is unknown."""
    try:
        text = textwrap.dedent(inspect.getsource(inspect.unwrap(step)))
        tree = ast.parse(text).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    return tree if isinstance(tree, ast.FunctionDef) else None


def _walk(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of functions in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _own_attributes(function: ast.FunctionDef) -> Iterator[ast.Attribute]:
    """Yield where a method reads an attribute of its object."""
    own = function.args.args[0].arg if function.args.args else ""
    for node in _walk(function):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        if node.value.id == own and isinstance(node.ctx, ast.Load):
            yield node


def _hooks_of(module: nn.Module) -> Iterator[str]:
    """Yield the methods of a module's classes that are named as hooks of Lightning."""
    for cls in type(module).__mro__:
        for name, value in vars(cls).items():
            if (name.startswith(_HOOKS) or name in _WHOLE_HOOKS) and inspect.isfunction(value):
                yield name
