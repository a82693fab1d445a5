from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from boardfit.bundle import open_bundle, write_bundle
from boardfit.errors import BundleError, EngineError, EngineMissing, InputError, RecipeError
from boardfit.runtime import session as module
from boardfit.runtime.decode.classify import softmax
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, fake_files, write_fake_bundle
from boardfit.runtime.entropy import entropy_bits
from boardfit.runtime.preprocess import Preprocessor
from boardfit.runtime.session import Session, load
from boardfit.specs import ImageSpec, PolicySpec, classic_policy

SIZES = (32, 48, 64)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "fake.boardfit"
    write_fake_bundle(out, sizes=SIZES)
    return out


@pytest.fixture
def model(path):
    with load(path) as session:
        yield session


def frame_of_bits(bits: int, seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    """A grey frame whose histogram has about 2**bits equally full bins."""
    greys = np.random.RandomState(seed).randint(0, 2**bits, (height, width, 1)) * (256 >> bits)
    return np.repeat(greys, 3, axis=2).astype(np.uint8)


LOW, MIDDLE, HIGH = frame_of_bits(2), frame_of_bits(6), frame_of_bits(8)


def calls_of(session: Session) -> list[tuple[int, ...]]:
    return [call for engine in session._engines.loaded.values() for call in engine.calls]


def test_an_answer_has_all_that_was_promised(model):
    result = model(HIGH)
    assert [p.label for p in result.top(3)] == [f"class {p.index}" for p in result.top(3)]
    assert result.size == 64
    assert result.looks == (64,)
    assert result.entropy_bits == entropy_bits(HIGH)
    assert result.scores.sum() == pytest.approx(1.0)
    assert [array.shape for array in result.outputs] == [(1, 10)]
    stages = result.timings
    parts = (stages.entropy_s, stages.preprocess_s, stages.inference_s, stages.postprocess_s)
    assert min(parts) > 0.0
    assert stages.total_s >= sum(parts) * 0.999


def test_the_answer_is_the_chain_of_its_parts(model, path):
    tensor, placement = Preprocessor(model.manifest.image, "NHWC").fit(HIGH, 64)
    engine = next(iter(model._engines.loaded.values()))
    expected = engine.run({"image": tensor})[0]
    result = model(HIGH)
    assert (result.outputs[0] == expected).all()
    assert (result.scores == softmax(expected[0])).all()
    assert result.placement == placement


@pytest.mark.parametrize(("frame", "size"), [(LOW, 32), (MIDDLE, 48), (HIGH, 64)], ids=["low", "mid", "high"])
def test_entropy_chooses_the_size(model, frame, size):
    assert model(frame).size == size
    assert calls_of(model) == [(1, size, size, 3)]


def test_the_properties_say_what_was_chosen(path):
    with load(path, threads=2) as session:
        assert session.engine == "fake"
        assert session.precision == "fp32"
        assert session.threads == 2
        assert session.sizes == SIZES
        assert session.policy.kind == "entropy"
        assert session.labels[3] == "class 3"
        assert session.manifest.name == "fake"


def test_threads_default_to_the_usable_cores_at_most_four(path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    with load(path) as session:
        assert session.threads == 4
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {5}, raising=False)
    with load(path) as session:
        assert session.threads == 1


def test_no_threads_are_refused(path):
    with pytest.raises(RecipeError, match="threads is 0: expected at least 1"):
        load(path, threads=0)


def test_fixed_computes_no_entropy(path, monkeypatch):
    monkeypatch.setattr(module, "entropy_bits", lambda frame: pytest.fail("entropy was computed"))
    with load(path, policy="fixed") as session:
        result = session(LOW)
    assert (result.size, result.entropy_bits, result.timings.entropy_s) == (64, None, 0.0)


def test_a_size_means_fixed(path):
    with load(path, size=48) as session:
        assert [session(frame).size for frame in (LOW, HIGH)] == [48, 48]
        assert session.policy == PolicySpec("fixed", (48,))


def test_a_policy_spec_overrides_the_bundles(path):
    spec = PolicySpec("entropy", (32, 64), (3.0,))
    with load(path, policy=spec) as session:
        assert [session(frame).size for frame in (LOW, MIDDLE)] == [32, 64]


def test_two_look_looks_again_where_it_is_unsure(path):
    unsure = PolicySpec("two-look", SIZES, (4.0, 7.0), second_look_bits=0.0)
    with load(path, policy=unsure) as session:
        result = session(LOW)
        assert result.looks == (32, 48)
        assert result.size == 48
        assert calls_of(session) == [(1, 32, 32, 3), (1, 48, 48, 3)]
    with load(path, policy=PolicySpec("two-look", SIZES, (4.0, 7.0), second_look_bits=4.0)) as session:
        assert session(LOW).looks == (32,)


def test_a_kind_that_is_not_the_bundles_own_takes_all_sizes_and_the_classic_thresholds(tmp_path):
    own = PolicySpec("two-look", (48, 64), (9.0,), second_look_bits=1.5)
    write_fake_bundle(tmp_path / "b", sizes=SIZES, policy=own)
    with load(tmp_path / "b", policy="entropy") as session:
        assert (session.sizes, session.policy.thresholds_bits) == (SIZES, (4.0, 7.0))
    with load(tmp_path / "b", policy="fixed") as session:
        assert session(LOW).size == 64
    with load(tmp_path / "b", policy="two-look") as session:
        assert session.policy == own


def test_a_threshold_above_every_image_needs_no_entropy(path):
    spec = PolicySpec("two-look", (32, 64), (9.0,), second_look_bits=0.0)
    with load(path, policy=spec) as session:
        result = session(MIDDLE)
    assert (result.entropy_bits, result.looks) == (None, (32, 64))


def test_averaged_looks_count_the_larger_one_twice(path):
    spec = PolicySpec("two-look", (32, 64), (9.0,), second_look_bits=0.0, average=True)
    with load(path, policy=spec) as session:
        both = session(MIDDLE)
        alone = [session.look(MIDDLE, size).scores for size in (32, 64)]
    np.testing.assert_allclose(both.scores, (alone[0] + 2 * alone[1]) / 3, atol=1e-7)


def test_a_look_at_a_size_of_ones_own_choice(path):
    with load(path) as session:
        assert session.look(LOW, 64).size == 64
        with pytest.raises(RecipeError, match="size 65 is not among"):
            session.look(LOW, 65)
    with pytest.raises(EngineError, match="closed"):
        session.look(LOW, 64)


def test_a_fixed_bundle_can_run_by_entropy_with_the_classic_thresholds(tmp_path):
    write_fake_bundle(tmp_path / "b", sizes=SIZES, policy=PolicySpec("fixed", SIZES))
    with load(tmp_path / "b", policy="entropy") as session:
        assert session.policy.thresholds_bits == classic_policy("entropy", SIZES).thresholds_bits
        assert session(LOW).size == 32


def test_two_look_is_refused_at_once_for_numbers_that_are_no_probabilities(tmp_path):
    write_fake_bundle(tmp_path / "b", sizes=SIZES, activation="none")
    with pytest.raises(RecipeError, match="activation 'none'"):
        load(tmp_path / "b", policy="two-look")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 40}, r"serve 32, 48, 64 pixels, not 40"),
        ({"policy": PolicySpec("fixed", (32, 96))}, r"serve 32, 48, 64 pixels, not 96"),
        ({"size": 32, "policy": "entropy"}, r"size=32 means one fixed size"),
        ({"policy": "lunar"}, r"no policy 'lunar': expected one of fixed, entropy, two-look"),
        ({"precision": "fp16"}, r"fake files are fp32, not fp16"),
        ({"engine": "ncnn"}, r"engine 'ncnn' runs ncnn, but the bundle has fake only"),
    ],
    ids=["size", "spec", "size-and-policy", "policy", "precision", "engine"],
)
def test_what_the_bundle_lacks_is_refused_with_what_it_has(path, options, message):
    with pytest.raises(RecipeError, match=message):
        load(path, **options)


def test_an_unknown_engine_is_missing(path):
    with pytest.raises(EngineMissing, match="no engine 'lunar'"):
        load(path, engine="lunar")


def test_hysteresis_acts_in_streams_only(path):
    # Just above and just below the threshold between 48 and 64.
    wobbling = [PolicySpec("entropy", SIZES, (1.0, entropy_bits(MIDDLE) + by)) for by in (0.1, -0.1)]
    for stream, sizes in ((False, [48, 64]), (True, [48, 48])):
        with load(path, policy=wobbling[0], stream=stream) as session:
            found = [session(MIDDLE).size]
            # The scene crosses the threshold by less than the hysteresis.
            session._policy._spec = wobbling[1]
            found.append(session(MIDDLE).size)
        assert found == sizes


def test_a_batch_answers_like_its_frames_in_their_order(path):
    frames = [frame_of_bits(bits, seed, 40 + seed, 70) for seed, bits in enumerate((8, 2, 6, 2, 8, 6, 8, 1))]
    for policy in ("entropy", "fixed", PolicySpec("two-look", SIZES, (4.0, 7.0), second_look_bits=0.3)):
        with load(path, policy=policy) as session:
            together = session(frames)
            alone = [session(frame) for frame in frames]
        for batched, single in zip(together, alone, strict=True):
            assert (batched.size, batched.looks) == (single.size, single.looks)
            assert batched.entropy_bits == single.entropy_bits
            assert batched.outputs[0].shape == single.outputs[0].shape
            np.testing.assert_allclose(batched.scores, single.scores, rtol=1e-5, atol=1e-7)


def test_a_batch_runs_grouped_by_size(model):
    model([LOW, HIGH, LOW, HIGH, LOW])
    assert calls_of(model) == [(3, 32, 32, 3), (2, 64, 64, 3)]


def test_a_long_batch_runs_in_pieces(model, monkeypatch):
    monkeypatch.setattr(module, "MAX_BATCH", 4)
    assert len(model([LOW] * 9)) == 9
    assert calls_of(model) == [(4, 32, 32, 3), (4, 32, 32, 3), (1, 32, 32, 3)]


def test_an_empty_batch_has_no_answers(model):
    assert model([]) == []


def test_a_batch_shares_the_time_of_its_inference(tmp_path):
    write_fake_bundle(tmp_path / "slow", sizes=(16,), delay_s=0.02)
    with load(tmp_path / "slow") as session:
        results = session([LOW] * 4)
    assert sum(result.timings.inference_s for result in results) >= 0.02
    assert len({result.timings.inference_s for result in results}) == 1
    for timings in (result.timings for result in results):
        stages = timings.entropy_s + timings.preprocess_s + timings.inference_s + timings.postprocess_s
        assert timings.total_s == pytest.approx(stages)


@pytest.mark.parametrize(
    "frame",
    [MIDDLE[..., 0], MIDDLE[..., :1], np.dstack([MIDDLE, MIDDLE[..., 0]]), MIDDLE[::-1, ::2], MIDDLE[:1, :1]],
    ids=["grey", "grey-axis", "bgra", "non-contiguous", "one-pixel"],
)
def test_frames_of_every_form_are_answered(model, frame):
    assert np.isfinite(model(frame).scores).all()


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 5, 3)), np.zeros((4, 5, 5), np.uint8), np.zeros((0, 5, 3), np.uint8), None],
    ids=["float64", "five-channels", "zero-height", "none"],
)
def test_other_frames_are_refused_alone_and_in_a_batch(model, frame):
    with pytest.raises(InputError, match=r"^the frame is .*expected a numpy array of uint8"):
        model(frame)
    with pytest.raises(InputError, match=r"^frame 2 of 4, counted from 0: the frame is .*expected a numpy"):
        model([LOW, LOW, frame, frame])
    assert model(LOW).size == 32


def test_a_closed_session_refuses_frames(path):
    session = load(path)
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed: load the bundle again"):
        session(LOW)


def test_a_bundle_that_was_opened_elsewhere_stays_open(path):
    with open_bundle(path) as bundle:
        with load(bundle) as session:
            session(LOW)
        assert bundle.read("model/fake.json")


def test_several_threads_may_call_one_session(model):
    frames = {bits: frame_of_bits(bits, bits) for bits in (1, 2, 6, 8)}
    expected = {bits: model(frame).scores for bits, frame in frames.items()}
    wrong: list[int] = []

    def work(bits: int) -> None:
        wrong.extend(
            bits for _ in range(50) if not np.array_equal(model(frames[bits]).scores, expected[bits])
        )

    workers = [threading.Thread(target=work, args=(bits,)) for bits in frames]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert len(calls_of(model)) == 4 + 4 * 50


def test_a_flipped_bit_in_what_is_used_is_refused(path, tmp_path):
    data = bytearray(path.read_bytes())
    data[data.find(b'"delay_s"') + 2] ^= 1
    (tmp_path / "damaged.boardfit").write_bytes(bytes(data))
    with pytest.raises(BundleError, match="damaged"):
        load(tmp_path / "damaged.boardfit")


def test_something_else_is_no_bundle(tmp_path):
    (tmp_path / "notes.boardfit").write_text("hello")
    with pytest.raises(BundleError):
        load(tmp_path / "notes.boardfit")


def test_nothing_is_said_where_the_first_engine_serves(path, caplog):
    with caplog.at_level(logging.DEBUG, "boardfit"), load(path):
        assert caplog.records == []


def test_resident_sizes_each_have_an_engine_and_the_oldest_goes(path):
    with load(path, policy="entropy", max_resident_sizes=2) as session:
        for frame in (LOW, MIDDLE, LOW):
            session(frame)
        engines = {size: engine for (_, size), engine in session._engines.loaded.items()}
        assert sorted(engines) == [32, 48]  # 64 was loaded first, and used last
        calls = {size: len(engine.calls) for size, engine in engines.items()}
        assert calls == {32: 2, 48: 1}
    with pytest.raises(RecipeError, match="max_resident_sizes is 0"):
        load(path, max_resident_sizes=0)


PAIR = PolicySpec("two-look", (32, 64), (9.0,), second_look_bits=0.0)


@pytest.mark.parametrize(
    ("slow", "policy", "limit", "expected"),
    [
        (True, PAIR, None, [32, 64]),
        (True, PAIR, 1, [64]),
        (True, "entropy", None, [64]),
        (False, PAIR, None, [64]),
        (False, PAIR, 2, [32, 64]),
    ],
    ids=["two-look", "spared", "entropy", "cheap-engine", "asked"],
)
def test_two_look_keeps_its_sizes_ready_where_a_change_of_size_costs(
    path, monkeypatch, slow, policy, limit, expected
):
    monkeypatch.setattr(FakeEngine, "slow_resize", slow, raising=False)
    with load(path, policy=policy, max_resident_sizes=limit) as session:
        for frame in (LOW, HIGH, LOW, HIGH):
            session(frame)
        assert sorted(size for _, size in session._engines.loaded) == expected
        assert len(calls_of(session)) == (4 if policy == "entropy" else 8)  # none was closed and made anew


def test_a_further_engine_of_a_file_is_a_sibling_where_the_engine_has_such(path, monkeypatch):
    made = []

    class Kin(FakeEngine):
        def sibling(self):
            made.append("sibling")
            return Kin(*self.given)

    def first(artifact, files, threads):
        made.append("first")
        Kin.given = (artifact, files, threads)
        return Kin(artifact, files, threads)

    monkeypatch.setattr(FakeEngine, "first_of_several", first, raising=False)
    with load(path, policy="entropy", max_resident_sizes=2) as session:
        for frame in (HIGH, LOW, HIGH, MIDDLE):
            session(frame)
    assert made == ["first", "sibling"]
    with load(path, policy="entropy", max_resident_sizes=1) as session:
        session(LOW)
    assert made == ["first", "sibling"]


def test_a_third_size_of_a_file_takes_over_the_engine_that_was_unused_longest(path):
    with load(path, policy="entropy", max_resident_sizes=2) as session:
        for frame in (HIGH, LOW, MIDDLE, LOW, HIGH):
            session(frame)
        calls = {size: engine.calls for (_, size), engine in session._engines.loaded.items()}
    shapes = {size: [shape[1] for shape in seen] for size, seen in calls.items()}
    assert shapes == {32: [32, 32], 64: [64, 48, 64]}


def test_damage_in_any_file_that_may_be_used_is_refused_by_load(tmp_path):
    parts = {size: (fake_artifact((size,)), fake_files()) for size in (32, 64)}
    artifacts = [replace(artifact, files=(f"models/{size}.json",)) for size, (artifact, _) in parts.items()]
    write_bundle(
        tmp_path / "tree",
        name="parts",
        labels=(),
        image=ImageSpec(),
        policy=PolicySpec("entropy", (32, 64), (5.0,)),
        artifacts=artifacts,
        files={f"models/{size}.json": next(iter(files.values())) for size, (_, files) in parts.items()},
    )
    with load(tmp_path / "tree") as session:
        assert session.look(LOW, 32).size == 32
    small = tmp_path / "tree" / "models" / "32.json"
    small.write_bytes(small.read_bytes()[:-1] + b" ")
    with pytest.raises(BundleError, match=r"32\.json"):
        load(tmp_path / "tree")


@pytest.mark.parametrize(("limit", "size"), [(None, 64), (64, 64), (63, 48), (48, 48), (1, 32)], ids=str)
def test_a_size_limit_binds_the_policy(model, limit, size):
    model.size_limit = limit
    assert model(HIGH).size == size
    assert model.look(HIGH, 64).size == 64


def test_a_size_limit_binds_the_second_look_too(path):
    with load(path, policy=PolicySpec("two-look", SIZES, (9.0, 9.0), second_look_bits=0.0)) as session:
        assert session(HIGH).looks == (32, 48)
        session.size_limit = 32
        assert session(HIGH).looks == (32,)


def test_one_call_preprocesses_while_the_engine_runs_another(path, monkeypatch):
    fitted = threading.Event()
    fit = module.Preprocessor.fit

    def noted_fit(self, frame, size, **how):
        tensor = fit(self, frame, size, **how)
        if frame is LOW:
            fitted.set()
        return tensor

    monkeypatch.setattr(module.Preprocessor, "fit", noted_fit)
    with load(path) as session:
        engine = next(iter(session._engines.loaded.values()))
        run = engine.run

        def run_until_the_other_is_fitted(feeds):
            assert fitted.wait(10.0), "the second frame was not preprocessed during the first one's run"
            return run(feeds)

        engine.run = run_until_the_other_is_fitted
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(session, HIGH)
            second = pool.submit(session, LOW)
            assert (first.result(20).size, second.result(20).size) == (64, 32)
