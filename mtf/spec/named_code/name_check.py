"""`NamedCode`: finds mistakes in the names and keys of sections, without importing what they name.

What the files, the tables and the installed plug-ins cannot tell is no mistake: code of packages
outside of the repository, and plug-ins where jobs run in an environment of their own.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.spelling import did_you_mean, nearest
from mtf.spec.named_code import known_signatures
from mtf.spec.named_code.installed import has_newer_torch, is_installed, plug_ins
from mtf.spec.named_code.known_signatures import listed_names, of_any, of_short_name, short_names
from mtf.spec.named_code.metric_names import metric_findings, watched
from mtf.spec.named_code.section_rules import (
    SCHEDULER_KEYS,
    Finding,
    callback_findings,
    data_findings,
    model_findings,
    optimizer_findings,
    scheduler_findings,
    wrong_interval,
)
from mtf.spec.schema.dotted_keys import SECTIONS, misspelling_of
from mtf.spec.schema.sections import CallbacksConfig, OptimizerConfig

if TYPE_CHECKING:
    from mtf.spec.named_code.call_signature import Signature
    from mtf.spec.named_code.found_code import FoundCode
    from mtf.spec.named_code.source_files import SourceFiles

ZOOS = ("timm", "torchvision")  # packages of models, which are named timm:resnet50
_GROUPS = {"model": "mtf.models", "data": "mtf.datasets", "callbacks": "mtf.callbacks"}
_TABLES = {"model": "models", "data": "datasets"}
CHECKED = ("model", "data", "optimizer", "scheduler", "callbacks")
Slurm = Callable[[], Any]
_Rules = Callable[[Mapping[str, Any], "Signature"], Iterator[Finding]]


class NamedCode:
    """The code that the specs of one commit can name."""

    def __init__(self, files: SourceFiles, *, knows_all: bool = True) -> None:
        """Take the files; unless one ``knows_all``, short names are doubtful, never mistakes."""
        self._files = files
        self._knows_all = knows_all
        self._signatures: dict[str, Signature | None] = {}
        self._problems: dict[str, str | None] = {}
        # Sections without mistakes: as bytes, and by their keys, texts and kinds of other values
        self._clean: set[object] = set()

    @cached_property
    def _code(self) -> FoundCode:
        """Return the reader of the files; most specs name only built-in things and need none."""
        from mtf.spec.named_code.found_code import FoundCode  # late: it imports ast

        return FoundCode(self._files)

    def in_experiment(self, value: Mapping[str, Any], slurm: Slurm) -> list[Finding]:
        """Return the mistakes in the names and keys of an experiment as it is written."""
        if (target := value.get("entrypoint")) is not None:
            return list(self.entrypoint(target))  # it may read the sections as it likes
        found: list[Finding] = []
        for name in CHECKED:
            raw = value.get(name)
            if not raw or (text := (name, _as_bytes(raw))) in self._clean:
                continue  # a thousand specs have few different sections
            in_section = self.findings(name, raw, slurm)
            if name == "optimizer":
                found += self.without_own_optimizers(in_section, value.get("model"))
            else:
                found += in_section
            if not in_section:
                self._clean.add(text)
        return [*found, *self.metrics(value)]

    def findings(self, section: str, raw: Any, slurm: Slurm) -> tuple[Finding, ...]:
        """Return the mistakes in one section as it is written, without those of its schema.

        Args:
            section: its name, one of ``CHECKED``.
            raw: its value.
            slurm: returns the section ``slurm`` with its defaults, for the environment of the jobs.
        """
        if not isinstance(raw, Mapping) or not raw:
            return ()
        shape = (section, *raw, *(v if type(v) is str else _kind(v) for v in raw.values()))
        if shape in self._clean:
            return ()
        found = tuple(self._in_section(section, raw, slurm))
        if not found and section != "callbacks":  # whose values are mappings
            self._clean.add(shape)
        return found

    def _in_section(self, section: str, raw: Mapping[str, Any], slurm: Slurm) -> Iterator[Finding]:
        match section:
            case "model":
                return self._model(raw, slurm)
            case "data":
                return self._data(raw, slurm)
            case "optimizer":
                return self._optimizer(raw)
            case "scheduler":
                return self._scheduler(raw)
            case _:
                return self._callbacks(raw, slurm)

    def entrypoint(self, target: object) -> tuple[Finding, ...]:
        """Return the mistakes in an entry point."""
        if not isinstance(target, str) or ":" not in target:
            return ()
        loc = ("entrypoint",)
        found = list(self._target(loc, target))
        if not found and (problem := self._code.problem_as_entrypoint(target)):
            found.append(Finding(loc, f"entrypoint: {target}: {problem}"))
        return tuple(found)

    def metrics(self, sections: Mapping[str, Any]) -> tuple[Finding, ...]:
        """Return the mistakes in the metrics that sections watch, see ``metric_findings``."""
        if not watched(sections):
            return ()
        model = sections.get("model")
        target = model.get("type") if isinstance(model, Mapping) else None
        if not isinstance(target, str):
            return ()
        is_mtfs = target in short_names("models") or target.partition(":")[0] in ZOOS
        if not is_mtfs and ":" not in target:
            return ()  # of a plug-in
        found = partial(self._code.may_log, target)
        return tuple(metric_findings(sections, None if is_mtfs else found))

    def without_own_optimizers(
        self, findings: tuple[Finding, ...], model: object
    ) -> tuple[Finding, ...]:
        """Return the mistakes in a section ``optimizer`` that count with a model.

        A model with a method ``configure_optimizers`` gets the section, whatever it says. Where
        nothing is known of the model, mistakes become warnings.
        """
        target = model.get("type") if isinstance(model, Mapping) else None
        if not findings or not isinstance(target, str):
            return findings
        if target.partition(":")[0] in ZOOS or ":" not in target:
            return findings
        has_own = self._code.may_configure_optimizers(target)
        if has_own is None:
            return tuple(f._replace(severity="warning") for f in findings)
        return () if has_own else findings

    # -- sections ----------------------------------------------------------------------------------

    def _model(self, raw: Mapping[str, Any], slurm: Slurm) -> Iterator[Finding]:
        target = raw.get("type")
        if not isinstance(target, str):
            return
        prefix, colon, _ = target.partition(":")
        if colon and prefix in ZOOS:
            yield from _look_alikes("model", raw)
            return
        is_built_in = target in short_names("models")

        def rules(raw: Mapping[str, Any], known: Signature) -> Iterator[Finding]:
            return model_findings(raw, known, is_built_in=is_built_in)

        yield from self._named("model", ("model", "type"), raw, rules, slurm)
        activation = raw.get("activation")
        if is_built_in and isinstance(activation, str):
            yield from _wrong_activation(activation)

    def _data(self, raw: Mapping[str, Any], slurm: Slurm) -> Iterator[Finding]:
        target = raw.get("dataset_name")
        if not isinstance(target, str):
            return
        is_built_in = target in short_names("datasets")

        def rules(raw: Mapping[str, Any], known: Signature) -> Iterator[Finding]:
            return data_findings(raw, known, is_built_in=is_built_in)

        yield from self._named("data", ("data", "dataset_name"), raw, rules, slurm)

    def _optimizer(self, raw: Mapping[str, Any]) -> Iterator[Finding]:
        target = raw.get("type", OptimizerConfig.model_fields["type"].default)
        if not isinstance(target, str):
            return
        is_built_in = ":" not in target

        def rules(raw: Mapping[str, Any], known: Signature) -> Iterator[Finding]:
            return optimizer_findings(raw, known, is_built_in=is_built_in)

        yield from self._of_torch("optimizer", raw, target, rules)

    def _scheduler(self, raw: Mapping[str, Any]) -> Iterator[Finding]:
        target = raw.get("type")
        if not isinstance(target, str):
            return
        is_short = ":" not in target

        def rules(raw: Mapping[str, Any], known: Signature) -> Iterator[Finding]:
            return scheduler_findings(raw, known, is_short=is_short)

        yield from self._of_torch("scheduler", raw, target, rules)

    def _callbacks(self, raw: Mapping[str, Any], slurm: Slurm) -> Iterator[Finding]:
        for name in raw.keys() - CallbacksConfig.model_fields.keys():
            given = raw[name]
            target = given.get("type") if isinstance(given, Mapping) else None
            if not isinstance(target, str):
                continue  # reported by the schema

            def rules(
                raw: Mapping[str, Any], known: Signature, name: str = name
            ) -> Iterator[Finding]:
                return callback_findings(name, raw, known)

            loc = ("callbacks", name, "type")
            yield from self._named("callbacks", loc, given, rules, slurm)

    # -- names -------------------------------------------------------------------------------------

    def _of_torch(
        self, section: str, raw: Mapping[str, Any], target: str, rules: _Rules
    ) -> Iterator[Finding]:
        """Yield the mistakes in a section whose short names are those of torch."""
        loc = (section, "type")
        if ":" in target:
            yield from self._of_target(section, loc, raw, target, rules)
            return
        known = of_short_name(f"{section}s", target.lower())
        if known is not None:
            yield from rules(raw, known)
            return
        names = short_names(f"{section}s")
        near = nearest(target.rpartition(".")[2] or target, names)
        yield Finding(
            loc,
            _unknown_name(loc, target, near, listed_names(f"{section}s")),
            severity="warning" if has_newer_torch() else "error",
        )
        yield from _taken_by_none(section, raw)
        if section == "scheduler":
            yield from wrong_interval(raw)

    def _named(
        self,
        section: str,
        loc: tuple[str, ...],
        raw: Mapping[str, Any],
        rules: _Rules,
        slurm: Slurm,
    ) -> Iterator[Finding]:
        """Yield the mistakes in a section that names something of mtf, a plug-in or own code."""
        target = raw[loc[-1]]
        if ":" in target:
            yield from self._of_target(section, loc, raw, target, rules)
            return
        known = of_short_name(_TABLES[section], target) if section in _TABLES else None
        if known is not None:
            yield from rules(raw, known)
            return
        group = _GROUPS[section]
        installed = plug_ins(group)
        if target in installed or self._declares(group, target):
            return
        names = sorted(
            {*(listed_names(_TABLES[section]) if section in _TABLES else ()), *installed}
        )
        is_known = self._knows_all_names(section, slurm)
        message = _unknown_name(loc, target, nearest(target, names), names)
        yield Finding(loc, message, severity="error" if is_known else "warning")
        if section in _TABLES and is_known:
            yield from _taken_by_none(section, raw)
        elif section in _TABLES:
            yield from _look_alikes(section, raw)

    def _knows_all_names(self, section: str, slurm: Slurm) -> bool:
        """Return True if every name that a job will know is known here."""
        zoos = section == "model" and any(map(is_installed, ZOOS))
        if zoos or not self._knows_all or not is_installed("torch"):
            return False
        needs = slurm()
        keys = ("venv", "conda", "container", "modules")
        return not (isinstance(needs, Mapping) and any(needs.get(key) for key in keys))

    def _declares(self, group: str, name: str) -> bool:
        """Return True if the repository may be the plug-in that registers a name."""
        for file in ("pyproject.toml", "setup.cfg", "setup.py"):
            text = self._files.read(file) if file in self._files.folder("") else None
            if text is not None and group.encode() in text and name.encode() in text:
                return True
        return False

    def _of_target(
        self,
        section: str,
        loc: tuple[str, ...],
        raw: Mapping[str, Any],
        target: str,
        rules: _Rules,
    ) -> Iterator[Finding]:
        wrong = list(self._target(loc, target))
        yield from wrong
        if any(each.severity == "error" for each in wrong):
            meant = self._code.nearest_to(target)
            known = self._signature(meant) if meant else None
            yield from (f for f in (rules(raw, known) if known else ()) if f.at_key)
            return
        known = self._signature(target)
        if known is not None:
            yield from rules(raw, known)
        elif section == "scheduler":
            yield from wrong_interval(raw)
        if section != "callbacks" and (known is None or known.takes_any):
            taken = known.parameters if known else {}
            yield from _look_alikes(section, {k: v for k, v in raw.items() if k not in taken})

    def _target(self, loc: tuple[str, ...], target: str) -> Iterator[Finding]:
        if target not in self._problems:
            self._problems[target] = self._code.problem(target)
        key = ".".join(loc)
        if (problem := self._problems[target]) is not None:
            yield Finding(loc, f"{key}: {target}: {problem}")
        elif loc[0] == "model" and (advice := self._code.foreign(target)):
            yield Finding(loc, f"{key}: {target} {advice}")
        elif (doubt := self._code.doubt(target)) and not is_installed(target.partition(".")[0]):
            yield Finding(loc, f"{key}: {target}: {doubt}", severity="warning")

    def _signature(self, target: str) -> Signature | None:
        if target not in self._signatures:
            self._signatures[target] = self._code.signature(target)
        return self._signatures[target]


def _unknown_name(loc: tuple[str, ...], name: str, near: str | None, known: Collection[str]) -> str:
    message = f"{'.'.join(loc)}: unknown name {name!r}."
    message += f" Did you mean {near!r}?" if near else ""
    message += f" Known: {', '.join(known)}." if known else ""
    return f"{message} Name your own as package.module:Name"


def _taken_by_none(section: str, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a mistake for each key that nothing takes which a section knows by name."""
    table = _TABLES.get(section, f"{section}s")
    everything = of_any(table)
    own = {*SECTIONS[section].model_fields, *(SCHEDULER_KEYS if section == "scheduler" else ())}
    for key in sorted(raw.keys() - own - everything.parameters.keys()):
        near = nearest(key, {*own, *everything.parameters})
        message = f"{section}.{key}: no {section} of mtf or torch takes such a key."
        message += f" Did you mean {near!r}?" if near else ""
        yield Finding((section, key), message.rstrip("."), at_key=True)


def _as_bytes(raw: Any) -> bytes:
    """Return JSON values as bytes, equal only for equal values: half the time of their text."""
    return marshal.dumps(raw, 2)


def _kind(value: object) -> object:
    """Return all that a check may depend on of a value that is no text."""
    return value.is_integer() if type(value) is float else type(value)


def _wrong_activation(name: str) -> Iterator[Finding]:
    known = known_signatures.activations()
    if name.lower() not in known:
        usual = ("relu", "gelu", "silu", "elu", "tanh", "leaky_relu", "selu", "mish", "softplus")
        near = did_you_mean(name, usual)
        yield Finding(("model", "activation"), f"model.activation: unknown name {name!r}. {near}")


def _look_alikes(section: str, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a warning for each key that resembles one of mtf's, where nothing is known of it.

    It is not an error: the key may be the user's own.
    """
    model = SECTIONS[section]
    for key in sorted(raw.keys() - model.model_fields.keys()):
        meant = misspelling_of(model, key)
        if meant and meant not in raw:
            message = f"{section}.{key} is handed on as a key of your own. Did you mean {meant!r}?"
            yield Finding((section, key), message, at_key=True, severity="warning")
