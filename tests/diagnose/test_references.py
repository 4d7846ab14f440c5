from raydistill.diagnose.findings import not_measured
from raydistill.diagnose.references import against


def test_a_student_without_a_reference_of_its_own_is_set_beside_the_teacher():
    one = {"value": 0.2, "unit": "share", "ci95": None, "n": 3, "reference": None}
    found = {"a": one, "b": one | {"reference": 0.0}, "deeper": {"a": one}, "not measured here": one, "bins": [1], "samples": 3}
    teacher = {"a": one | {"value": 0.5}, "b": one | {"value": 0.5}, "deeper": {"a": one | {"value": 0.7}}, "bins": [2], "samples": 4}
    set_beside = against(found, teacher | {"not measured here": not_measured("why")})
    assert [set_beside[name]["reference"] for name in ("a", "b", "not measured here")] == [0.5, 0.0, None]
    assert set_beside["deeper"]["a"] == one | {"reference": 0.7}
    assert (set_beside["bins"], set_beside["samples"]) == ([1], 3)
    assert against(not_measured("why"), teacher) == not_measured("why")
