"""Policies that make no sense are refused where they are made."""

from __future__ import annotations

import pytest

from boardfit.errors import BundleError
from boardfit.specs import PolicySpec


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("entropy", (1, 2, 3), (7.0, 4.0)), r"thresholds_bits are \[7.0, 4.0\]: they must ascend"),
        (("entropy", (1, 2, 3), (4.0,)), "over 3 sizes has 1 thresholds: expected 2"),
        (("fixed", (1,), (4.0,)), "over 1 sizes has 1 thresholds: expected 0"),
        (("entropy", (2, 1), (4.0,)), "expected distinct, ascending sides"),
        (("entropy", (1, 2), (float("nan"),)), "expected a finite number"),
        (("entropy", (1, 2), (4.0,), -0.1), "hysteresis_bits must not be negative"),
        (("two-look", (1, 2), (4.0,), 0.2, 1.0, 3), "second_size is 3"),
        (("two-look", (1, 2), (4.0,), 0.2, 0.5, None, False, 0.9), "third_look_bits is 0.9"),
        (("two-look", (1, 2, 3), (4.0, 5.0), 0.2, 0.5, 3, False, 0.9), "third_look_bits is 0.9"),
        (("lunar", (1,)), "policy.kind is 'lunar': expected one of fixed, entropy, two-look"),
    ],
    ids=[
        "order",
        "few",
        "fixed",
        "sizes",
        "nan",
        "hysteresis",
        "second",
        "third-of-two",
        "third-beside-second",
        "kind",
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(BundleError, match=message):
        PolicySpec(*values)
