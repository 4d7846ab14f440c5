from pathlib import Path

import pytest

from raydistill.config.diagnose import Diagnose
from raydistill.config.load import load_job
from raydistill.errors import InputError

CONFIG = Path("configs/diagnose.yaml")


def test_prompts_are_those_of_tune_also_where_fewer_are_asked_for():
    assert load_job(Diagnose, CONFIG, ["evaluation.prompts=5"]).evaluation.split == "tune"


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("max_new_tokens=128", ["max_new_tokens", "rollout.max_model_len"]),
        ("wrong_pairs=0", ["wrong_pairs", "greater than or equal to 1"]),
    ],
)
def test_refused(override, names):
    with pytest.raises(InputError) as caught:
        load_job(Diagnose, CONFIG, [override])
    assert all(name in str(caught.value) for name in names)
