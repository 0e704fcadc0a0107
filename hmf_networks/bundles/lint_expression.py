"""One `$` text: parsed as MONAI would evaluate it, and held to what an expression may be made of."""

import ast
import re
from collections.abc import Iterator

from hmf_networks.bundles.allowed import ATTRIBUTES, BUILTINS, MODULES, NAMES_IN_MODULES

REFERENCES = "__local_refs"  # MONAI's name for what `@id` stands for
RELATIVE = re.compile(r"([@%])(?:#|::)+")
REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
LONGEST = 2000
ROOTS = {name.partition(".")[0] for name in NAMES_IN_MODULES}

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
USUAL = {"setattr(torch.backends.cudnn, 'benchmark', True)"}  # calls that are allowed as they stand

PLAIN = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Starred, ast.Load, ast.JoinedStr),
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice),
    *(ast.boolop, ast.operator, ast.unaryop, ast.cmpop, ast.FormattedValue),
)


def faults_of_expression(text: str) -> Iterator[str]:
    """What in it is not allowed; nothing where all is."""
    code = as_evaluated(text)
    if len(code) > LONGEST:
        yield "longer than anybody would read"
        return
    try:
        statements = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "no Python"
        return
    if len(statements) == 1 and isinstance(statements[0], ast.Import | ast.ImportFrom):
        yield from _faults_of_import(statements[0])
    elif len(statements) == 1 and isinstance(statements[0], ast.Expr):
        yield from _faults_of_node(statements[0].value)
    elif statements:
        yield "more than an expression"


def as_evaluated(text: str) -> str:
    """The code behind the `$`; references replaced as MONAI does it: longest first, in strings as well."""
    code = RELATIVE.sub(r"\1here::", text).replace("#", "::")
    for reference in sorted(set(REFERENCE.findall(code)), key=len, reverse=True):
        code = code.replace(reference, f"{REFERENCES}[{reference[1:]!r}]")
    return code[1:].strip()


def is_import(text: str) -> bool:
    """Whether MONAI takes it for an import statement."""
    try:
        statements = ast.parse(as_evaluated(text)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(statements) and isinstance(statements[0], ast.Import | ast.ImportFrom)


def _faults_of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        yield f"import from {node.module}"
        return
    for alias in node.names:
        usual = MODULES.get(alias.name)
        if usual is None or (alias.asname or alias.name) not in (usual, alias.name):
            yield f"import of {alias.name}" + (f" as {alias.asname}" if alias.asname else "")


def _faults_of_node(node: ast.AST, bound: frozenset[str] = frozenset()) -> Iterator[str]:
    """`bound` are the names of comprehensions around it."""
    if isinstance(node, ast.Call):
        yield from _faults_of_call(node, bound)
    elif isinstance(node, ast.Attribute):
        yield from _faults_of_attribute(node, bound)
    elif isinstance(node, ast.Name):
        if node.id not in BUILTINS | bound:
            yield f"name {node.id}"
    elif isinstance(node, COMPREHENSIONS):
        yield from _faults_of_comprehension(node, bound)
    elif _is_reference(node):
        return
    elif isinstance(node, PLAIN):
        for child in ast.iter_child_nodes(node):
            yield from _faults_of_node(child, bound)
    else:
        yield type(node).__name__


def _faults_of_comprehension(node: ast.AST, bound: frozenset[str]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.comprehension):
            names = child.target.elts if isinstance(child.target, ast.Tuple) else [child.target]
            if not all(isinstance(name, ast.Name) for name in names):
                yield "a comprehension that sets more than a name"
            bound = bound | {name.id for name in names if isinstance(name, ast.Name)}
    for child in ast.iter_child_nodes(node):
        parts = [child.iter, *child.ifs] if isinstance(child, ast.comprehension) else [child]
        for part in parts:
            yield from _faults_of_node(part, bound)


def _faults_of_call(node: ast.Call, bound: frozenset[str]) -> Iterator[str]:
    callee = node.func
    if ast.unparse(node) in USUAL:
        return
    dotted = _dotted(callee)
    if dotted == "sys.path.insert":
        root = ast.unparse(node.args[1]) if len(node.args) == 2 else ""
        if root != f"{REFERENCES}['bundle_root']" or node.keywords:
            yield "sys.path.insert of something else than @bundle_root"
        return
    if not isinstance(callee, ast.Name | ast.Attribute) and not _is_reference(callee):
        yield "call of what an expression gives"
    yield from _faults_of_node(callee)  # but not what a comprehension calls by a name of its own
    for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
        yield from _faults_of_node(argument, bound)


def _faults_of_attribute(node: ast.Attribute, bound: frozenset[str] = frozenset()) -> Iterator[str]:
    dotted = _dotted(node)
    if dotted is not None and dotted.partition(".")[0] in ROOTS:
        if dotted not in NAMES_IN_MODULES or dotted == "sys.path.insert":
            yield dotted
        return
    if node.attr not in ATTRIBUTES:
        yield f"attribute {node.attr}"
    yield from _faults_of_node(node.value, bound)


def _is_reference(node: ast.AST) -> bool:
    """What `as_evaluated` makes of `@id`; `@` alone would be the whole config."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == REFERENCES
        and isinstance(node.slice, ast.Constant)
        and bool(node.slice.value)
    )


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` of names alone."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None
