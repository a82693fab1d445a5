from __future__ import annotations

import numpy as np
import pytest

from boardfit.errors import RecipeError
from boardfit.runtime.policy import make_policy
from boardfit.runtime.policy.two_look import moved_probability
from boardfit.runtime.preprocess import Placement
from boardfit.runtime.results import Classes, Result, Timings
from boardfit.specs import POLICY_KINDS, PolicySpec, classic_policy

SIZES = (112, 160, 224)


def answer(scores: list[float], looks: tuple[int, ...], activation: str = "softmax") -> Result:
    return Result(
        classes=Classes(np.array(scores, np.float32), activation),
        outputs=(),
        size=looks[-1],
        looks=looks,
        entropy_bits=5.0,
        timings=Timings(0.0, 0.0, 0.0, 0.0, 0.0),
        placement=Placement(looks[-1], 0, 0, 1),
        labels=(),
    )


@pytest.mark.parametrize("kind", POLICY_KINDS)
def test_every_kind_is_found_through_its_entry_point(kind):
    policy = make_policy(classic_policy(kind, SIZES))
    assert policy.first(5.0 if policy.needs_entropy else None) in SIZES


def test_unknown_kind_names_the_known_ones():
    spec = PolicySpec("fixed", SIZES)
    object.__setattr__(spec, "kind", "lunar")
    with pytest.raises(RecipeError, match="'lunar': expected one of entropy, fixed, two-look"):
        make_policy(spec)


def test_fixed_takes_the_largest_and_needs_no_entropy():
    policy = make_policy(PolicySpec("fixed", SIZES))
    assert not policy.needs_entropy
    assert policy.first(None) == 224
    assert policy.next(224, answer([0.5, 0.5], (224,))) is None


@pytest.mark.parametrize(
    ("bits", "size"), [(0.0, 112), (3.999, 112), (4.0, 160), (6.999, 160), (7.0, 224), (8.0, 224)]
)
@pytest.mark.parametrize("stream", [False, True], ids=["images", "stream"])
def test_thresholds_of_the_classic_rule(bits, size, stream):
    assert make_policy(classic_policy("entropy", SIZES), stream=stream).first(bits) == size


def test_unrelated_images_do_not_depend_on_their_order():
    policy = make_policy(classic_policy("entropy", SIZES), stream=False)
    bits = np.random.RandomState(0).uniform(3.5, 7.5, 100)
    forward = [policy.first(b) for b in bits]
    assert [policy.first(b) for b in bits[::-1]][::-1] == forward


def test_a_stream_on_a_threshold_does_not_flap():
    spec = classic_policy("entropy", SIZES)
    policy = make_policy(spec, stream=True)
    policy.first(6.5)
    wobble = [policy.first(b) for b in (7.1, 6.9, 7.19, 6.81, 7.0)]
    assert wobble == [160] * 5
    assert policy.first(7.0 + spec.hysteresis_bits) == 224
    assert [policy.first(b) for b in (6.9, 7.1, 6.81)] == [224] * 3
    assert policy.first(7.0 - spec.hysteresis_bits - 0.01) == 160


def test_a_stream_follows_a_jump_over_two_thresholds():
    policy = make_policy(classic_policy("entropy", SIZES), stream=True)
    assert [policy.first(b) for b in (2.0, 7.9, 2.0)] == [112, 224, 112]
    # Far past the lower threshold, not far enough past the upper one.
    assert policy.first(7.1) == 160


@pytest.mark.parametrize("kind", ["entropy", "two-look"])
def test_a_stream_wants_the_entropy_of_every_third_frame_and_follows_it_then(kind):
    policy = make_policy(classic_policy(kind, SIZES), stream=True)
    scene = [7.9] * 4 + [2.0] * 6
    wanted = [policy.needs_entropy]
    sizes = []
    for bits in scene:
        sizes.append(policy.first(bits if policy.needs_entropy else None))
        wanted.append(policy.needs_entropy)
    assert wanted[:10] == [True, False, False] * 3 + [True]
    assert sizes == [224] * 6 + [112] * 4


def test_two_look_asks_for_the_next_larger_size_once():
    policy = make_policy(classic_policy("two-look", SIZES))
    unsure, sure = [0.25] * 4, [0.97, 0.01, 0.01, 0.01]
    assert policy.first(2.0) == 112
    assert policy.next(112, answer(unsure, (112,))) == 160
    assert policy.next(160, answer(unsure, (112, 160))) is None
    assert policy.next(160, answer(unsure, (160,))) == 224
    assert policy.next(224, answer(unsure, (224,))) is None
    assert policy.next(112, answer(sure, (112,))) is None


def test_two_look_obeys_its_bound():
    # The second best has a fifth of what the two best have: 0.722 bits.
    in_doubt = answer([0.4, 0.1, 0.1, 0.1], (112,))
    base = {"kind": "two-look", "sizes": SIZES, "thresholds_bits": (4.0, 7.0)}
    assert make_policy(PolicySpec(**base, second_look_bits=0.73)).next(112, in_doubt) is None
    assert make_policy(PolicySpec(**base, second_look_bits=0.71)).next(112, in_doubt) == 160


THREE = PolicySpec("two-look", SIZES, (9.0, 9.0), second_look_bits=0.5, third_look_bits=0.9)


def test_a_third_look_has_a_bound_of_its_own():
    policy = make_policy(THREE)
    in_doubt, tie = [0.8, 0.2, 0.0, 0.0], [0.25] * 4
    assert policy.first(None) == 112
    assert policy.next(112, answer(in_doubt, (112,))) == 160
    assert policy.next(160, answer(in_doubt, (112, 160))) is None
    assert policy.next(160, answer(tie, (112, 160))) == 224
    assert policy.next(224, answer(tie, (112, 160, 224))) is None


def test_two_look_refuses_numbers_that_are_no_probabilities():
    policy = make_policy(classic_policy("two-look", SIZES))
    with pytest.raises(RecipeError, match="activation 'none'"):
        policy.next(112, answer([3.0, -1.0], (112,), activation="none"))


UNSURE, SURE = [0.25] * 4, [0.97, 0.01, 0.01, 0.01]
PAIR = PolicySpec("two-look", (112, 224), (9.0,), second_look_bits=0.5, hysteresis_bits=0.2)


def test_two_look_goes_to_the_size_that_the_spec_names():
    spec = PolicySpec("two-look", SIZES, (4.0, 9.0), second_look_bits=0.5, second_size=224)
    policy = make_policy(spec)
    assert policy.next(112, answer(UNSURE, (112,))) == 224
    assert policy.next(224, answer(UNSURE, (224,))) is None


def sizes_over(policy, frames):
    """The looks at each frame, given its scores at the small and the large size."""
    return sizes_by(policy, [{112: small, 224: large} for small, large in frames])


def sizes_by(policy, frames):
    """The looks at each frame, given its scores by size."""
    found = []
    for scores in frames:
        looks = (policy.first(None),)
        while True:
            result = answer(scores[looks[-1]], looks)
            following = policy.next(looks[-1], result)
            if following is None:
                break
            looks = (*looks, following)
        found.append(looks)
    return found


OTHER = [0.01, 0.97, 0.01, 0.01]


def test_in_a_stream_a_scene_that_needed_the_large_size_gets_it_at_once():
    looks = sizes_over(make_policy(PAIR, stream=True), [(UNSURE, SURE)] * 103)
    assert looks[0] == (112, 224)
    assert set(looks[1:101]) == {(224,)}
    assert looks[101] == (112, 224)  # tried again, and still not enough
    assert {size[-1] for size in looks} == {224}


def test_in_a_stream_another_answer_tries_the_small_size_again_at_the_next_frame():
    frames = [(UNSURE, SURE)] * 5 + [(SURE, OTHER)] * 4
    looks = sizes_over(make_policy(PAIR, stream=True), frames)
    assert looks[3:] == [(224,), (224,), (224,), (112,), (112,), (112,)]


def test_in_a_stream_an_answer_that_only_trembles_is_no_other_scene():
    trembling = [0.60, 0.38, 0.01, 0.01]
    frames = [(UNSURE, SURE)] * 2 + [(SURE, trembling)] * 5
    assert sizes_over(make_policy(PAIR, stream=True), frames)[1:] == [(224,)] * 6


def test_in_a_stream_the_small_size_must_be_certain_by_the_hysteresis_to_come_back():
    # 0.47 bits: below the bound of 0.5, but not by 0.2.
    nearly = [0.9, 0.1, 0.0, 0.0]
    frames = [(UNSURE, SURE), (UNSURE, SURE), (nearly, OTHER), (nearly, OTHER), (nearly, OTHER), (SURE, SURE)]
    frames += [(SURE, SURE)]
    looks = sizes_over(make_policy(PAIR, stream=True), frames)
    assert looks == [(112, 224), (224,), (224,), (112, 224), (224,), (224,), (112,)]


def test_in_a_stream_a_low_bound_does_not_shut_the_small_size_out():
    """The hysteresis is larger than the bound: half of the bound counts."""
    spec = PolicySpec("two-look", (112, 224), (9.0,), second_look_bits=0.1, hysteresis_bits=0.2)
    sure = [1.0, 0.0, 0.0, 0.0]
    frames = [(UNSURE, SURE), (UNSURE, SURE), (sure, OTHER), (sure, OTHER)]
    looks = sizes_over(make_policy(spec, stream=True), frames)
    assert looks == [(112, 224), (224,), (224,), (112,)]


def test_in_a_stream_the_middle_size_is_kept_while_it_is_certain():
    frames = [{112: UNSURE, 160: SURE, 224: SURE}] * 5
    looks = sizes_by(make_policy(THREE, stream=True), frames)
    assert looks == [(112, 160), (160,), (160,), (160,), (160,)]


def test_in_a_stream_a_third_look_is_what_the_scene_needs_from_then_on():
    frames = [{112: UNSURE, 160: UNSURE, 224: SURE}] * 4
    looks = sizes_by(make_policy(THREE, stream=True), frames)
    assert looks == [(112, 160, 224), (224,), (224,), (224,)]


def test_in_a_stream_two_look_needs_the_image_entropy_only_where_its_thresholds_do():
    assert not make_policy(PAIR, stream=True).needs_entropy
    assert make_policy(classic_policy("two-look", SIZES), stream=True).needs_entropy


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        (SURE, SURE, 0.0),
        ([1.0, 0.0], [0.0, 1.0], 1.0),
        ([0.9, 0.9], [0.9, 0.1], 0.8 / 2.8),
        ([0.0], [0.0], 0.0),
    ],
    ids=["equal", "all", "sigmoids", "zeros"],
)
def test_the_share_that_moved(before, after, share):
    assert moved_probability(np.array(before), np.array(after)) == pytest.approx(share)


def test_two_look_on_unrelated_images_does_not_depend_on_their_order():
    frames = [(UNSURE, SURE), (SURE, SURE), (UNSURE, SURE)]
    looks = sizes_over(make_policy(PAIR), frames)
    assert looks == [(112, 224), (112,), (112, 224)]
