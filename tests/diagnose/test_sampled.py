from dataclasses import replace

from tests.diagnose.samples import completion, sampled


def test_what_has_a_special_token_inside_is_left_out_of_the_clean_ones():
    both = sampled([[("#1", True)], [("#2", True), ("#3", False)]])
    odd = (completion("#2", [2], [-0.1], special=True), both.completions_BG[1][1])
    found = replace(both, completions_BG=(both.completions_BG[0], odd))
    assert [(place, one.text, right) for place, one, right in found.clean()] == [(0, "#1", True), (1, "#3", False)]
    assert [one.text for _, one, _ in found.rows()] == ["#1", "#2", "#3"]
