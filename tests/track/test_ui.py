"""What a person sees of a sweep in MLflow's own pages: a real server, a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from raydistill.track.sweep_card import sweep_card
from tests.track.small_sweep import SmallSweep

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

PATIENCE = 60.0
"""Seconds for a page to show what is waited for."""
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1200",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # what the pages would load from elsewhere is not needed
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """Where there is none, the test is skipped, but not in CI, which installs one."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        why = f"{' and '.join(missing)} not on PATH (Debian: apt-get install chromium chromium-driver)"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


@dataclass(frozen=True)
class Pages:
    """MLflow's pages on one sweep."""

    browser: WebDriver
    server: str
    experiment: str
    sweep: str
    """The sweep's run."""

    def runs(self, query: str = "") -> None:
        self.open(f"experiments/{self.experiment}/runs{query}")

    def open(self, path: str) -> None:
        self.browser.get("about:blank")  # else a page whose address differs after the # alone is not loaded anew
        self.browser.get(f"{self.server}/#/{path}")

    def await_rows(self, *names: str) -> None:
        """Until the list of runs has just these, from top to bottom."""
        self._await(lambda: self._rows() == list(names), lambda: f"{names} but {self._rows()}")

    def unfold(self, name: str) -> None:
        """Show what is nested in a run."""
        self.await_one(f"//*[@role='row'][.//a[normalize-space()='{name}']]//button").click()

    def await_texts(self, *texts: str) -> None:
        for text in texts:
            self.await_one(f"//text()[normalize-space()='{text}']/..")

    def await_one(self, xpath: str) -> WebElement:
        """Until one of these is to be seen."""
        from selenium.webdriver.common.by import By

        def seen() -> list[WebElement]:
            return [one for one in self.browser.find_elements(By.XPATH, xpath) if one.is_displayed()]

        self._await(lambda: bool(seen()), lambda: xpath)
        return seen()[0]

    def _rows(self) -> list[str]:
        found: list[str] = self.browser.execute_script(
            "return [...document.querySelectorAll('[role=row][row-index]')].filter(row => row.querySelector('a'))"
            ".sort((a, b) => a.getAttribute('row-index') - b.getAttribute('row-index')).map(row => row.querySelector('a').innerText)"
        )
        return found

    def _await(self, condition: Callable[[], bool], what: Callable[[], str]) -> None:
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        try:
            WebDriverWait(self.browser, PATIENCE, ignored_exceptions=[StaleElementReferenceException]).until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"{self.browser.current_url} does not show {what()}")


@pytest.fixture(scope="module")
def pages(browser: WebDriver, server: str, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    from mlflow.tracking import MlflowClient

    sweep = SmallSweep(server, tmp_path_factory.mktemp("sweep"), "seen", etas=(-1.0, 1.0), seeds=(1,), experiment="ui")
    record, run_id = sweep.start()
    assert run_id is not None
    for trial in sweep.trials:
        trial.record(run_id)
    record.log(sweep.result, sweep.files())
    best = sweep.result["trials"][-1]
    record.register(best, "seen", sweep_card(best, "seen"))
    record.end("FINISHED")
    experiment = MlflowClient(tracking_uri=server).get_run(run_id).info.experiment_id
    return Pages(browser, server, experiment, run_id)


def test_the_list_of_runs_unfolds_from_the_sweep_to_its_students(pages: Pages) -> None:
    pages.runs()
    pages.await_rows("seen")
    pages.unfold("seen")
    pages.await_rows("seen", "seen-eta+1", "seen-eta-1")
    pages.unfold("seen-eta+1")
    students = [f"{control}{method}-1 eta+1" for method in ("gkd", "seqkd") for control in ("control-", "")]
    pages.await_rows("seen", "seen-eta+1", *students, "seen-eta-1")


def test_the_search_for_students_in_order_of_eta_draws_their_charts(pages: Pages) -> None:
    """As docs/mlflow.md has it."""
    calibrated = "params.method = 'seqkd' and params.teacher = 'calibrated'"
    terms = quote(f"tags.`raydistill.sweep` = '{pages.sweep}' and tags.`raydistill.kind` = 'student' and {calibrated}")
    pages.runs(f"?searchFilter={terms}&orderByKey={quote('metrics.`eta`')}&orderByAsc=true&compareRunsMode=CHART")
    pages.await_rows("seqkd-1 eta-1", "seqkd-1 eta+1")
    pages.await_texts("sampled", "greedy", "ratio")


def test_the_sweeps_page_has_its_curves(pages: Pages) -> None:
    pages.open(f"experiments/{pages.experiment}/runs/{pages.sweep}/model-metrics")
    pages.await_texts("seqkd student", "seqkd ratio", "kl")
    pages.await_one("//*[contains(@class, 'js-line')]")  # and not bars


def test_the_registered_model_has_its_card(pages: Pages) -> None:
    pages.open("models/seen/versions/1")
    pages.await_texts("Teacher of seen at eta +1", "Limits", "seen-eta+1")
    pages.open("models/seen")
    pages.await_texts("Version 1", "raydistill.eta")
