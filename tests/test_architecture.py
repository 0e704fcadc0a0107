"""The house as drawn: imports only go downstairs, rooms on one floor do not know each other, no circles."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hmf_networks
import pytest

PACKAGE = Path(hmf_networks.__file__).parent
FLOORS = {
    -1: {"atomic", "background", "hashing"},  # the cellar: the standard library only
    0: {"ops", "nifti", "physics", "naming"},
    1: {"preparation"},  # of raw studies; transforms make steps of it
    2: {"blocks", "losses", "metrics", "data", "transforms", "outputs", "bundles"},
    3: {"nets", "baselines", "engines", "reports"},
    4: {"doctor", "studies", "intake"},  # looks at all that is below
    5: {"commands"},
    6: {"cli"},
    7: {"__main__"},  # the doorstep: calls the command line
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
CATCH_ALLS = {"utils", "util", "common", "base", "helpers", "helper", "misc"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Our own modules that `tree` imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by full path, not relative"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in TREES else str(node.module) for name in names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE.name)


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported_when_loaded(tree: ast.Module) -> set[str]:
    """The same, of the statements that run on import: not those in functions or for type checkers."""
    loaded: set[str] = set()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) and not is_for_types_only(node):
            loaded |= set(imported_by(node))
    return loaded


def crossings(importer: str, imported: str) -> str | None:
    """What is wrong with an import, or None."""
    if imported == PACKAGE.name or room_of(importer) == room_of(imported):
        return None
    if FLOOR_OF[room_of(imported)] < FLOOR_OF[room_of(importer)]:
        return None
    return f"{importer} imports {imported}"


def test_every_room_is_on_the_plan():
    rooms = {room_of(module) for module in TREES if module != PACKAGE.name}
    assert rooms <= FLOOR_OF.keys()


def test_imports_only_go_downstairs_and_rooms_on_one_floor_do_not_know_each_other():
    inside = {name: tree for name, tree in TREES.items() if name != PACKAGE.name}
    found = {crossings(importer, imported) for importer, tree in inside.items() for imported in imported_by(tree)}
    assert found - {None} == set()


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("hmf_networks.nets.net", "hmf_networks.blocks.conv", True),
        ("hmf_networks.cli", "hmf_networks.naming", True),
        ("hmf_networks.ops.scan", "hmf_networks.ops.order", True),
        ("hmf_networks.ops.scan", "hmf_networks.blocks.conv", False),
        ("hmf_networks.data.bids", "hmf_networks.transforms.load", False),
        ("hmf_networks.losses", "hmf_networks.metrics", False),
    ],
)
def test_the_rule_of_the_stairs_allows_and_refuses_as_drawn(importer, imported, allowed):
    assert (crossings(importer, imported) is None) == allowed


def test_the_package_itself_imports_nothing():
    assert list(imported_by(TREES[PACKAGE.name])) == []


def test_no_module_imports_itself_in_a_circle():
    graph = {module: imported_when_loaded(tree) - {module} for module, tree in TREES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_baselines_use_generic_blocks_only():
    generic = {f"hmf_networks.blocks.{name}" for name in ("conv", "resnet", "ssm2d")}
    used = {
        imported
        for module, tree in TREES.items()
        for imported in imported_by(tree)
        if module.startswith("hmf_networks.baselines") and room_of(imported) == "blocks"
    }
    assert used <= generic


def test_no_file_or_folder_is_a_catch_all():
    names = {part.strip("_") for path in PACKAGE.rglob("*") for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert names & CATCH_ALLS == set()


def literals(tree: ast.AST) -> Iterator[ast.Constant]:
    """String literals that are not docstrings."""
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, scopes) and ast.get_docstring(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node


def opens_the_bundle(text: str) -> bool:
    """A path into bundle/; a sentence that mentions one (a help text) is none."""
    return re.fullmatch(r"(\S*/)?bundle/\S*", text) is not None


def test_the_package_never_opens_the_bundle():
    found = [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        for node in literals(tree)
        if opens_the_bundle(node.value)
    ]
    assert found == []


def test_a_path_into_the_bundle_is_told_from_a_sentence_about_it():
    assert opens_the_bundle("bundle/configs/train.json")
    assert opens_the_bundle("../bundle/models")
    assert not opens_the_bundle("see bundle/docs for more")
    assert not opens_the_bundle("monai.bundle")
    assert [node.value for node in literals(ast.parse('"""bundle/a."""\nx = "bundle/b"'))] == ["bundle/b"]


@pytest.mark.parametrize("module", ["", ".cli", ".naming", ".data.folder"])
def test_what_starts_in_under_a_second_loads_neither_torch_nor_monai(module):
    program = f"import sys, {PACKAGE.name}{module}; print(sorted({{'torch', 'monai'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
