from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from boardfit.benchmarks import trial_bench
from boardfit.benchmarks.candidates import Field, Wish, candidates
from boardfit.benchmarks.journal import Journal
from boardfit.benchmarks.trial_bench import BURST
from boardfit.benchmarks.tune import TRIES, Plan, subject, tune
from boardfit.benchmarks.tuning import Key, key_here
from boardfit.bundle import open_bundle
from boardfit.errors import EngineError, EngineMissing, RecipeError
from boardfit.runtime.choose import Setup
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.specs import TensorSpec

KEY = Key("0" * 64, "here", {"x": "1"})
SETUPS = tuple(Setup("x", "fp32", threads, ()) for threads in range(1, 9))


class Board:
    """A clock that stands still but for what setups cost on it."""

    def __init__(self, costs) -> None:
        self.now_s = 0.0
        self.costs = costs
        self.looks: list[tuple[int, int]] = []
        self.open = self.most_open = 0

    def __call__(self) -> float:
        return self.now_s

    def load(self, bundle, *, threads, **_):
        self.open += 1
        self.most_open = max(self.most_open, self.open)

        def look(frame, size, inputs):
            self.looks.append((threads, size))
            cost = self.costs(threads, size)
            if isinstance(cost, Exception):
                raise cost
            self.now_s += cost
            return SimpleNamespace(outputs=[])

        def close():
            self.open -= 1

        return SimpleNamespace(look=look, close=close, engine="x", artifact=lambda size: None)


@pytest.fixture
def bundle(three_engines, monkeypatch):
    with open_bundle(three_engines) as opened:
        monkeypatch.setattr(type(opened), "golden_frame", lambda self: None)
        yield opened


@pytest.fixture
def run(bundle, monkeypatch):
    def run(board, sizes=(16, 31), setups=SETUPS, **rest):
        monkeypatch.setattr(trial_bench, "load", board.load)
        field = Field(dict.fromkeys(sizes, tuple(setups)), ("said before",))
        return tune(bundle, field, key=KEY, board="b", clock=board, **rest)

    return run


def test_the_cheapest_of_each_size_wins_and_one_is_chosen_for_all(run):
    # At 16 pixels 3 threads are best, at 31 it is 5; 4 lose 10 % at each.
    def cost(threads, size):
        return (0.010 if size == 16 else 0.030) * (1.0 + 0.1 * abs(threads - (3 if size == 16 else 5)))

    board = Board(cost)
    tuning = run(board)
    assert tuning.best(16).setup.threads == 3 and tuning.best(31).setup.threads == 5
    assert tuning.best(16).p95_s == pytest.approx(0.010)
    assert tuning.choose((16,)).threads == 3
    # 3 and 5 were timed to the half at least at the other's size, where each loses 20 %.
    assert {trial.setup.threads: trial.runs >= 48 for trial in tuning.ranked(31)}[3]
    assert tuning.choose((16, 31)).threads in (3, 4, 5)
    assert tuning.left_out == ("said before",)
    assert board.open == 0


def test_a_candidate_has_the_runs_of_the_rungs_that_it_saw(run):
    tuning = run(Board(lambda threads, _: 0.01 * threads), sizes=(16,))
    assert [trial.runs for trial in tuning.ranked(16)] == [96, 96, 12, 12, 6, 6, 6, 6]


def test_exhaustive_gives_all_of_them_all_runs(run):
    board = Board(lambda threads, _: 0.01 * threads)
    tuning = run(board, sizes=(16,), plan=Plan(runs=24, exhaustive=True))
    assert {trial.runs for trial in tuning.trials} == {24} and len(tuning.trials) == len(SETUPS)


def test_halving_takes_a_third_of_the_time_of_the_exhaustive_search(run):
    spent = []
    for exhaustive in (False, True):
        board = Board(lambda threads, size: 0.004 * (size / 16) ** 2 * (1.0 + 0.2 * threads))
        run(
            board,
            setups=[*SETUPS, *(replace(each, precision="fp16") for each in SETUPS[:4])],
            plan=Plan(exhaustive=exhaustive),
        )
        spent.append(board.now_s)
    assert spent[0] <= spent[1] / 3


def test_one_that_fails_is_left_out_with_the_reason_and_the_rest_goes_on(run):
    calls = []

    def cost(threads, size):
        calls.append(threads)
        if threads == 1 and size == 16:
            return EngineMissing("no such library")
        if threads == 2 and calls.count(2) > 5:
            return EngineError("it died")
        return 0.01 * threads

    tuning = run(Board(cost))
    assert tuning.best(16).setup.threads == 3
    assert tuning.best(31).setup.threads == 1
    assert any("1 thread at 16: no such library" in reason for reason in tuning.left_out)
    assert any("2 threads" in reason and "it died" in reason for reason in tuning.left_out)


def test_where_all_fail_that_is_an_error(run):
    with pytest.raises(RecipeError, match=r"every candidate for 16 failed: .*it died"):
        run(Board(lambda threads, size: EngineError("it died")))


def test_no_more_sessions_are_open_than_may_be(run):
    board = Board(lambda threads, _: 0.01 * threads)
    tuning = run(board, plan=Plan(runs=24, at_once=3))
    assert board.most_open <= 3 and board.open == 0
    assert tuning.best(16).setup.threads == 1


def test_an_interrupted_tune_goes_on_where_it_was(run, tmp_path):
    told = []

    def interrupt(text):
        told.append(text)
        if len(told) == 3:
            raise KeyboardInterrupt

    board = Board(lambda threads, _: 0.01 * threads)
    whole = run(board)
    board = Board(lambda threads, _: 0.01 * threads)
    with pytest.raises(KeyboardInterrupt):
        run(board, journal=Journal(tmp_path / "j", {"net": 1}), progress=interrupt)
    assert board.open == 0
    board = Board(lambda threads, _: 0.01 * threads)
    journal = Journal(tmp_path / "j", {"net": 1})
    again = run(board, journal=journal)
    assert journal.resumed == 3
    # What was finished was not timed again.
    assert {threads for threads, size in board.looks if size == 16} == {1, 2}
    assert [(each.size, each.setup, each.runs) for each in again.trials] == [
        (each.size, each.setup, each.runs) for each in whole.trials
    ]


def test_what_failed_before_an_interruption_is_told_once(run, tmp_path):
    def cost(threads, size):
        return EngineError("it died") if threads == 1 and size == 16 else 0.01 * threads

    def interrupt(text):
        if text.startswith("31 pixels, step 2"):
            raise KeyboardInterrupt

    whole = run(Board(cost))
    with pytest.raises(KeyboardInterrupt):
        run(Board(cost), journal=Journal(tmp_path / "j", {}), progress=interrupt)
    again = run(Board(cost), journal=Journal(tmp_path / "j", {}))
    assert again.left_out == whole.left_out and sum("it died" in each for each in again.left_out) == 1


def test_the_journal_of_another_tune_is_not_taken(bundle):
    fields = [Field({16: SETUPS}, ()), Field({16: SETUPS[:2]}, ())]
    plans = [Plan(), Plan(runs=48), Plan(goal="energy"), Plan(exhaustive=True)]
    keys = [KEY, replace(KEY, versions={"x": "2"})]
    found = {
        json.dumps(subject(bundle, *each), sort_keys=True)
        for each in [
            *((field, KEY, plans[0]) for field in fields),
            *((fields[0], KEY, plan) for plan in plans),
        ]
    } | {json.dumps(subject(bundle, fields[0], key, plans[0]), sort_keys=True) for key in keys}
    assert len(found) == 6
    assert subject(bundle, fields[0], KEY, Plan(at_once=2)) == subject(bundle, fields[0], KEY, Plan())


def shares_of(*shares):
    """Return what tells the share of others, asked before each try and after it, and what it has told."""
    left, told = iter(shares), []

    def busy_share():
        told.append(told[-1] if len(told) % 2 else next(left, 0.0))
        return told[-1]

    return busy_share, told


def test_what_others_disturb_is_timed_again(run):
    """One thread is best while another process holds a core, two when it is gone."""
    busy_share, told = shares_of(0.5, 0.4, 0.01)
    said = []

    def cost(threads, _):
        return 0.03 if threads == 3 else 0.01 if (threads == 1) == (told[-1] > 0.3) else 0.02

    tuning = run(Board(cost), sizes=(16,), setups=SETUPS[:3], busy_share=busy_share, progress=said.append)
    assert told[:6] == [0.5, 0.5, 0.4, 0.4, 0.01, 0.01]
    assert tuning.best(16).setup.threads == 2 and tuning.disturbed == ()
    assert tuning.best(16).p50_s == pytest.approx(0.01)
    assert [trial.runs for trial in tuning.ranked(16)] == [96, 96, 6]
    assert said[:2] == [
        f"16 pixels, step 1: other processes took {share} % of all cores' time, timed again"
        for share in (50, 40)
    ]


def test_of_tries_that_were_all_disturbed_the_least_counts(run):
    busy_share, told = shares_of(0.1, 0.3, 0.2)
    tuning = run(
        Board(lambda threads, _: threads * told[-1]),
        sizes=(16,),
        setups=SETUPS[:1],
        busy_share=busy_share,
        plan=Plan(runs=BURST),
    )
    assert tuning.best(16).p50_s == pytest.approx(0.1)
    assert tuning.disturbed == ("16 pixels: other processes took 10 % of all cores' time while it was timed",)
    assert len(told) == 2 * TRIES


def test_a_step_that_stayed_disturbed_is_taken_anew_after_an_interruption(run, tmp_path):
    path, board = tmp_path / "j", Board(lambda threads, _: 0.01 * threads)
    busy_share, _ = shares_of(*[0.25] * TRIES)
    tuning = run(board, busy_share=busy_share, journal=Journal(path, {}))
    assert tuning.disturbed == ("16 pixels: other processes took 25 % of all cores' time while it was timed",)
    board.looks.clear()
    again = run(board, journal=Journal(path, {}))
    assert again.disturbed == ()
    assert {size for _, size in board.looks} == {16} and board.looks.count((8, 16)) >= BURST


def test_one_that_fails_while_a_step_is_timed_again_is_left_out_once(run):
    busy_share, told = shares_of(*[0.25] * TRIES)

    def cost(threads, _):
        return EngineError("it died") if threads == 1 and len(told) > 3 else 0.01 * threads

    tuning = run(Board(cost), sizes=(16,), setups=SETUPS[:3], busy_share=busy_share)
    assert [trial.setup.threads for trial in tuning.ranked(16)] == [2, 3]
    assert sum("it died" in reason for reason in tuning.left_out) == 1


def test_energy_ranks_what_the_meter_tells(run):
    board = Board(lambda threads, _: 0.01 * threads)

    def meter(call):
        before = len(board.looks)
        call()
        threads = board.looks[before][0]
        return 1.0 / threads

    tuning = run(board, sizes=(16,), plan=Plan(goal="energy"), meter=meter)
    assert tuning.best(16).setup.threads == 8
    assert tuning.best(16).energy_j == pytest.approx(1 / 8)
    with pytest.raises(RecipeError, match="does not tell its power"):
        run(board, plan=Plan(goal="energy"))


def test_progress_tells_how_long_the_rest_takes(run):
    told = []
    run(Board(lambda threads, _: 0.001), progress=told.append)
    assert told[0].startswith("16 pixels, step 1: done; about ") and told[-1].endswith("about 0 s to go")


@pytest.mark.parametrize("bad", [{"runs": BURST - 1}, {"at_once": 0}, {"goal": "speed"}], ids=str)
def test_a_plan_that_makes_no_sense_is_refused(bad):
    with pytest.raises(RecipeError):
        Plan(**bad)


def test_real_engines_are_tuned_and_a_wrong_answer_is_left_out(three_engines, monkeypatch):
    with open_bundle(three_engines) as bundle:
        field = candidates(bundle, Wish(threads=(1,)), cores=1)
        key = key_here(bundle.manifest, [setup.engine for setup in field.setups])
        tuning = tune(bundle, field, key=key, board="b", plan=Plan(runs=BURST))
        assert tuning.sizes == (16, 24, 31)
        assert {trial.setup.engine for trial in tuning.trials} >= {"litert", "onnxruntime", "ncnn"}
        whole = len(tuning.trials)
        golden = type(bundle).golden_outputs
        monkeypatch.setattr(
            type(bundle), "golden_outputs", lambda self, size: [-10.0 * each for each in golden(self, size)]
        )
        monkeypatch.setattr(trial_bench, "recorded_answer", lambda bundle, artifact: None)
        with pytest.raises(RecipeError, match="golden frame is off"):
            tune(bundle, field, key=key, board="b", plan=Plan(runs=BURST))
        assert whole == sum(map(len, field.by_size.values()))


def test_a_net_of_several_inputs_is_tuned_with_its_golden_ones(tmp_path):
    further = (TensorSpec("box", (None, 4)), TensorSpec("right", (None, None, None, 3), layout="NHWC"))
    write_fake_bundle(tmp_path / "b", further=further)
    with open_bundle(tmp_path / "b") as bundle:
        field = candidates(bundle, Wish(), cores=1)
        key = key_here(bundle.manifest, ["fake"])
        tuning = tune(bundle, field, key=key, board="b", plan=Plan(runs=BURST))
    assert tuning.sizes == (32, 48, 64) and tuning.left_out == ()
