"""The alert rules for Prometheus ask for metrics that there are, and Prometheus itself can read them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import promtool

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "systemd" / "prometheus" / "batchd.rules.yml"


def test_prometheus_understands_the_rules() -> None:
    """As promtool, which comes with it, says."""
    assert promtool.complaints("rules", "--lint=all", "--lint-fatal", str(RULES)) == ""


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    """Severity, a summary and a description in each."""
    alerts = RULES.read_text().split("- alert: ")[1:]
    assert len(alerts) > 8
    for alert in alerts:
        for word in ("expr:", "severity:", "summary:", "description:"):
            assert word in alert, alert


def test_each_metric_of_the_rules_is_one_that_is_exposed() -> None:
    """A rule over a metric that nobody writes never fires, and nobody notices."""
    asked = set(re.findall(r"\bbatchd_([a-z_]+)", RULES.read_text()))
    exposed = (ROOT / "batchd/web/measures.py").read_text()
    assert len(asked) > 8
    assert [name for name in sorted(asked) if f'"{name}"' not in exposed] == []
