"""The house's rules as tests: what a room may load, no import cycles, small files and small functions."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mm35local", "quantize")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MEDIAN_FILE_LINES = 120
MEDIAN_FUNCTION_LINES = 10
TABLES = {"mm35local/models/ggml_types.py"}
BROAD_EXCEPTS = {"mm35local/engine/core.py", "mm35local/server/problems.py"}


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _num_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize(
    "statement",
    ["import mm35local.server.app", "import mm35local.tui.app", "from mm35local.cli.app import run; run(['--help'])"],
)
def test_front_ends_load_without_the_model_libraries(statement: str) -> None:
    heavy = {"llama_cpp", "torch", "mistral_common"}
    check = f"{statement}\nimport sys\nloaded = {heavy!r} & set(sys.modules)\nassert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_first_frame_of_the_chat_waits_for_no_library_that_it_does_without() -> None:
    check = "import mm35local.tui.app, sys; print({'httpx', 'pydantic', 'markdown_it', 'pygments'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_importing_the_package_loads_nothing_of_others() -> None:
    check = "import sys; before = set(sys.modules); import mm35local; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['mm35local']"


def test_no_import_cycles() -> None:
    graph = grimp.build_graph(*PACKAGES)
    cycles = [
        (module, imported)
        for module in sorted(graph.modules)
        for imported in graph.find_modules_directly_imported_by(module)
        if graph.chain_exists(importer=imported, imported=module)
    ]
    assert not cycles


def test_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


def test_files_are_small() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources()}
    assert {name: count for name, count in lines.items() if count > MAX_FILE_LINES and name not in TABLES} == {}
    assert statistics.median(lines.values()) <= MEDIAN_FILE_LINES


def test_functions_are_small() -> None:
    sizes = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": _num_lines(node)
        for path in _sources()
        for node in _functions(path)
    }
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}
    assert statistics.median(sizes.values()) <= MEDIAN_FUNCTION_LINES


def test_broad_excepts_stand_only_where_a_loop_must_go_on() -> None:
    broad = {
        str(path.relative_to(ROOT))
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
    }
    assert broad <= BROAD_EXCEPTS


def test_relative_imports_and_module_state_are_absent() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.level) or isinstance(node, ast.Global)
    ]
    assert offenders == []
