import zlib

import pytest

from raydistill.diagnose.degradation import compression_ratio, distinct_share, is_invalid_utf8, repeated_share, words


def test_words_are_runs_and_signs():
    assert words("7+5=12; so #12") == ["7", "+", "5", "=", "12", ";", "so", "#", "12"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a b c d e", 0.0), ("a b", 0.0), ("", 0.0), ("a a a a a a", 1 - 1 / 3), ("a b c d a b c d", 1 - 4 / 5)],
)
def test_repeated_share(text, expected):
    assert repeated_share(text) == pytest.approx(expected)


def test_distinct_share_is_over_all_completions():
    assert distinct_share(["a b c", "a b d"]) == pytest.approx(3 / 4)
    assert distinct_share(["a"]) is None


def test_n_grams_do_not_run_from_one_completion_into_the_next():
    assert distinct_share(["a b", "c d"]) == 1.0


def test_compression_ratio():
    assert compression_ratio(["ab" * 500]) == pytest.approx(1000 / len(zlib.compress(b"ab" * 500, 9)))
    assert compression_ratio(["the same line"] * 50) > 10 > compression_ratio(["the same line"])
    assert compression_ratio([]) is None


def test_invalid_utf8_is_what_decoding_writes():
    assert is_invalid_utf8(b"caf\xc3".decode(errors="replace"))
    assert not is_invalid_utf8("café 日本")


@pytest.mark.parametrize("character", ["é", "日", "😀"])
def test_a_character_that_was_cut_is_truncated_and_no_invalid_utf8(character):
    for kept in range(1, len(character.encode())):
        text = (b"so " + character.encode()[:kept]).decode(errors="replace")
        assert is_invalid_utf8(text)
        assert not is_invalid_utf8(text, truncated=True)
        assert not is_invalid_utf8("so " + kept * "\ufffd", truncated=True)  # a sign for each byte
        assert is_invalid_utf8("\ufffd" + text, truncated=True)
    assert is_invalid_utf8(4 * "\ufffd", truncated=True)
