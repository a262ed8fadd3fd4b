"""The rules that keep the rooms of mtf apart, its modules small and its texts true.

import-linter keeps the directions of imports (pyproject.toml); what it cannot count is counted here.
A number in ``CAPS`` may only go down.
"""

from __future__ import annotations

import ast
import io
import pkgutil
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mtf
from mtf.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
CODE = ("mtf", "tests", "benchmarks")
MODULES_IN_A_FOLDER = {"mtf": 15, "tests": 22, "benchmarks": 15}
# Statements, not lines: a wide line that the formatter skips does not make a function smaller.
STATEMENTS_IN_A_FUNCTION = {"mtf": 32, "tests": 41, "benchmarks": 31}
STATEMENTS_IN_A_MODULE = {"mtf": 281, "tests": 295, "benchmarks": 139}

TWINS = {
    "plan": "commands/plan.py reads the world and prints what core/planner/plan.py decides",
}

# The commands that each module of mtf/commands carries out, or why it carries out none.
VERBS: dict[str, tuple[str, ...] | str] = {
    "act_on_runs": ("cancel", "retry", "preempt"),
    "checkpoint": ("checkpoint",),
    "controller": ("controller",),
    "diff": ("diff",),
    "doctor": ("doctor",),
    "hooks": ("hooks",),
    "init": ("init", "schema"),
    "plan": ("plan",),
    "post_comment": ("comment",),
    "reproduce": ("reproduce",),
    "rerun": ("rerun",),
    "review": ("plan",),  # mtf plan --base
    "run": ("run",),
    "show_runs": ("status", "show", "logs", "results"),
    "submit_from_python": "mtf.framework submits an experiment that a Python program describes",
    "sync": ("sync",),
    "uncommitted": "mtf plan, mtf sync and mtf.framework say what is not committed",
    "validate": ("validate",),
    "verify_resume": ("verify-resume",),
    "wait_for_runs": ("sync",),  # mtf sync --wait
}

# Dotted names and paths that a text may give although no module and no file has them.
NAMES = {
    "mtf.yaml": "the settings of an experiments repository",
    "mtf.cluster": "a key of git config",
    "mtf.requireSigned": "a key of git config",
    "mtf.requireSignedLedger": "a key of git config",
    "mtf.signLedger": "a key of git config",
    "mtf.ledgerSignedSince": "a key of git config",
    "mtf.run_grid_search": "README calls its ModelTrainingFramework mtf",
}
PATHS = ("mtf/_data", "docs/_build")  # folders of the built wheel and of `make docs`

# Each contract of import-linter: the package to add an import to, and the import it must refuse.
REFUSED = {
    "layers: imports only downwards": ("mtf.ledger", "mtf.commands"),
    "layers of core": ("mtf.core.vocabulary", "mtf.core.planner"),
    "layers of spec": ("mtf.spec.yaml", "mtf.spec.grid"),
    "layers of the executors": ("mtf.executor.protocol", "mtf.executor.script"),
    "layers of git": ("mtf.git.wire", "mtf.git.repo"),
    "layers of the trainer": ("mtf.trainer.runtime", "mtf.trainer.loop"),
    "no cycles between the rooms and files of any folder": ("mtf.report.tables", "mtf.report.runs"),
    "core decides with the standard library alone, and touches nothing": ("mtf.core.review", "os"),
    "the trainer knows neither git nor SLURM": ("mtf.trainer.data", "mtf.executor"),
    "the git side never imports torch, not even lazily": ("mtf.report", "torch"),
    "one door a tool": ("mtf.rundir", "subprocess"),
    "git is asked through the repository alone": ("mtf.project", "mtf.git.process"),
}


@cache
def sources(part: str) -> dict[Path, ast.Module]:
    """Return the parsed modules below one of the top folders."""
    return {p: ast.parse(p.read_text()) for p in sorted((ROOT / part).rglob("*.py"))}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules(folder: Path) -> list[str]:
    """Return the names of a folder's modules without __init__ and __main__."""
    return [p.stem for p in sorted(folder.glob("*.py")) if not p.stem.startswith("__")]


def functions(part: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in sources(part).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(path)}: {node.name}", node


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those of attributes included."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text
            case _:
                pass


def comments(path: Path) -> Iterator[tuple[int, str]]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    yield from ((t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT)


@pytest.mark.parametrize("part", CODE)
def test_a_folder_has_few_modules(part: str) -> None:
    folders = [p for p in (ROOT / part, *(ROOT / part).rglob("*")) if p.is_dir()]
    counts = {name_of(p): len(modules(p)) for p in folders}
    assert {name: n for name, n in counts.items() if n > MODULES_IN_A_FOLDER[part]} == {}


def test_a_module_name_is_used_once() -> None:
    """Except that cli/X is the command line of commands/X."""
    places = defaultdict(list)
    for path in sources("mtf"):
        in_commands = path.relative_to(ROOT / "mtf").parts[1:]
        is_command_line = path.parent == ROOT / "mtf/cli" and path.stem in VERBS
        if not path.stem.startswith("__") and not is_command_line:
            places[path.stem].append("/".join(in_commands))
    assert {n: where for n, where in places.items() if len(where) > 1 and n not in TWINS} == {}
    assert all(len(places[name]) > 1 for name in TWINS), "TWINS lists a name that is used once"


def test_each_module_of_commands_is_a_command() -> None:
    folder = ROOT / "mtf/commands"
    packages = [p.parent.name for p in folder.glob("*/__init__.py")]
    assert sorted([*modules(folder), *packages]) == sorted(VERBS)
    verbs = [verb for found in VERBS.values() if isinstance(found, tuple) for verb in found]
    assert set(verbs) == set(COMMANDS)


@pytest.mark.parametrize("name", VERBS)
def test_the_command_line_imports_the_module_that_its_verb_names(name: str) -> None:
    verbs = VERBS[name]
    callers = ["mtf.framework.submitter"]  # of a module without a verb
    if not isinstance(verbs, str):
        callers = [COMMANDS[verb][0].partition(":")[0] for verb in verbs]
    for module in callers:
        text = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        assert re.search(
            rf"mtf\.commands\.{name}\b|from mtf\.commands import .*\b{name}\b", text
        ), f"{module} does not import mtf.commands.{name}"


def statements(tree: ast.AST) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


@pytest.mark.parametrize("part", CODE)
def test_functions_and_modules_are_small(part: str) -> None:
    most = STATEMENTS_IN_A_FUNCTION[part]
    long = {name: statements(node) - 1 for name, node in functions(part)}
    assert {name: n for name, n in long.items() if n > most} == {}
    most = STATEMENTS_IN_A_MODULE[part]
    large = {name_of(path): statements(tree) for path, tree in sources(part).items()}
    assert {name: n for name, n in large.items() if n > most} == {}


def imports_in_functions() -> Iterator[str]:
    """Yield the imports of mtf's own modules that stand inside a function.

    Some save start-up time of a command and stay; each hides a dependency from the reader.
    """
    inside: set[ast.stmt] = set()
    for name, function in functions("mtf"):
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            else:
                continue
            if node not in inside and any(n.split(".")[0] == "mtf" for n in found):
                inside.add(node)
                yield f"{name}: {found[0]}"


def broad_excepts() -> Iterator[str]:
    """Yield the handlers of any exception: they hide the one that nobody thought of."""
    broad = {"Exception", "BaseException"}
    for path, tree in sources("mtf").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                kinds = (
                    {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                    if node.type
                    else broad
                )
                if kinds & broad:
                    yield f"{name_of(path)}:{node.lineno}"


def riddles() -> Iterator[str]:
    """Yield the docstrings that begin with a question word in place of what is returned."""
    for part in CODE:
        for path, tree in sources(part).items():
            for line, text in docstrings(tree):
                if re.match(r"(Return|Yield|Give|Say|Tell)s? (what|whether|how|why|which)\b", text):
                    yield f"{name_of(path)}:{line}"


def marked(part: str, mark: str) -> Iterator[str]:
    for path in sources(part):
        for line, text in comments(path):
            if mark in text:
                yield f"{name_of(path)}:{line}"


# What may be found at most. Lower a number when fewer are left. Raise none, but for a new command,
# whose file in mtf/cli imports mtf.commands when it runs.
CAPS: dict[str, tuple[int, Callable[[], Iterator[str]]]] = {
    "imports inside functions": (75, imports_in_functions),
    "broad excepts": (18, broad_excepts),
    "docstrings that begin with a question word": (0, riddles),
    "fmt: skip in mtf": (0, lambda: marked("mtf", "fmt: skip")),
    "fmt: skip in tests": (76, lambda: marked("tests", "fmt: skip")),
    "type: ignore in mtf": (10, lambda: marked("mtf", "type: ignore")),
    "type: ignore in tests": (32, lambda: marked("tests", "type: ignore")),
}


@pytest.mark.parametrize("what", CAPS)
def test_no_count_is_above_its_cap(what: str) -> None:
    most, find = CAPS[what]
    found = list(find())
    assert len(found) <= most, "\n".join(found)


def texts() -> Iterator[tuple[str, str]]:
    """Yield each line of the documents, docstrings and comments with its place."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    documents += [ROOT / "pyproject.toml", *(ROOT / ".github").rglob("*.yml")]
    for path in documents:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{name_of(path)}:{number}", line
    for part in CODE:
        for path, tree in sources(part).items():
            for number, text in (*docstrings(tree), *comments(path)):
                for offset, line in enumerate(text.splitlines()):
                    yield f"{name_of(path)}:{number + offset}", line


def exists(name: str) -> bool:
    """Return True if a dotted name is a module, or something in one."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_every_module_and_function_that_a_text_names_exists() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    known = {*NAMES, *groups, "mtf.callbacks"}
    named = re.compile(r"(?<![\w./@-])mtf(?:\.[A-Za-z_]\w*)+")
    missing = [
        f"{place}: {found[0]}"
        for place, line in texts()
        for found in named.finditer(line)
        if found[0] not in known and not exists(found[0])
    ]
    assert missing == []


def test_every_file_that_a_text_names_exists() -> None:
    named = re.compile(
        r"(?<![\w./<>$~{}-])(?:mtf|tests|docs|benchmarks|templates|hooks|\.ci)/[\w./-]*\w(?![\w<*{])"
    )
    missing = [
        f"{place}: {found[0]}"
        for place, line in texts()
        for found in named.finditer(line)
        if not found[0].startswith(PATHS) and not (ROOT / found[0]).exists()
    ]
    assert missing == []


def test_the_control_side_starts_without_torch() -> None:
    names = [m.name for m in pkgutil.walk_packages(mtf.__path__, "mtf.", onerror=lambda _: None)]
    wanted = [n for n in names if not n.startswith("mtf.trainer") and not n.endswith("__main__")]
    heavy = ["torch", "lightning", "numpy", "wandb", "sklearn"]
    program = (
        f"import importlib, sys\nfor name in {wanted}:\n    importlib.import_module(name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def contracts() -> list[dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def broken(copy: Path) -> set[str]:
    """Return the names of the contracts that import-linter finds broken in a copy of mtf."""
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=copy, capture_output=True, text=True
    )
    return set(re.findall(r"^(.+) BROKEN\b", done.stdout, re.MULTILINE))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for path in sources("mtf"):
        new = tmp_path / path.relative_to(ROOT)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return tmp_path


def test_import_linter_refuses_what_each_contract_forbids(copy: Path) -> None:
    assert set(REFUSED) == {contract["name"] for contract in contracts()}
    for where, what in REFUSED.values():
        path = copy.joinpath(*where.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        path.write_text(f"{path.read_text()}\nimport {what}\n")
    assert broken(copy) == set(REFUSED)


def test_import_linter_refuses_a_room_without_a_layer(copy: Path) -> None:
    exhaustive = [c for c in contracts() if c.get("exhaustive")]
    for contract in exhaustive:
        (container,) = contract["containers"]
        (copy.joinpath(*container.split(".")) / "utils.py").write_text("")
    assert broken(copy) >= {c["name"] for c in exhaustive}
