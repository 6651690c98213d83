"""The literals of a Python source, from its syntax tree; nothing is imported or evaluated."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from batchd.errors import UsageError
from batchd.moving.found import Source
from batchd.moving.toml_text import WithVariables

_MOST_DEPTH = 60
_LARGEST = 10**12


@dataclass(frozen=True, slots=True)
class Unknown:
    """What only running it could tell."""

    text: str


@dataclass(frozen=True, slots=True)
class CallValue:
    """A call, `crontab(minute=0)`: the last part of its name, and its arguments."""

    name: str
    full_name: str
    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    text: str = ""


@dataclass(slots=True)
class Module:
    """A source, its syntax tree, and what it names: constants, and from where things are imported."""

    source: Source
    tree: ast.Module
    constants: dict[str, Any] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)

    def value(self, node: ast.AST | None, depth: int = 0) -> Any:  # noqa: C901, PLR0911 (one case for each node)
        """Return what the expression is, as far as reading tells."""
        if node is None or depth > _MOST_DEPTH:
            return Unknown("")
        match node:
            case ast.Constant():
                plain = isinstance(node.value, str | int | float | bool | None)
                return node.value if plain else Unknown(self.text(node))
            case ast.Dict():
                return self._dict(node, depth)
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.value(each, depth + 1) for each in node.elts]
            case ast.Name():
                return self.constants.get(node.id, Unknown(node.id))
            case ast.UnaryOp(op=ast.USub()):
                inner = self.value(node.operand, depth + 1)
                return -inner if isinstance(inner, int | float) else Unknown(self.text(node))
            case ast.BinOp():
                return self._computed(node, depth)
            case ast.Call():
                return self._call(node, depth)
            case ast.Subscript():
                name = self.value(node.slice, depth + 1)
                if dotted(node.value) == "os.environ" and isinstance(name, str) and name.isidentifier():
                    return WithVariables(f"${{{name}:-}}")
        return Unknown(self.text(node))

    def text(self, node: ast.AST) -> str:
        """Return the source of a node, shortened."""
        found = ast.get_source_segment(self.source.text, node) or ""
        lines = found.split("\n")
        return "\n".join(lines if len(lines) <= 12 else [*lines[:11], "…"])  # noqa: PLR2004

    def comments_above(self, line: int) -> list[str]:
        """Return the comments right above a line."""
        lines = self.source.text.split("\n")
        found: list[str] = []
        while line > 1 and lines[line - 2].lstrip().startswith("#"):
            line -= 1
            found.insert(0, lines[line - 1].strip().lstrip("#").removeprefix(" "))
        return found

    def _dict(self, node: ast.Dict, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            read = self.value(value, depth + 1)
            if key is None:
                found.update(read if isinstance(read, dict) else {f"**{self.text(value)}": Unknown(self.text(value))})
            else:
                name = self.value(key, depth + 1)
                found[name if isinstance(name, str) else self.text(key)] = read
        return found

    def _computed(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self.value(node.left, depth + 1), self.value(node.right, depth + 1)
        numbers = all(
            isinstance(each, int | float) and not isinstance(each, bool) and abs(each) < _LARGEST
            for each in (left, right)
        )
        if numbers:
            match node.op:
                case ast.Mult():
                    return left * right
                case ast.Add():
                    return left + right
                case ast.Sub():
                    return left - right
                case ast.Div() if right:
                    return left / right
        if isinstance(node.op, ast.Add) and type(left) is str and type(right) is str:
            return left + right
        return Unknown(self.text(node))

    def _call(self, node: ast.Call, depth: int) -> Any:
        full_name = dotted(node.func)
        args = tuple(self.value(each, depth + 1) for each in node.args)
        options = {each.arg or "**": self.value(each.value, depth + 1) for each in node.keywords}
        if (
            full_name in {"os.getenv", "os.environ.get", "getenv"}
            and args
            and isinstance(args[0], str)
            and args[0].isidentifier()
        ):
            default = (
                str(args[1]) if len(args) > 1 and isinstance(args[1], str | int) and "}" not in str(args[1]) else ""
            )
            return WithVariables(f"${{{args[0]}:-{default}}}")
        if full_name == "dict" and not args:
            return options
        return CallValue(full_name.rpartition(".")[2], full_name, args, options, self.text(node))


def read_module(source: Source) -> Module:
    """Return the source's syntax tree with what it names; raises UsageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a bad escape in somebody's string is not our concern
            tree = ast.parse(source.text)
    except SyntaxError as error:
        raise UsageError(f"{source.name}:{error.lineno or 1}: not Python: {error.msg}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise UsageError(f"{source.name}: not Python that batchd reads: {error}") from None
    module = Module(source, tree)
    for node in walk(tree):
        _note_names(module, node)
    return module


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes in the order of the file."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of a name with attributes; what is called or indexed in between is left out."""
    parts: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Subscript):
            node = node.value
        else:
            break
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _note_names(module: Module, node: ast.AST) -> None:
    match node:
        case ast.ImportFrom(module=str(origin), level=0):
            for alias in node.names:
                module.imports[alias.asname or alias.name] = f"{origin}:{alias.name}"
        case ast.Import():
            for alias in node.names:
                module.imports[alias.asname or alias.name] = alias.name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
            node.value is not None
        ):
            value = module.value(node.value)
            if not isinstance(value, Unknown):
                module.constants[name] = value
