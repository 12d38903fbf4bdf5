"""The code part of a stage's key: a hash over the stage's module and what it imports from this tree; and
the hash of a module that a user brings along.

Sources enter as their syntax tree without docstrings, so that an edited comment or README redoes
nothing, and an edited reward redoes PPO and what follows.
"""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from services.platform.file_hash import hash_file

ROOTS = ("offline", "services")
# How stages are run, shown, logged and refused is not what they compute.
OUTSIDE = ("offline.pipeline", "services.platform")
INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


Counts = Callable[[str], bool]
"""Whether the module of that name is part of what is hashed."""


@cache
def code_hash(module: str) -> str:
    """Hash of `module` and of every module of this tree that it imports, directly or not (hex sha256)."""
    return _hash(module, _of_this_tree)


@cache
def user_code_hash(module: str) -> str | None:
    """The same of a module that a user brings along; None where there is none of that name.

    What counts beside this tree is the module's own package, and every module that lies neither in the
    standard library nor among the installed packages.
    """
    if not _is_module(module):
        return None
    package = module.partition(".")[0]

    def counts(name: str) -> bool:
        top = name.partition(".")[0]
        if top in ROOTS:
            return _of_this_tree(name)
        return top == package or _not_installed(top)

    return _hash(module, counts)


def _hash(module: str, counts: Counts) -> str:
    digest = hashlib.sha256()
    for name in sorted(_closure(module, counts)):
        digest.update(name.encode())
        digest.update(_source(name)[1].encode())
    return digest.hexdigest()


def _closure(module: str, counts: Counts) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or not counts(name):
            continue
        seen.add(name)
        for imported, members in _source(name)[0]:
            waiting.append(imported)
            # `from package import module` names a module too; what is none is left aside.
            if members and counts(imported) and _is_package(imported):
                names = (f"{imported}.{member}" for member in members)
                waiting.extend(member for member in names if _is_module(member))
    return seen


def _of_this_tree(name: str) -> bool:
    inside = any(name == root or name.startswith(root + ".") for root in ROOTS)
    outside = any(name == root or name.startswith(root + ".") for root in OUTSIDE)
    return inside and not outside


@cache
def _not_installed(package: str) -> bool:
    """Whether a top-level module or package lies beside the interpreter's own and the installed ones."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not spec.has_location:
        return False
    installed = {Path(sysconfig.get_path(name)).resolve() for name in INSTALLED}
    return not installed.intersection(Path(spec.origin).resolve().parents)


Imports = tuple[tuple[str, tuple[str, ...]], ...]


@cache
def _source(name: str) -> tuple[Imports, str]:
    """The modules that `name` imports, each with the names taken from it, and its normalised source."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.has_location:
        return (), ""
    path = Path(spec.origin)
    if path.suffix != ".py":
        return (), hash_file(path)
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return (), hash_file(path)  # Importing it will tell.
    imports: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.extend((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = "." * node.level + (node.module or "")
            taken = tuple(alias.name for alias in node.names)
            with suppress(ImportError):  # A relative import outside of a package.
                imports.append((importlib.util.resolve_name(named, spec.parent), taken))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return tuple(imports), ast.unparse(tree)


def _is_package(name: str) -> bool:
    """Asked before its members are looked for: looking below a plain module would import it."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, AttributeError, ValueError):
        return False


def _drop_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> None:
    if node.body and isinstance(node.body[0], ast.Expr):
        value = node.body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            node.body[0] = ast.Expr(ast.Constant(None))
