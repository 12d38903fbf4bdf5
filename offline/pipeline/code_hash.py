"""The code part of a stage's key: a hash over the stage's module and what it imports from this tree.

Sources enter as their syntax tree without docstrings, so that an edited comment or README redoes
nothing, and an edited reward redoes PPO and what follows.
"""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

ROOTS = ("offline", "services")
# How stages are run, shown, logged and refused is not what they compute.
OUTSIDE = ("offline.pipeline", "services.platform")


@cache
def code_hash(module: str) -> str:
    """Hash of `module` and of every module of this tree that it imports, directly or not (hex sha256)."""
    digest = hashlib.sha256()
    for name in sorted(_closure(module)):
        digest.update(name.encode())
        digest.update(_source(name)[1].encode())
    return digest.hexdigest()


def _closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or not _counts(name):
            continue
        seen.add(name)
        waiting.extend(_source(name)[0])
    return seen


def _counts(name: str) -> bool:
    inside = any(name == root or name.startswith(root + ".") for root in ROOTS)
    outside = any(name == root or name.startswith(root + ".") for root in OUTSIDE)
    return inside and not outside


@cache
def _source(name: str) -> tuple[tuple[str, ...], str]:
    """The modules that `name` imports, and its normalised source."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return (), ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imports.append(node.module)
            # `from package import module` names a module too; what is none is left aside.
            imports.extend(
                f"{node.module}.{alias.name}"
                for alias in node.names
                if _counts(node.module) and _is_module(f"{node.module}.{alias.name}")
            )
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return tuple(imports), ast.unparse(tree)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, AttributeError):
        return False


def _drop_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> None:
    if node.body and isinstance(node.body[0], ast.Expr):
        value = node.body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            node.body[0] = ast.Expr(ast.Constant(None))
