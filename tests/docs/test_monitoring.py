"""The alert rules and the dashboard name metrics and labels that there are."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.pages import DOCS, codes, table

FILES = ["sked-alerts.yml", "sked-dashboard.json"]
METRICS = {
    codes(row["metric"])[0]: set(row["labels"].replace(" ", "").split(","))
    for row in table("howto/monitor.md", "Metrics")
}
#: Those that are asked for at a scrape.
WHOLE = {"sked_backlog_messages", "sked_oldest_due_seconds", "sked_workers", "sked_queue_workers", "sked_backend_up"}


@pytest.mark.parametrize("name", FILES)
def test_every_metric_is_one_of_ours_with_its_labels(name: str) -> None:
    text = (DOCS / "monitoring" / name).read_text(encoding="utf-8").replace('\\"', '"')

    used = re.findall(r"\b(sked_[a-z_]+)(?:\{([^}]*)\})?", text)

    assert len(used) > 5
    for metric, selector in used:
        known = METRICS[metric.removesuffix("_bucket")]
        assert set(re.findall(r"(\w+)=~?\"", selector)) <= known, metric


def test_every_alert_is_explained() -> None:
    text = (DOCS / "monitoring" / "sked-alerts.yml").read_text(encoding="utf-8")
    written = [codes(row["alert"])[0] for row in table("howto/monitor.md", "When an alert fires")]

    assert written == re.findall(r"- alert: (\w+)", text)


def test_an_alert_of_a_number_that_may_not_be_there_says_so_and_the_dead_are_counted_in_the_store() -> None:
    text = (DOCS / "monitoring" / "sked-alerts.yml").read_text(encoding="utf-8")
    rules = dict(re.findall(r"alert: (\w+)\n\s+expr: (.+)", text))

    # A number from a process that has just begun has no increase, and where no process runs there is none at all.
    assert rules["SkedNoWorker"] == "max by (backend) (sked_workers) == 0 or absent(sked_workers)"
    assert rules["SkedDead"] == 'max by (backend, queue) (sked_backlog_messages{state="dead"}) > 0'


@pytest.mark.parametrize("name", FILES)
def test_a_number_that_each_process_exports_whole_is_not_added_up(name: str) -> None:
    """What is asked for at a scrape is the same in all processes that are scraped."""
    text = (DOCS / "monitoring" / name).read_text(encoding="utf-8")
    used = re.findall(rf"([\w(), ]*)\b(?:{'|'.join(WHOLE)})\b", text)

    assert len(used) > 5
    for before in used:
        assert re.search(r"\b((max|min) by \([\w, ]+\) \(|(min|absent|label_values)\()$", before), before


def test_the_ranges_of_ports_of_the_page_do_not_overlap() -> None:
    text = (DOCS / "howto" / "monitor.md").read_text(encoding="utf-8")

    served = [(int(port), int(count)) for port, count in re.findall(r"serve\((\d+), ports=(\d+)\)", text)]
    ports = [port + number for port, count in served for number in range(count)]

    assert len(served) == 2
    assert len(ports) == len(set(ports))


def test_the_dashboard_is_json_with_panels_that_do_not_overlap() -> None:
    dashboard = json.loads((DOCS / "monitoring" / "sked-dashboard.json").read_text(encoding="utf-8"))

    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
