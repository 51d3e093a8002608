from __future__ import annotations

import threading

import pytest

from piolet.core import config, plugins, settings
from piolet.logbook.schema import FAMILIES
from piolet.record import clock
from piolet.record.rates import interval_s, intervals
from piolet.record.sampler import GROUP


def test_every_sampled_family_has_a_collector_that_takes_its_rate() -> None:
    told = {"user", "events"}
    assert set(settings.SAMPLED) == FAMILIES.keys() - told
    collectors = plugins.load(GROUP).loaded
    assert {each.family for each in collectors.values() if hasattr(each, "family")} == set(settings.SAMPLED)


def test_what_is_asked_of_a_family_goes_before_its_own_pace() -> None:
    collectors = plugins.load(GROUP).loaded
    chosen = intervals(("gpu=10", "proc=2", "inventory=1/120"))
    found = {name: interval_s(collector, 1.0, chosen) for name, collector in collectors.items()}
    assert (found["nvml"], found["dcgm"], found["amd_smi"]) == (0.1, 0.1, 0.1)
    assert (found["processes"], found["inventory"]) == (0.5, 120.0)
    assert (found["host"], found["clock"], found["first_node"], found["user"]) == (1.0, 10.0, 10.0, 1.0)
    assert interval_s(collectors["clock"], 30.0, {}) == 30.0


def test_the_environment_names_rates_at_commas() -> None:
    environ = {"PIOLET_SITE_CONFIG": "/dev/null", "HOME": "/none", "PIOLET_RECORD_RATES": "gpu=5,host=0.5"}
    assert intervals(config.load(environ=environ).settings.record.rates) == {"gpu": 0.2, "host": 2.0}


def test_what_is_sampled_seldom_has_a_first_sample_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    second = 10**9
    now_ns = [90 * second + 1]

    def waited(seconds: float) -> bool:
        now_ns[0] += round(seconds * 1e9)
        return False

    monkeypatch.setattr(clock.time, "time_ns", lambda: now_ns[0])
    found = clock.ticks(60 * second, waited, first_ns=second)
    assert [next(found) // second for _ in range(3)] == [91, 120, 180]
    assert next(clock.ticks(second // 10, waited, first_ns=second)) == now_ns[0]
    ended = threading.Event()
    ended.set()
    assert list(clock.ticks(second, ended.wait, first_ns=second)) == []
