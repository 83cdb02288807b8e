"""What holds for all tests."""

import pytest
from hypothesis import HealthCheck, settings

# A busy machine may take its time over an example, or over inventing it: neither is a failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

TOLD_LINES = 40


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What failed first, once more after all the rest: others may have fallen over it, and logs are cut."""
    stats = terminalreporter.stats
    failed = [report for kind in ("failed", "error") for report in stats.get(kind, ())]
    if failed:
        first = min(failed, key=lambda report: getattr(report, "start", 0.0))  # no start: not even collected
        crash = getattr(first.longrepr, "reprcrash", None)
        told = crash.message if crash is not None else first.longreprtext
        terminalreporter.section(f"the first that failed, at {first.when}: {first.nodeid}")
        for line in told.splitlines()[:TOLD_LINES]:
            terminalreporter.write_line(line[:200])
