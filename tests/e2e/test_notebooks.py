"""The notebooks: what is kept in them was made in order and is small, and the first runs in reduced form. test_sweep.py has the second."""

from pathlib import Path

import nbformat
import pytest

from tests.e2e.conftest import TINY, executed

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))


def test_the_knob_in_reduced_form(tmp_path):
    fields = [*TINY, "students.methods=[{method: seqkd, samples: 64, steps: 6}]"]
    shown = executed("01_the_knob", {"FIELDS": fields, "ETAS": [1], "OUT": str(tmp_path / "knob")})
    assert "image/svg+xml" in shown
    assert "greedy ratio" in shown
    assert "eta +1: " in shown
    assert " of 40)" in shown
    assert (tmp_path / "knob" / "report.html").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_that_are_kept_are_whole_and_small(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it from the top and keep what it shows"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert {"image/svg+xml", "image/png"} & {kind for output in outputs for kind in output.get("data", {})}, "no picture"
    assert path.stat().st_size < 200_000
    assert "/home/" not in path.read_text()
