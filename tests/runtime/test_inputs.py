"""Nets that take more than a frame: a box, a number, a second picture."""

import numpy as np
import pytest

from boardfit.bundle import Manifest, open_bundle
from boardfit.errors import BundleError, InputError, SwapRefused
from boardfit.runtime import load
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.inputs import plain_name
from boardfit.runtime.selftest import self_test
from boardfit.runtime.session import load as load_session
from boardfit.specs import TensorSpec

BOX = TensorSpec("box", (None, 4))
TILT = TensorSpec("tilt", (None,))
RIGHT = TensorSpec("right", (None, None, None, 3), layout="NHWC")
FRAME = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)


@pytest.fixture
def path(tmp_path):
    write_fake_bundle(tmp_path / "a.boardfit", further=(BOX, TILT, RIGHT))
    return tmp_path / "a.boardfit"


def given(**changed):
    return {"box": [1, 2, 3, 4], "tilt": 0.5, "right": FRAME, **changed}


def test_what_is_given_reaches_the_engine(path):
    with load(path, size=32) as model:
        plain, moved = model(FRAME, inputs=given()), model(FRAME, inputs=given(box=[2, 3, 4, 5]))
        other = model(FRAME, inputs=given(right=np.zeros((9, 7), np.uint8)))
    difference = moved.outputs[0] - plain.outputs[0]
    np.testing.assert_allclose(difference[0, 0], 1.0, atol=1e-5)
    np.testing.assert_array_equal(difference[0, 1:], 0.0)
    assert other.outputs[0][0, 0] < plain.outputs[0][0, 0]
    assert [spec.name for spec in model.inputs] == ["image", "box", "tilt", "right"]


def test_a_batch_gives_each_frame_its_own(path):
    frames = [FRAME, FRAME[::-1], FRAME[:, ::-1]]
    each = [given(tilt=number) for number in (0.0, 1.0, 2.0)]
    with load(path, size=48) as model:
        together = model(frames, inputs=each)
        alone = [model(frame, inputs=inputs) for frame, inputs in zip(frames, each, strict=True)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.outputs[0], other.outputs[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"box": [1, 2, 3]}, r"'box' has the shape \(3,\): expected \(4,\), for one frame"),
        ({"box": [[1, 2, 3, 4]]}, r"'box' has the shape \(1, 4\): expected \(4,\)"),
        ({"box": ["a"] * 4}, "'box' is no array of numbers"),
        ({"box": [[1], [2, 3]]}, "'box' is no array of numbers"),
        ({"box": [1j] * 4}, "'box' is no array of numbers"),
        ({"box": [1, 2, 3, float("nan")]}, "'box' holds NaN or infinity"),
        ({"tilt": [0.5]}, r"'tilt' has the shape \(1,\): expected \(\)"),
        ({"right": FRAME.astype(np.float32)}, "'right' is an image: .*uint8"),
        ({"left": FRAME}, r"no input 'left': it takes box \(4,\), tilt \(\), right \(an image\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(path, changed, message):
    with load(path, size=32) as model, pytest.raises(InputError, match=message):
        model(FRAME, inputs=given(**changed))


def test_a_missing_input_is_named(path):
    with load(path) as model:
        with pytest.raises(InputError, match=r"'box' is missing: give inputs=\{'box'"):
            model(FRAME)
        with pytest.raises(InputError, match="'right' is missing"):
            model.look(FRAME, 32, inputs={"box": [0] * 4, "tilt": 1})
        with pytest.raises(InputError, match="frame 1 of 2, counted from 0: the input 'tilt' is missing"):
            model([FRAME, FRAME], inputs=[given(), {"box": [0] * 4, "right": FRAME}])
        with pytest.raises(InputError, match="as many inputs"):
            model([FRAME, FRAME], inputs=[given()])
        with pytest.raises(InputError, match="inputs is list: expected a mapping"):
            model(FRAME, inputs=[1, 2])


def test_a_net_of_one_image_takes_nothing_else(tmp_path):
    write_fake_bundle(tmp_path / "a.boardfit")
    with load(tmp_path / "a.boardfit") as model, pytest.raises(InputError, match="none besides the frame"):
        model(FRAME, inputs={"box": [1, 2, 3, 4]})


def test_isolation_carries_every_input(path):
    with load_session(path, size=32) as here, load_session(path, size=32, isolate=True) as apart:
        one, other = (session(FRAME, inputs=given()) for session in (here, apart))
    np.testing.assert_array_equal(one.outputs[0], other.outputs[0])


def test_self_test_gives_what_the_build_gave(path):
    with open_bundle(path) as bundle:
        box, tilt, right = bundle.golden_inputs()
    assert (box.shape, tilt.shape, right.dtype) == ((4,), (), np.uint8)
    assert all(test.passed and test.error < 1e-6 for test in self_test(path))


def test_a_swap_needs_the_same_inputs(path, tmp_path):
    write_fake_bundle(tmp_path / "same.boardfit", seed=1, further=(BOX, TILT, RIGHT))
    write_fake_bundle(tmp_path / "other.boardfit", further=(BOX,))
    write_fake_bundle(tmp_path / "wide.boardfit", further=(TensorSpec("box", (None, 5)), TILT, RIGHT))
    with load(path) as model:
        with pytest.raises(SwapRefused, match=r"takes box \(4,\), the old one box \(4,\), tilt \(\), right"):
            model.swap(tmp_path / "other.boardfit")
        with pytest.raises(SwapRefused, match=r"takes box \(5,\), .*, the old one box \(4,\), "):
            model.swap(tmp_path / "wide.boardfit")
        model.swap(tmp_path / "same.boardfit")
        assert model(FRAME, inputs=given()).scores.size == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["golden"]["inputs"].pop(), "one for each of the 3 inputs"),
        (lambda d: d["artifacts"].append(another(d, lambda i: i.pop())), "takes other inputs than"),
        (lambda d: d["artifacts"].append(another(d, lambda i: i[1].update(shape=[None, 5]))), "other inputs"),
    ],
    ids=["golden", "fewer", "shape"],
)
def test_a_manifest_whose_inputs_disagree_is_refused(path, change, message):
    with open_bundle(path) as bundle:
        data = bundle.manifest.to_dict()
    change(data)
    with pytest.raises(BundleError, match=message):
        Manifest.from_dict(data)


def another(data, change):
    inputs = [dict(spec) for spec in data["artifacts"][0]["inputs"]]
    change(inputs)
    return {**data["artifacts"][0], "precision": "fp16", "inputs": inputs}


@pytest.mark.parametrize(
    ("name", "plain"), [("serving_default_box:0", "box"), ("box", "box"), ("a:0", "a"), ("image", "image")]
)
def test_names_of_tensorflow_become_plain(name, plain):
    assert plain_name(name) == plain
