"""Who imports what, as fresh interpreters see it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples/acme-kmm"


def imported_by(statement: str) -> set[str]:
    script = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()} - set(sys.stdlib_module_names)


def test_the_contract_needs_nothing_but_the_standard_library():
    assert imported_by("import kmm.contract") == {"kmm"}


def test_the_api_imports_what_it_reads_and_judges_with_and_nothing_else():
    found = imported_by("import kmm.api.kinds, kmm.api.manifest, kmm.api.crd")
    ours = {name for name in found if not name.startswith(("_", "cython"))}  # what compiled packages bring along
    assert ours <= {"kmm", "marshmallow", "re2", "yaml"}


@pytest.mark.parametrize("heavy", ["typer", "rich", "jsonschema", "kubernetes", "hypothesis", "pytest"])
def test_what_the_operator_will_run_with_imports_no_command_line(heavy):
    assert heavy not in imported_by("import kmm.admission, kmm.loader, kmm.config; kmm.loader.load_catalog()")


@pytest.mark.parametrize("heavy", ["typer", "rich", "jsonschema", "aiohttp", "pytest"])
def test_what_the_operator_runs_as_imports_no_command_line(heavy):
    assert heavy not in imported_by("import kmm.runtime.process")


def test_the_operator_signs_nothing_itself():
    imports = "import sys, kmm.cli.run, kmm.runtime.__main__"
    script = f"{imports}; print(*(name for name in sys.modules if name.startswith('kmm.signing')))"
    run = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def named(path):
    """Yield the modules that a file imports, or imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


@pytest.mark.parametrize("path", sorted(EXAMPLE.rglob("*.py")), ids=lambda path: path.name)
def test_the_example_for_vendors_imports_what_is_made_for_them(path):
    found = {name for name in named(path) if name.partition(".")[0] == "kmm"}
    assert found <= ({"kmm.contract", "kmm.conformance"} if path.parent.name == "tests" else {"kmm.contract"})
