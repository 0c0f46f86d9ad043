"""The report, in a browser: reviewing by keyboard, and markup that must stay text."""

import shutil
import subprocess
import time

import numpy as np
import pytest

from sknoisy._review.report import page
from sknoisy.inspection import apply_corrections, find_label_issues

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")


def first_that_starts(*names):
    """Return the path of the first program that tells its version; a broken one lacks libraries."""
    for path in filter(None, map(shutil.which, names)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


BROWSER = first_that_starts("chromium", "chromium-browser", "google-chrome")
DRIVER = first_that_starts("chromedriver")

pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="needs Chromium and chromedriver that start"
)

EVIL = '<img src=x onerror="window.hacked=1">'
CLOSING = "</script><script>window.hacked=2</script>"
CLASSES = ["cat", EVIL, 'a "quoted", name']


def issues_of_texts(n=90):
    """Return texts, labels and issues; the labels of ten rows are wrong."""
    random = np.random.RandomState(0)
    true = np.arange(n) % 3
    observed = true.copy()
    observed[:10] = (observed[:10] + 1) % 3
    proba = np.full((n, 3), 0.02)
    proba[np.arange(n), true] = 0.96
    proba += 0.01 * random.uniform(size=proba.shape)
    proba /= proba.sum(axis=1, keepdims=True)
    texts = [f"text {i} {CLOSING if i % 2 else EVIL} {{{{data}}}} \u2028" for i in range(n)]
    y = np.array(CLASSES)[observed]
    issues = find_label_issues(None, texts, y, pred_proba=proba, classes=CLASSES)
    assert issues.count >= 8
    return texts, y, np.array(CLASSES)[true], issues


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def review():
    return issues_of_texts()


@pytest.fixture
def report(browser, review, tmp_path):
    path = tmp_path / "report.html"
    review[3].to_html(path, title=f"Report {EVIL}")
    browser.get(path.as_uri())
    return browser


def press(browser, keys):
    browser.find_element("css selector", "body").send_keys(keys)


def saved(browser, downloads):
    """Press the button and return the file that the browser saves."""
    for old in downloads.iterdir():
        old.unlink()
    browser.find_element("id", "save").click()
    for _ in range(100):
        files = list(downloads.glob("*.csv"))
        if files:
            return files[0]
        time.sleep(0.1)
    raise AssertionError("nothing was saved")


def test_reviewed_by_keyboard_the_labels_become_right(report, review, downloads):
    _, y, true, issues = review
    assert not report.find_element("id", "save").is_enabled()
    press(report, "a" * 4 + "k")
    assert report.find_element("id", "progress").text == f"5 of {issues.count} decided"
    path = saved(report, downloads)
    corrected, looked_at = apply_corrections(y, path, return_reviewed=True)
    rows = issues.indices[:5]
    assert set(np.flatnonzero(looked_at)) == set(rows)
    np.testing.assert_array_equal(corrected[rows[:4]], true[rows[:4]])
    assert corrected[rows[4]] == y[rows[4]]
    others = np.setdiff1d(np.arange(len(y)), rows)
    np.testing.assert_array_equal(corrected[others], y[others])


def test_decisions_are_taken_back_and_changed(report, review, downloads):
    _, y, _, issues = review
    press(report, "apkpu")  # accepted, back, kept instead, back, undone
    assert report.find_element("id", "progress").text.startswith("0 of")
    press(report, "ja")  # the second row
    corrected = apply_corrections(y, saved(report, downloads))
    assert corrected[issues.indices[1]] == issues.suggested_labels[1]
    assert corrected[issues.indices[0]] == y[issues.indices[0]]


def test_rows_are_decided_by_touch(report, review, downloads):
    _, y, _, issues = review
    third = report.find_elements("css selector", "article")[2]
    third.find_element("css selector", "button.accept").click()
    corrected = apply_corrections(y, saved(report, downloads))
    assert corrected[issues.indices[2]] == issues.suggested_labels[2]
    assert (corrected != y).sum() == 1


def test_the_filter_shows_one_pair_of_labels_and_keys_stay_within(report, review):
    issues = review[3]
    pair = report.find_element("id", "pair")
    choice = pair.find_elements("css selector", "option")[1]
    choice.click()
    shown = [a.is_displayed() for a in report.find_elements("css selector", "article")]
    pairs = list(zip(issues.observed_labels, issues.suggested_labels, strict=True))
    n_shown = pairs.count(pairs[shown.index(True)])
    assert 0 < sum(shown) == n_shown < issues.count
    press(report, "a" * (n_shown + 3))
    decided = report.find_elements("css selector", "article.accept")
    assert len(decided) == n_shown and all(a.is_displayed() for a in decided)


def test_markup_in_labels_and_texts_is_shown_and_never_run(report, review):
    texts, _, _, issues = review
    assert report.execute_script("return window.hacked") is None
    assert report.find_elements("css selector", "main img") == []
    shown = report.find_element("css selector", "article .content p").text
    assert shown.startswith(texts[issues.indices[0]].split(" {")[0])
    assert EVIL in report.find_element("css selector", "body").text
    assert EVIL in report.title
    assert [e for e in report.get_log("browser") if e["level"] == "SEVERE"] == []


def test_the_file_is_complete_and_loads_nothing(report, review):
    loaded = report.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert loaded == []


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_screen(report, width):
    report.set_window_size(width, 900)
    overflow = report.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0


def test_pictures_are_decoded(browser, review, tmp_path):
    _, y, _, _ = review
    pictures = np.random.RandomState(0).randint(256, size=(len(y), 5, 7, 3), dtype=np.uint8)
    issues = review[3]
    issues.to_html(tmp_path / "report.html", X=pictures)
    browser.get((tmp_path / "report.html").as_uri())
    script = """
const picture = document.querySelector("article img"), canvas = document.createElement("canvas");
canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
const context = canvas.getContext("2d"); context.drawImage(picture, 0, 0);
return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
"""
    data = np.array(browser.execute_script(script)).reshape(5, 7, 4)
    np.testing.assert_array_equal(data[:, :, :3], pictures[issues.indices[0]])


def test_no_more_rows_than_wanted(review):
    _, _, _, issues = review
    assert page(issues, issues.contents, title="", max_rows=3).count('"suggestedProba"') == 3
