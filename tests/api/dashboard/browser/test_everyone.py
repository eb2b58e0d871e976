"""Every view for everyone: no violation that axe knows, light and dark, at a desk and on a phone."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.api.dashboard.browser.conftest import NewContext, Site, alive
from tests.support import lab_runs
from tests.support.many_trials import study_of
from xsam.api.dashboard.views.job import TABS
from xsam.api.dashboard.views.study import TABS as STUDY_TABS
from xsam.services.teams.roles import Actor

pytestmark = pytest.mark.browser

LOOKS = [("desk light", 1280, "light"), ("phone dark", 360, "dark")]
"""Both widths and both themes: what is wrong with a width shows in either theme, and the other way."""
VIEWS = (
    "/home",
    "/jobs",
    "/jobs?name=none",
    *(f"/jobs/{{job}}?tab={tab}" for tab in TABS),
    "/jobs/compare?id={job}&id={other}",
    "/jobs/new",
    "/studies",
    "/studies/new",
    *(f"/studies/{{study}}?tab={tab}" for tab in STUDY_TABS),
    "/studies/{study}?phase=confirm",
    "/queue",
    "/lab",
    "/lab/{run}",
    "/cluster",
    "/usage?unit=cpu",
    "/admin/teams",
    "/admin/teams/default",
    "/admin/tokens",
    "/admin/users",
    "/admin/audit",
    "/device?code=WDJB-MJHT",
    "/nowhere",
)
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def jobs(site: Site) -> dict[str, str]:
    """A job that runs, with everything that can be seen of one, and one that failed."""
    alive(site.database)
    job = site.submit("all-of-it", labels={"exp": "noise"}, optimizer={"variant": "xsam", "rho": 0.1})
    lease = site.runner.claim(job)
    site.runner.report(lease, *range(1, 8))
    site.runner.write_log(lease, "hello\n\x1b[31mError: red\x1b[0m\n" * 20)
    other = site.submit("broken", optimizer={"variant": "sam", "rho": 0.05})
    site.runner.fail(site.runner.claim(other), "CUDA out of memory: tried to allocate 2.00 GiB")
    site.submit("waiting")
    study = study_of(site.database, 40, actor=Actor("root", "default"), has_ended=True)
    run = lab_runs.concluded(site.database, Actor("ann", "default"))
    return {"job": job, "other": other, "study": study, "run": run}


@pytest.fixture(params=LOOKS, ids=lambda look: look[0])
def looking(request: pytest.FixtureRequest, site: Site, new_context: NewContext) -> Page:
    _, width, scheme = request.param
    alive(site.database)
    return new_context(site.url, viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()


def test_views__are_for_everyone(looking: Page, jobs: dict[str, str], complaints: object) -> None:
    complaints.allowed = ("404",)  # type: ignore[attr-defined]
    axe, wrong = Axe(), []
    width = looking.viewport_size["width"]  # type: ignore[index]
    for view in VIEWS:
        looking.goto(view.format(**jobs))
        expect(looking.locator("main")).to_be_visible()
        looking.wait_for_timeout(300)  # for charts, which come with a request of their own
        found = axe.run(looking, options=_RULES)
        wrong += [f"{view}: {one['id']} {one['nodes'][0]['html'][:160]}" for one in found.response["violations"]]
        if (wide := looking.evaluate("document.documentElement.scrollWidth")) > width:
            wrong.append(f"{view}: {wide} px wide")
    assert not wrong, "\n".join(wrong)


def test_zoom__of_200_percent_needs_no_sideways_scrolling(
    site: Site, new_context: NewContext, jobs: dict[str, str]
) -> None:
    # A zoom of 200 % is a window of half the size, for the layout.
    tab = new_context(site.url, viewport={"width": 640, "height": 400}, device_scale_factor=2).new_page()
    for view in ("/home", "/jobs", "/jobs/{job}", "/cluster"):
        tab.goto(view.format(**jobs))
        assert tab.evaluate("document.documentElement.scrollWidth") <= 640, view


def test_reduced_motion__stops_the_flash(site: Site, new_context: NewContext) -> None:
    tab = new_context(site.url, reduced_motion="reduce").new_page()
    tab.goto("/jobs")
    script = "document.querySelector('main').className = 'flash'"
    tab.evaluate(script)
    assert tab.evaluate("getComputedStyle(document.querySelector('main')).animationName") == "none"


def test_theme__is_chosen_once_and_kept(site: Site, new_context: NewContext) -> None:
    tab = new_context(site.url, color_scheme="light").new_page()
    tab.goto("/jobs")
    light = tab.evaluate("getComputedStyle(document.body.parentElement).backgroundColor")
    tab.locator(".who summary").click()
    tab.get_by_label("Theme").select_option("dark")
    dark = tab.evaluate("getComputedStyle(document.body.parentElement).backgroundColor")
    assert dark != light
    tab.goto("/queue")
    assert tab.evaluate("getComputedStyle(document.body.parentElement).backgroundColor") == dark
