"""Finds what ``package.module:Name`` stands for in the files of a commit.

Only what is certainly wrong counts as missing. Nothing is said about code outside of the files,
about names that code binds at run time, and about what a symbolic link leads to.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.spec.named_code.known_signatures import names_in
from mtf.spec.named_code.source_files import EntryKind
from mtf.spec.named_code.source_module import Bindings, Imported, SourceModule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.spec.named_code.source_files import SourceFiles
    from mtf.spec.named_code.source_module import Bound

_MAX_STEPS = 50  # of imports that lead to each other
Definition: TypeAlias = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Defined:
    """A class or function, and the module in which it is written."""

    node: Definition
    module: SourceModule


@dataclass(frozen=True)
class Outside:
    """Something outside of the files, such as a class of torch, by its dotted name."""

    dotted: str


@dataclass(frozen=True)
class Missing:
    """Something that certainly does not exist; ``what`` says it, with the nearest names."""

    what: str


@dataclass(frozen=True, eq=False)
class Partial:
    """``functools.partial`` of something, with the call that makes it."""

    of: Found
    call: ast.Call


@dataclass(frozen=True)
class ModuleName:
    """A module, or a package, by its dotted name."""

    dotted: str


Unknown = Literal["unknown"]
UNKNOWN: Unknown = "unknown"  # it exists or may exist, and nothing else is known of it
Found: TypeAlias = "Defined | Outside | Missing | ModuleName | Partial | Unknown"


class SourceCode:
    """The modules of a commit, by their names."""

    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._modules: dict[str, SourceModule | Outside | Missing | Unknown] = {}
        self.unreadable: dict[str, tuple[int, str]] = {}  # by path: line and message

    # -- modules -----------------------------------------------------------------------------------

    def module(self, dotted: str) -> SourceModule | Outside | Missing | Unknown:
        """Return a module by its dotted name."""
        if dotted not in self._modules:
            self._modules[dotted] = self._module(dotted)
        return self._modules[dotted]

    def has_module(self, dotted: str) -> bool:
        """Return True if a module of that name may exist in the files."""
        return not isinstance(self.module(dotted), Missing | Outside)

    @property
    def top_level_names(self) -> list[str]:
        """Return the names of the modules and packages at the top of the import path."""
        return sorted({name for root in self._files.roots for name in self._importable(root)})

    def _module(self, dotted: str) -> SourceModule | Outside | Missing | Unknown:
        parts = dotted.split(".")
        if not all(part.isidentifier() for part in parts):
            return Missing(f"{dotted!r} is not the name of a module. Write package.module:Name")
        folders: list[str] = list(self._files.roots)
        for i, part in enumerate(parts):
            name = ".".join(parts[: i + 1])
            found = self._in_folders(folders, part)
            if isinstance(found, str):  # a module's file or a package's __init__.py
                is_package = found.endswith("/__init__.py")
                if i == len(parts) - 1:
                    return self._read(name, found, is_package=is_package)
                if not is_package:
                    return Missing(f"{found} is a module, so that it contains no {parts[i + 1]!r}")
                if self._changes_its_path(name, found):
                    return UNKNOWN
                folders = [found.rpartition("/")[0]]
            elif found is None:
                return self._no_module(name, folders, is_top=i == 0)
            elif not found:
                return UNKNOWN
            else:
                if i == 0 and is_installed(part):
                    return UNKNOWN  # an installed package comes before a folder without __init__.py
                folders = found
        return UNKNOWN  # a folder without __init__.py, which holds no names

    def _in_folders(self, folders: list[str], name: str) -> str | list[str] | None:
        """Return the path of a module, the folders of a namespace package, or None.

        An empty list stands for a module whose content cannot be read.
        """
        namespace = []
        for folder in folders:
            inside = f"{folder}/{name}" if folder else name
            kind = self._files.kind(folder, name)
            if kind is EntryKind.FOLDER and self._files.kind(inside, "__init__.py"):
                return f"{inside}/__init__.py"
            entries = self._files.folder(folder)
            if f"{name}.py" in entries:
                return f"{inside}.py"
            if kind is EntryKind.OTHER or _is_compiled(name, entries):
                return []  # a link, or a module in another form, such as .so
            if kind is EntryKind.FOLDER:
                namespace.append(inside)
        return [f for f in namespace if self._holds_code(f)] or None

    def _holds_code(self, folder: str, depth: int = 3) -> bool:
        """Return True if a folder contains Python modules, or may contain some."""
        for name, kind in self._files.folder(folder).items():
            if name.endswith(".py") or kind in (EntryKind.OTHER, EntryKind.SUBMODULE):
                return True
            if (
                kind is EntryKind.FOLDER
                and depth
                and self._holds_code(f"{folder}/{name}", depth - 1)
            ):
                return True
        return False

    def _read(self, name: str, path: str, *, is_package: bool) -> SourceModule | Unknown:
        folder, _, last = path.rpartition("/")
        if self._files.kind(folder, last) is not EntryKind.FILE:
            return UNKNOWN
        text = self._files.read(path)
        if text is None:
            return UNKNOWN
        try:
            return SourceModule(name, path, text, is_package=is_package)
        except SyntaxError as e:
            self.unreadable[path] = e.lineno or 1, e.msg
            return UNKNOWN

    def _changes_its_path(self, name: str, path: str) -> bool:
        """Return True if a package may find its modules elsewhere than in its folder."""
        found = self._modules.setdefault(name, self._read(name, path, is_package=True))
        if not isinstance(found, SourceModule):
            return True
        return any(found.mentions(word) for word in ("__path__", "sys.modules", "sys.meta_path"))

    def _no_module(self, name: str, folders: list[str], *, is_top: bool) -> Outside | Missing:
        if is_top:
            return Outside(name)
        siblings = {other for folder in folders for other in self._importable(folder)}
        package, _, last = name.rpartition(".")
        near = did_you_mean(last, siblings)
        message = f"no module {name!r}: {package} contains no {last!r}. {near}"
        return Missing(message.rstrip())

    def _importable(self, folder: str) -> list[str]:
        """Return the names of the modules and packages in a folder."""
        names = []
        for name, kind in self._files.folder(folder).items():
            stem = name.removesuffix(".py")
            inside = f"{folder}/{name}" if folder else name
            if kind is EntryKind.FOLDER and name.isidentifier() and self._holds_code(inside, 1):
                names.append(name)
            elif stem != name and stem.isidentifier() and not stem.startswith("__"):
                names.append(stem)
        return names

    # -- names in modules --------------------------------------------------------------------------

    def find(self, target: str) -> Found:
        """Return the definition that ``package.module:Name`` stands for, or why there is none."""
        module_name, _, name = target.partition(":")
        if module_name == "__main__" or module_name.endswith("ipynb"):
            return Missing(
                "it is defined in a notebook or script, which a job does not run: move it to a"
                f" module of the repository, and write package.module:{name}"
            )
        if not all(part.isidentifier() for part in name.split(".")):
            return Missing(f"{name!r} is not the name of a class. Write package.module:Name")
        module = self.module(module_name)
        if isinstance(module, Missing) or module == UNKNOWN:
            return module
        first, *rest = name.split(".")
        if isinstance(module, Outside):
            return self._in_outside(module_name, name)
        found = self.name_in(module, first)
        for part in rest:
            found = self._attribute(found, part)
        return found

    def _in_outside(self, module: str, name: str) -> Found:
        known = names_in(module)
        if known is not None and name not in known and "." not in name and name[:1] != "_":
            return Missing(f"{module} has no {name!r}. {did_you_mean(name, known)}".rstrip())
        return Outside(f"{module}.{name}")

    def name_in(self, module: SourceModule, name: str, steps: int = 0) -> Found:
        """Return the definition that a name in a module stands for."""
        if steps > _MAX_STEPS:
            return UNKNOWN
        bound = module.bindings.by_name.get(name, [])
        if len(bound) == 1:
            return self._bound(module, name, bound[0], steps)
        if bound:
            return UNKNOWN
        return self._unbound(module, name, steps)

    def _bound(self, module: SourceModule, name: str, bound: Bound, steps: int) -> Found:
        match bound:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                return Defined(bound, module)
            case Imported():
                return self._imported(module, bound, steps)
            case ast.Assign(value=ast.Name() | ast.Attribute() as value):
                return self.expression(module, value, steps + 1)
            case ast.Assign(value=ast.Lambda(args=args)):
                return Defined(_function(name, args), module)
            case ast.Assign(value=ast.Call(func=called, args=[given, *_]) as call):
                is_partial = self.expression(module, called) == Outside("functools.partial")
                is_partial = is_partial and not isinstance(given, ast.Starred)
                made = self.expression(module, given, steps + 1) if is_partial else UNKNOWN
                return Partial(made, call) if isinstance(made, Defined | Outside) else UNKNOWN
            case ast.Assign(value=value) | ast.AnnAssign(value=value) if _is_data(value):
                if module.has_hidden_names or name in module.further_names:
                    return UNKNOWN
                return Missing(f"{name!r} in {module.path} is a value, not a class or function")
            case _:
                return UNKNOWN

    def _imported(self, module: SourceModule, imported: Imported, steps: int) -> Found:
        dotted = module.absolute(imported)
        if dotted is None:
            return UNKNOWN
        if imported.name is None:
            return ModuleName(dotted)
        return self._member(dotted, imported.name, steps + 1)

    def _member(self, dotted: str, name: str, steps: int) -> Found:
        """Return the definition of a name in another module; a mistake there is not the spec's."""
        source = self.module(dotted)
        if isinstance(source, Outside):
            return Outside(f"{dotted}.{name}")
        found: Found = UNKNOWN
        if isinstance(source, SourceModule):
            found = self.name_in(source, name, steps)
        if isinstance(found, Missing) or found == UNKNOWN:
            submodule = f"{dotted}.{name}"
            return ModuleName(submodule) if self.has_module(submodule) else UNKNOWN
        return found

    def _unbound(self, module: SourceModule, name: str, steps: int) -> Found:
        """Return the definition of a name that a module does not bind itself."""
        may_be_hidden = False
        for star in module.bindings.stars:
            dotted = module.absolute(star)
            source = self.module(dotted) if dotted is not None else UNKNOWN
            if not isinstance(source, SourceModule):
                may_be_hidden = True
                continue
            if name.startswith("_") and not source.mentions("__all__"):
                continue  # a star does not import it
            found = self.name_in(source, name, steps + 1)
            if found == UNKNOWN or source.mentions("__all__"):
                may_be_hidden = may_be_hidden or not isinstance(found, Missing)
            elif not isinstance(found, Missing):
                return found
        is_module = module.is_package and self.has_module(f"{module.name}.{name}")
        if (
            may_be_hidden
            or is_module
            or name.startswith("__")
            or module.has_hidden_names
            or name in module.further_names
        ):
            return UNKNOWN
        near = did_you_mean(name, module.public_names)
        return Missing(f"{module.path} defines no {name!r}. {near}".rstrip())

    def expression(self, module: SourceModule, node: ast.expr, steps: int = 0) -> Found:
        """Return the definition that an expression like ``nn.Module`` or ``Base[int]`` names."""
        match node:
            case ast.Name(id=name):
                found = self.name_in(module, name, steps)
                is_builtin = isinstance(found, Missing) and name in _BUILTINS
                return Outside(f"builtins.{name}") if is_builtin else found
            case ast.Attribute(value=value, attr=attr):
                return self._attribute(self.expression(module, value, steps + 1), attr, steps)
            case ast.Subscript(value=value):
                return self.expression(module, value, steps)
            case _:
                return UNKNOWN

    def _attribute(self, found: Found, name: str, steps: int = 0) -> Found:
        match found:
            case Outside(dotted):
                return Outside(f"{dotted}.{name}")
            case ModuleName(dotted):
                return self._member(dotted, name, steps + 1)
            case Missing():
                return found
            case Defined(ast.ClassDef() as node, module):
                return _in_class(node, module, name)
            case _:
                return UNKNOWN


def _in_class(node: ast.ClassDef, module: SourceModule, name: str) -> Found:
    """Return the class that a class contains, or why it contains none of that name."""
    by_name = Bindings(node.body).by_name
    bound = by_name.get(name, [])
    if len(bound) == 1 and isinstance(bound[0], ast.ClassDef):
        return Defined(bound[0], module)
    if bound or node.bases or node.keywords or node.decorator_list or name.startswith("__"):
        return UNKNOWN
    near = did_you_mean(name, by_name)
    return Missing(f"{node.name} in {module.path} has no {name!r}. {near}".rstrip())


def _function(name: str, args: ast.arguments) -> ast.FunctionDef:
    """Return a lambda as the function that it is."""
    return ast.FunctionDef(name=name, args=args, body=[], decorator_list=[])


def _is_data(node: ast.expr | None) -> bool:
    """Return True if an expression is a number, a text or a container of values."""
    kinds = (ast.Constant, ast.JoinedStr, ast.Dict, ast.List, ast.Set, ast.Tuple)
    return isinstance(node, kinds)


def _is_compiled(name: str, entries: Iterable[str]) -> bool:
    """Return True if a folder has a module in another form than source."""
    return any(e.startswith(f"{name}.") and e.endswith(_COMPILED) for e in entries)


_COMPILED = (".so", ".pyd", ".pyc", ".pyx", ".pyw")


@cache
def is_installed(package: str) -> bool:
    """Return True if this environment has a package, other than a folder that happens to be."""
    import importlib.util

    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


_BUILTINS = frozenset({"object", "Exception", "dict", "list", "tuple", "type", "set"})


def single(bindings: Bindings, name: str) -> Bound | Unknown:
    """Return the only thing that binds a name; ``unknown`` if there are several, or none."""
    bound = bindings.by_name.get(name, [])
    return bound[0] if len(bound) == 1 else UNKNOWN
