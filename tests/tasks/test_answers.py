import pytest

from raydistill.tasks.answers import answer_span


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        ("arithmetic", "7+5=2;2-9=3;#3", "3"),
        ("maths", "naïve: 5 # 6\n#### 42 \nbye", "42"),
        ("maths", r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        ("maths", "about 1,200.5 in all.", "1,200.5"),
        ("maths", "so it is 12, as said", "12"),
        ("maths", "in all -1,234,567, or so,", "-1,234,567"),
        ("arithmetic", "7+5=2;2-9=3;#", "3"),
        ("maths", r"\boxed{}", None),
        ("maths", r"\boxed{unclosed", None),
        ("maths", "no answer", None),
        ("choice", "naïve: A is 1, so the answer is (C).", "C"),
        ("choice", "A dog.", None),
    ],
)
def test_where_the_answer_is(task, text, answer):
    span = answer_span(task, text)
    assert (span and text.encode()[slice(*span)].decode()) == answer
