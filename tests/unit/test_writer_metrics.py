"""What a knowledge lane's metrics page says of calls, tokens, savings and the budget."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from streams.lanes.knowledge_stats import Cost, KnowledgeStats
from streams.metrics import LaneMetrics


@dataclass(frozen=True, slots=True)
class Figures:
    limit: int
    left: int


def samples(metrics: LaneMetrics) -> dict[tuple[str, ...], float]:
    """Return values by metric name and labels but for the lane's."""
    _, page = metrics.exposition()
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = [value for name, value in sorted(sample.labels.items()) if name != "lane"]
            found[(sample.name, *labels)] = sample.value
    return found


def test_calls_and_tokens_are_told_by_reason_and_savings_by_what_saved_them():
    stats = KnowledgeStats(saved_fingerprint=7, saved_coalesced=5, saved_shared=40)
    stats.costs["new"] = Cost(3, 900, 300)
    stats.costs["shared"] = Cost(1, 400, 120)
    stats.costs["repair"] = Cost(2, 650, 180)
    stats.rejected["echo"] = 1
    metrics = LaneMetrics("knowledge")
    metrics.follow_writer("knowledge", stats, Figures(10_000, 7_450))

    found = samples(metrics)

    assert found["freshet_writer_calls_total", "new"] == 3
    assert found["freshet_writer_calls_total", "shared"] == 1
    assert found["freshet_writer_tokens_total", "prompt", "new"] == 900
    assert found["freshet_writer_tokens_total", "completion", "repair"] == 180
    assert found["freshet_writer_repairs_total",] == 2
    assert found["freshet_writer_calls_saved_total", "fingerprint"] == 7
    assert found["freshet_writer_calls_saved_total", "coalesced"] == 5
    assert found["freshet_writer_calls_saved_total", "shared"] == 40
    assert found["freshet_writer_rejected_total", "echo"] == 1
    assert found["freshet_token_budget", "limit"] == 10_000
    assert found["freshet_token_budget", "left"] == 7_450
    assert (stats.calls, stats.prompt_tokens, stats.completion_tokens) == (6, 1_950, 600)


def test_without_a_budget_none_is_shown():
    metrics = LaneMetrics("knowledge")
    metrics.follow_writer("knowledge", KnowledgeStats())

    assert not any(name[0] == "freshet_token_budget" for name in samples(metrics))
