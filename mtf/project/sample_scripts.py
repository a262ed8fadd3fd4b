"""Job scripts as a repository's own templates make them, for plans and reviews."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from mtf.core.review.changed_runs import ScriptChange
from mtf.core.sbatch.demand import UNBOUNDED, demand_of
from mtf.core.sbatch.read_script import ScriptOptionError
from mtf.core.sbatch.section_options import job_options
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.experiments import Desired, Experiment
from mtf.core.vocabulary.ids import RunId, Token, label_of
from mtf.core.vocabulary.jobs import JobRequest, Task
from mtf.errors import MtfError, Problem
from mtf.executor.script import render_all
from mtf.executor.slurm.script_options import script_options
from mtf.executor.template_names import TEMPLATES
from mtf.project.template_files import FOLDER, script_kind
from mtf.spec.lint.policy_rules import script_violations
from mtf.spec.schema.slurm_section import SLURMConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mtf.core.sbatch.demand import Demand
    from mtf.core.sbatch.read_script import JobOptions
    from mtf.core.vocabulary.jobs import Resources
    from mtf.executor.template_names import Kind
    from mtf.spec.schema.policies import Policies
    from mtf.spec.schema.settings import Settings

_ROOT = "/runs"  # stands for the run root of the cluster
_TOKEN = Token("0" * 16)
_Place = tuple[str, str]  # the name of a spec, and the resources as JSON


@dataclass(frozen=True)
class SampleScripts:
    """A script for each distinct request of some specs; the tokens and folders are made up."""

    kind: Kind
    problems: tuple[Problem, ...] = ()  # a template that cannot be rendered
    options: Mapping[_Place, JobOptions] = field(default_factory=dict)  # of scripts for SLURM

    @classmethod
    def of(
        cls, specs: Sequence[Desired], templates: Mapping[str, str], settings: Settings
    ) -> SampleScripts:
        """Render the scripts of these specs; nothing is rendered if there are no own templates.

        Without specs, as if they all have mistakes, the templates are rendered with the defaults of
        the settings: a mistake in a template is found beside those.
        """
        kind = script_kind(settings)
        if not templates:
            return cls(kind)
        requests = _requests(specs or _plain_specs(settings))
        options: dict[_Place, JobOptions] = {}
        problems: dict[Problem, None] = {}
        for (place, request), text in _rendered(requests, kind, templates):
            try:
                if isinstance(text, MtfError):
                    raise text
                if kind == "slurm":
                    options[place] = script_options(request, text)
            except MtfError as e:
                problems[template_problem(str(e), kind)] = None
        if kind == "slurm" and settings.executor == "auto" and TEMPLATES["local"] in templates:
            for _, text in _rendered(_requests(_plain_specs(settings)), "local", templates):
                if isinstance(text, MtfError):
                    problems[template_problem(str(text), "local")] = None
        return cls(kind, tuple(problems), options)

    def violations(self, specs: Iterable[Desired], policies: Policies) -> Iterator[Problem]:
        """Yield a problem for each rule that the scripts break, and not the specs themselves."""
        yield from self.problems
        for spec in specs if self.options else ():
            path = f"{FOLDER}/{TEMPLATES[self.kind]}"
            yield from script_violations(spec, policies, self._options_of(spec.name), path)

    def demand_of(self, name: str) -> Callable[[Resources], Demand]:
        """Return a function that returns what a run of a spec takes by its script."""
        options_of = self._options_of(name)

        def demand(needs: Resources) -> Demand:
            try:
                return demand_of(options_of(needs))
            except ScriptOptionError:  # a mistake that is reported as such
                return UNBOUNDED

        return demand

    def _options_of(self, name: str) -> Callable[[Resources], JobOptions]:
        def options_of(needs: Resources) -> JobOptions:
            return self.options.get((name, _key(needs))) or job_options(needs)

        return options_of


def _rendered(
    requests: Mapping[_Place, JobRequest], kind: Kind, templates: Mapping[str, str]
) -> Iterator[tuple[tuple[_Place, JobRequest], str | MtfError]]:
    """Yield each request with its script, or with the reason that there is none."""
    try:
        texts = render_all(list(requests.values()), kind, templates)
    except MtfError as e:
        texts = [e] * len(requests)
    yield from zip(requests.items(), texts, strict=True)


def _plain_specs(settings: Settings) -> list[Desired]:
    """Return an experiment and a grid that ask for the defaults of the settings."""
    needs = SLURMConfig.model_validate(settings.slurm_defaults()).model_dump(mode="json")
    resources = cast("Resources", needs)
    return [
        Desired(
            name="sample",
            path="",
            experiments=(Experiment("sample", grid, {}, resources, {}, 1, ()),),
            max_parallel=None,
            cluster=None,
        )
        for grid in (None, "sample")
    ]


def template_problem(message: str, kind: Kind) -> Problem:
    """Return an error of a template as a problem at the line that the message begins with."""
    if found := re.fullmatch(rf"({FOLDER}/[^:]+):(?:([0-9]+):)? (.*)", message, re.DOTALL):
        return Problem(found[1], int(found[2] or 1), 1, found[3])
    return Problem(f"{FOLDER}/{TEMPLATES[kind]}", 1, 1, message)


def script_changes(
    specs: Sequence[Desired], before: Mapping[str, str], after: Mapping[str, str], kind: Kind
) -> ScriptChange | None:
    """Return the change of one script that a change of the templates makes.

    None if all scripts stay the same, or if a template cannot be rendered.
    """
    requests = _requests(specs)
    try:
        old, new = (render_all(list(requests.values()), kind, t) for t in (before, after))
    except MtfError:  # is a problem of its own
        return None
    pairs = {
        at: (a, b)
        for at, (a, b) in enumerate(zip(old, new, strict=True))
        if isinstance(a, str) and isinstance(b, str) and a != b
    }
    if not pairs:
        return None
    first, (was, now) = next(iter(pairs.items()))
    lines = difflib.unified_diff(
        was.split("\n"), now.split("\n"), "before", "after", lineterm="", n=2
    )
    names = {place[0] for at, place in enumerate(requests) if at in pairs}
    request = list(requests.values())[first]
    return ScriptChange(str(request.tasks[0].run), len(names), tuple(lines))


def _requests(specs: Sequence[Desired]) -> dict[_Place, JobRequest]:
    found: dict[_Place, JobRequest] = {}
    for spec in specs:
        for experiment in {id(e.resources): e for e in spec.experiments}.values():
            place = spec.name, _key(experiment.resources)
            if place not in found:
                found[place] = _request(spec, experiment)
    return found


def _request(spec: Desired, experiment: Experiment) -> JobRequest:
    run = RunId(label_of(experiment.grid, experiment.name))
    return JobRequest(
        token=_TOKEN,
        name=spec.name,
        tasks=(Task(run, 0, f"{_ROOT}/{run}"),),
        resources=experiment.resources,
        code_dir=f"{_ROOT}/.code/commit",
        job_dir=f"{_ROOT}/{spec.name}/.jobs/token",
        array=experiment.grid is not None,
        max_parallel=spec.max_parallel,
        python="python3",
    )


def _key(needs: Resources) -> str:
    return json_text.dumps(needs, sort_keys=True)
