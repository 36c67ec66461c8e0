"""`@equation(paper, *numbers)`: what a test covers, for the test that compares it with what the code cites."""

from __future__ import annotations

import ast
from pathlib import Path


def equation(paper: str, *numbers: str):
    """Declares what a test covers: "7", "supplement 3", "Algorithm 1". Read from the source, never run for it."""
    assert paper
    assert numbers
    return lambda test: test


def covered() -> set[tuple[str, str]]:
    """`(paper, number)` of every test in this folder."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "equation":
                    paper, *numbers = (ast.literal_eval(argument) for argument in mark.args)
                    found |= {(paper, number) for number in numbers}
    return found
