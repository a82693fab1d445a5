from __future__ import annotations

from itertools import pairwise

import pytest

from boardfit.errors import RecipeError
from boardfit.runtime.policy.budget import Budget, BudgetSettings

SIZES = (112, 160, 224)


class Board:
    """A board whose inference takes a time by size, and which warms up by what it does."""

    def __init__(self, budget: Budget, *, at_224_s: float) -> None:
        self.budget = budget
        self.at_224_s = at_224_s
        self.now = 0.0

    def run(self, seconds: float) -> list[int]:
        """Run for a while; return the size of every frame."""
        sizes = []
        until = self.now + seconds
        while self.now < until:
            size = self.budget.limit
            sizes.append(size)
            spent = self.at_224_s * (size / 224) ** 2
            self.now += max(spent, 1 / 30)
            self.budget.add(spent, size, self.now)
        return sizes


def changes(sizes: list[int]) -> int:
    return sum(a != b for a, b in pairwise(sizes))


def test_a_missed_deadline_lowers_the_size_until_it_is_kept():
    board = Board(Budget(BudgetSettings(fps=15.0), SIZES), at_224_s=0.2)
    sizes = board.run(10.0)
    assert sizes[0] == 224 and sizes[-1] == 112
    assert changes(sizes) == 2


def test_it_goes_up_again_after_a_while_of_ease():
    board = Board(Budget(BudgetSettings(fps=15.0, up_s=5.0), SIZES), at_224_s=0.2)
    board.run(10.0)
    board.at_224_s = 0.03
    assert set(board.run(4.0)) == {112}
    sizes = board.run(20.0)
    assert sizes[-1] == 224 and changes(sizes) == 2


def test_it_does_not_flap_where_the_larger_size_would_be_late():
    # 160 keeps the deadline, 224 would need 67.2 ms of the 66.7.
    board = Board(Budget(BudgetSettings(fps=15.0), SIZES), at_224_s=0.0672)
    sizes = board.run(120.0)
    assert sizes[-1] == 160
    assert changes(sizes) == 1


def test_steps_up_that_were_too_early_come_ever_more_rarely():
    class Deceptive(Board):
        """Much slower at 224 than the square of the side says."""

        def run(self, seconds):
            sizes = []
            until = self.now + seconds
            while self.now < until:
                size = self.budget.limit
                sizes.append(size)
                spent = 0.2 if size == 224 else 0.02
                self.now += max(spent, 1 / 30)
                self.budget.add(spent, size, self.now)
            return sizes

    board = Deceptive(Budget(BudgetSettings(fps=15.0, up_s=2.0), SIZES), at_224_s=0.0)
    first, second = changes(board.run(60.0)), changes(board.run(600.0))
    assert second / 10 < first / 2


def test_one_late_frame_in_ten_is_a_hiccup():
    budget = Budget(BudgetSettings(fps=10.0), SIZES)
    for index in range(100):
        assert budget.add(0.5 if index % 20 == 0 else 0.05, 224, index * 0.1) == 224


def test_heat_lowers_the_size_and_cold_raises_it():
    temperature = [60.0]
    budget = Budget(BudgetSettings(max_temp_c=75.0, up_s=5.0), SIZES, temperature_c=lambda: temperature[0])
    board = Board(budget, at_224_s=0.02)
    assert set(board.run(5.0)) == {224}
    temperature[0] = 76.0
    sizes = board.run(10.0)
    assert sizes[-1] == 112 and changes(sizes) == 2
    temperature[0] = 73.0  # below the limit, but not cool
    assert set(board.run(30.0)) == {112}
    temperature[0] = 65.0
    assert board.run(30.0)[-1] == 224


def test_a_lowered_clock_counts_as_heat():
    throttled = [True]
    board = Board(Budget(BudgetSettings(fps=1.0), SIZES, throttled=lambda: throttled[0]), at_224_s=0.02)
    assert board.run(10.0)[-1] == 112
    throttled[0] = False
    assert board.run(30.0)[-1] == 224


def test_an_unknown_temperature_limits_nothing():
    budget = Budget(BudgetSettings(max_temp_c=75.0), SIZES, temperature_c=lambda: None)
    assert set(Board(budget, at_224_s=0.02).run(5.0)) == {224}


def test_frames_above_the_limit_do_not_count():
    budget = Budget(BudgetSettings(fps=10.0), SIZES)
    for index in range(10):
        budget.add(0.2, 224, index * 0.1)
    for index in range(10, 60):  # those that were under way when it fell
        assert budget.add(0.2, 224, index * 0.1) == 160


@pytest.mark.parametrize(
    "fields",
    [{}, {"fps": 0.0}, {"fps": -1.0}, {"max_temp_c": 0.0}, {"max_temp_c": 900.0}],
    ids=str,
)
def test_budgets_that_make_no_sense(fields):
    with pytest.raises(RecipeError):
        BudgetSettings(**fields)


def test_a_limit_of_temperature_needs_a_thermometer():
    with pytest.raises(RecipeError, match="temperature_c"):
        Budget(BudgetSettings(max_temp_c=75.0), SIZES)


def test_late_frames_below_the_limit_lower_it_too():
    budget = Budget(BudgetSettings(fps=15.0), SIZES)
    for frame in range(20):  # a policy that never asks for the largest size
        budget.add(0.1 * (min(160, budget.limit) / 160) ** 2, min(160, budget.limit), frame / 15)
    assert budget.limit == 112


def test_one_late_frame_in_ten_below_the_limit_is_a_hiccup():
    budget = Budget(BudgetSettings(fps=15.0), SIZES)
    for frame in range(200):
        budget.add(0.1 if frame % 20 == 0 else 0.01, 112, frame / 15)
    assert budget.limit == 224


@pytest.mark.parametrize(
    ("steps", "sizes", "limit"),
    [(0, (96, 128), 128), (1, (96, 128, 192), 128), (2, (128, 192), 128), (1, (112, 160, 256), 160)],
    ids=["unlimited", "within", "below-the-smallest", "same"],
)
def test_another_models_sizes_are_taken_up(steps, sizes, limit):
    budget = Budget(BudgetSettings(max_temp_c=70.0), SIZES, temperature_c=lambda: 90.0)
    for second in range(0, 2 * steps, 2):
        budget.add(0.01, budget.limit, float(second))
    assert budget.limit == SIZES[-1 - steps]
    budget.change_sizes(sizes)
    assert (budget.limit, budget.sizes) == (limit, sizes)
