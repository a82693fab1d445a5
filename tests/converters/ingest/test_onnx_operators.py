"""The table of operators: each is tried alone, and the page in the docs lists it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from boardfit.converters.ingest.onnx_operators import HANDLERS

FUSED = {"Silu"}
"""Made by fusing, and tried as patterns."""


def cases_of(name):
    """Load the test file of some operators."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def operators_tried():
    """The operators of all single-operator cases."""
    plain, *others = map(cases_of, ("test_onnx_ops", "test_onnx_more_ops", "test_onnx_moves"))
    tried = {node.op_type for each in others for nodes, _, _ in each.CASES.values() for node in nodes}
    tried |= {case[1] for case in plain.ONE}
    return tried | {node.op_type for case in plain.SEVERAL for node in case[1]} | FUSED | {"Gemm", "Flatten"}


def test_every_operator_of_the_table_is_tried():
    assert set(HANDLERS) - operators_tried() == set()


def test_the_page_of_operators_is_the_table():
    page = (Path(__file__).parents[3] / "docs" / "operators.md").read_text(encoding="utf-8")
    named = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")][1:]
    assert named == sorted(HANDLERS)
