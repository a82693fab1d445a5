"""MLPerf's LoadGen itself says when it may stop, and how many of the slowest queries it would discard."""

from __future__ import annotations

import re

import pytest

from boardfit.benchmarks.early_stopping import allowed_above

loadgen = pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")


def summary(count: int, folder) -> str:
    """Run a single-stream of so many queries, each answered at once, and return what LoadGen says."""

    def issue(samples) -> None:
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(each.id, 0, 0) for each in samples])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = count
    settings.min_duration_ms = 0
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    logs = loadgen.LogSettings()
    logs.log_output = output
    sut = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(8, 8, lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(sut, library, settings, logs, "")
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    return (folder / "mlperf_log_summary.txt").read_text()


@pytest.mark.parametrize("count", [64, 65, 103, 104, 662, 1000, 2048])
def test_we_discard_as_many_as_loadgen(count, tmp_path):
    text = summary(count, tmp_path)
    assert f"({count})" in re.search(r"Processed at least 64 queries \(\d+\)", text)[0]
    assert int(re.search(r"Would discard (\d+) highest", text)[1]) == allowed_above(count, 90.0) - 1
    told = re.search(r"stopping 99(\.0)?th percentile estimate", text)
    assert (told is not None) == (allowed_above(count, 99.0) > 0)


def test_loadgen_gives_none_where_we_give_none(tmp_path):
    assert "Need to process at least 64 queries" in summary(63, tmp_path)
    assert allowed_above(63, 90.0) == 0
