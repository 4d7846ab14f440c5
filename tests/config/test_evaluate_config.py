from pathlib import Path

import pytest

from raydistill.config.evaluate import Evaluate
from raydistill.config.load import load_job
from raydistill.errors import InputError

CONFIG = Path("configs/evaluate.yaml")


def test_what_is_generated():
    assert load_job(Evaluate, CONFIG).generates
    assert not load_job(Evaluate, CONFIG, ["evaluation={samples: 0, greedy: false, options: {}}"]).generates


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("evaluation={samples: 0, greedy: false}", ["evaluation: measures nothing", "evaluation.greedy=true"]),
        ("evaluation.teacher_samples=2", ["teacher_samples", "did you mean 'samples'"]),
        ("max_new_tokens=128", ["max_new_tokens", "rollout.max_model_len"]),
        ("track.uri=sqlite:///x.db", ["track.uri", "MLflow"]),
    ],
)
def test_refused(override, names):
    with pytest.raises(InputError) as caught:
        load_job(Evaluate, CONFIG, [override])
    assert all(name in str(caught.value) for name in names), str(caught.value)
