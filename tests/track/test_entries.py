"""Flat names for MLflow, and secrets that never reach it."""

from __future__ import annotations

import math
import re
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raydistill.report.card import report_card
from raydistill.track.entries import mean_over_seeds, report_metrics, run_params, step_metrics, student_entries
from raydistill.track.secrets import masked_text, masked_uri, public_yaml
from tests.report.synthetic_facts import run_config, some_facts, with_target

secrets = st.text("abcdefXYZ0123456789@:/#?&%!$ ", min_size=6, max_size=20).filter(lambda text: text.strip("/@: "))


@given(secrets, st.sampled_from(["http", "https", "postgresql", "mysql+pymysql"]))
def test_a_password_is_masked_even_if_it_was_not_escaped(password: str, scheme: str) -> None:
    for written in (password, quote(password, safe="")):
        uri = f"{scheme}://user:{written}@host.example:5000/path"
        assert masked_uri(uri) == f"{scheme}://user:***@host.example:5000/path"


def test_a_token_without_a_password_and_secrets_in_the_query_are_masked() -> None:
    assert masked_uri("https://t0ken@host") == "https://***@host"
    assert masked_uri("postgresql://host/db?user=me&password=abc&sslkey=/k") == "postgresql://host/db?user=me&password=***&sslkey=***"


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "sqlite:////data/@home/mlflow.db", "http://127.0.0.1:5000", "databricks"])
def test_other_uris_stay_as_they_are(uri: str) -> None:
    assert masked_uri(uri) == uri


def test_an_error_message_is_one_line_without_the_secret_in_any_form() -> None:
    uri = "http://me:p%40ss-word@host:1/?token=tok3n-value"
    shown = masked_text(f"request to {uri} failed\n for p@ss-word and p%40ss-word, tok3n-value", uri)
    assert shown == f"request to {masked_uri(uri)} failed for *** and ***, ***"


def test_params_are_the_dotted_config_without_secrets() -> None:
    run = run_config(-0.5, (3, 4), track={"uri": "http://me:s3cret@host"})
    params = run_params(run)
    assert params["knob.eta"] == "-0.5"
    assert params["seeds"] == "[3, 4]"
    assert params["students.methods.0.samples"] == "2048"
    assert params["learner.lora"] == "None"
    assert params["track.uri"] == "http://me:***@host"
    assert "s3cret" not in public_yaml(run)
    assert yaml.safe_load(public_yaml(run))["track"]["uri"] == "http://me:***@host"


def test_eta_is_a_number_unless_a_target_moves_it() -> None:
    report = report_card(some_facts(-0.5, (1,)))
    assert report_metrics(report)["eta"] == -0.5
    assert {entry.metrics["eta"] for entry in student_entries(report)} == {-0.5}
    moved = report_card(with_target(some_facts(0.0)))
    assert "eta" not in report_metrics(moved)
    assert all("eta" not in entry.metrics for entry in student_entries(moved))


def test_steps_are_flat_numbers() -> None:
    line = {"step": 3, "task_reward": 0.5, "cal_reward": None, "seconds": {"rollout": 0.1}, "note": "text"}
    assert step_metrics(line) == {"task_reward": 0.5, "seconds/rollout": 0.1}


def test_a_step_towards_a_target_and_how_it_ended() -> None:
    look = {"ratio": 0.5, "shadow": 0.2, "twin": 0.4}
    assert step_metrics({"step": 4, "eta": -0.5, "target": look}) == {
        "eta": -0.5,
        "target.ratio": 0.5,
        "target.shadow": 0.2,
        "target.twin": 0.4,
    }
    assert step_metrics({"step": 5, "eta": -0.4, "target": None}) == {"eta": -0.4}
    metrics = report_metrics(report_card(with_target(some_facts(0.0))))
    assert metrics["target/reached"] == pytest.approx(0.51)
    assert metrics["target/met"] == 0


def test_shadows_are_their_mean_and_where_there_are_several_each() -> None:
    line = {"step": 0, "shadows": {"late": 1, "accuracy": [0.2, None, 0.4], "twin": [0.1, None, 0.2]}}
    assert step_metrics(line) == pytest.approx(
        {
            "shadows/late": 1,
            "shadow.accuracy": 0.3,
            "shadow.accuracy.0": 0.2,
            "shadow.accuracy.2": 0.4,
            "shadow.twin": 0.15,
            "shadow.twin.0": 0.1,
            "shadow.twin.2": 0.2,
        }
    )
    assert step_metrics({"step": 0, "shadows": {"late": 0, "accuracy": [0.5], "twin": [0.25]}}) == {
        "shadows/late": 0,
        "shadow.accuracy": 0.5,
        "shadow.twin": 0.25,
    }
    assert step_metrics({"step": 1, "shadows": {"late": 0, "accuracy": None, "twin": None}}) == {"shadows/late": 0}


def test_the_mean_over_seeds_is_of_those_that_got_there() -> None:
    lines = [{"step": 0, "a": 1.0}, {"step": 1, "a": 2.0}, {"step": 0, "a": 3.0, "b": 5.0}]
    assert list(mean_over_seeds(lines)) == [(0, {"a": 2.0, "b": 5.0}), (1, {"a": 2.0})]


def test_report_metrics_are_finite_and_have_names_that_mlflow_takes() -> None:
    report = report_card(some_facts(1.0))
    metrics = report_metrics(report)
    assert all(math.isfinite(value) and re.fullmatch(r"[\w./ :-]+", name) for name, value in metrics.items())
    assert metrics["students/seqkd/calibrated/greedy"] == report["students"][0]["calibrated"]["greedy"]["mean"]
    assert metrics["teacher/difference/sampled"] == report["teacher"]["difference"]["sampled"]["mean"]
    assert metrics["seconds/total"] == 512.3
    assert not any(name.endswith("/n") for name in metrics)


def test_an_odd_style_becomes_a_name_that_mlflow_takes() -> None:
    report = report_card(some_facts(1.0))
    report["teacher"]["style"]["original"] = {"what? <b>": 1.0}
    assert report_metrics(report)["teacher/style/original/what_ _b_"] == 1.0


def test_a_student_entry_for_every_method_seed_and_teacher() -> None:
    report = report_card(some_facts(1.0, (1, 2)))
    report["students"][0]["per_seed"][0]["control"] = 0.0
    entries = {entry.name: entry for entry in student_entries(report)}
    assert len(entries) == 8
    assert "ratio" not in entries["seqkd-1"].metrics
    assert "ratio" in entries["seqkd-2"].metrics
    assert "ratio" not in entries["control-seqkd-2"].metrics


def test_traps_and_symptoms_are_metrics_by_student_and_teacher() -> None:
    figure = {"value": 0.4, "unit": "nats a byte", "ci95": [0.3, 0.5], "n": 3, "reference": 0.0}
    missing = [{"not measured": "why"}, figure | {"value": None, "ci95": None}]
    pair = {
        "student": "base",
        "original": {"gap": figure},
        "calibrated": {"gap": figure | {"value": 0.9}, "a": missing[0], "b": missing[1]},
    }
    metrics = report_metrics(report_card(some_facts(1.0)) | {"diagnosis": {"prompts": 9, "pairs": [pair]}})
    found = {name: value for name, value in metrics.items() if name.startswith("diagnosis")}
    assert found == {"diagnosis/base/original/gap": 0.4, "diagnosis/base/calibrated/gap": 0.9}
