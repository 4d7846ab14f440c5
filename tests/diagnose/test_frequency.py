from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from raydistill.diagnose.frequency import CLASSES, COMMON, frequencies


def test_common_are_the_fewest_that_make_up_nine_tenths():
    found = frequencies([[1] * 60 + [2] * 25, [3] * 10 + [4] * 5, [99]], 6)
    assert [found.name(token) for token in range(6)] == ["never", "common", "common", "common", "rare", "never"]
    assert found.count_V.tolist() == [0, 60, 25, 10, 5, 0]
    assert found.sizes() == {"never": (2, 0.0), "rare": (1, 0.05), "common": (3, 0.95)}


@given(st.lists(st.lists(st.integers(0, 19), max_size=12), max_size=8))
def test_classes_are_those_of_a_loop(completions):
    found, counted = frequencies(completions, 20), Counter(token for row in completions for token in row)
    common, held = set(), 0
    for token, count in sorted(counted.items(), key=lambda one: (-one[1], one[0])):
        if held < COMMON * counted.total():
            common.add(token)
        held += count
    for token in range(20):
        assert found.count_V[token] == counted[token]
        assert found.name(token) == ("common" if token in common else "rare" if counted[token] else "never")
    assert sum(size for size, _ in found.sizes().values()) == 20
    assert list(found.sizes()) == list(CLASSES)
