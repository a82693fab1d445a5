"""The training loop: it learns, repeats exactly, survives a kill, and stops at nonsense."""

from __future__ import annotations

import csv
import itertools
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.elastic_net import ElasticOptions
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.parallel import data_parallel
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Phase, _Watcher, train
from boardfit.errors import CompressError

HERE = Path(__file__).parent


PHASE = (Phase("largest"),)


def weights_of(model) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in model.variables]


@pytest.fixture(scope="module")
def unbroken():
    """Return a function that trains without a break, once for each decay; weights and losses."""
    small = runpy.run_path(str(HERE / "conftest.py"))

    @cache
    def trained(ema: float = 0.0):
        model, settings = small["build_model"](), small["build_settings"](ema=ema)
        report = train(model, small["build_images"](), settings=settings, phases=PHASE)
        return weights_of(model), [record.metrics["loss"] for record in report.history]

    return trained


def test_it_learns(images, make_model, settings):
    report = train(make_model(), images, settings=settings(epochs=8), phases=PHASE)
    losses = [record.metrics["loss"] for record in report.history]
    assert losses[-1] < 0.6 * losses[0]
    assert [record.epoch for record in report.history] == list(range(1, 9))
    assert "trained for 8 epochs" in report.sentence()


def test_it_repeats_to_the_last_bit(images, make_model, settings, unbroken):
    model = make_model()
    train(model, images, settings=settings(), phases=PHASE)
    for a, b in zip(unbroken()[0], weights_of(model), strict=True):
        assert np.array_equal(a, b)


def interrupt_at(epoch, step):
    def watch(seen):
        if (seen.epoch, seen.step) == (epoch, step):
            raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize("moment", [(2, 6), (2, 3)], ids=["between epochs", "inside an epoch"])
@pytest.mark.parametrize("ema", [0.0, 0.9], ids=["last weights", "moving average"])
def test_what_was_interrupted_goes_on_as_if_nothing_had_happened(
    images, tmp_path, moment, ema, make_model, settings, unbroken
):
    weights, curve = unbroken(ema)
    broken = settings(ema=ema, folder=tmp_path, watch=interrupt_at(*moment))
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), images, settings=broken, phases=PHASE)
    resumed = make_model()
    again = train(resumed, images, settings=settings(ema=ema, folder=tmp_path, resume=True), phases=PHASE)
    for a, b in zip(weights, weights_of(resumed), strict=True):
        assert np.array_equal(a, b)
    assert np.allclose(curve, [record.metrics["loss"] for record in again.history], rtol=1e-5)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == pytest.approx(curve, rel=1e-4)


@pytest.mark.parametrize("step", [0, 2, 5], ids=["first", "inside", "last"])
def test_ctrl_c_while_a_step_runs_does_not_repeat_it(
    images, tmp_path, step, monkeypatch, make_model, settings, unbroken
):
    """The signal is handled when the step is done, before anybody was told of it."""
    (weights, curve), resumed = unbroken(), make_model()
    told = _Watcher.on_train_batch_end

    def interrupt(self, batch, logs=None):
        if self._position.epoch == 1 and batch == step:
            raise KeyboardInterrupt
        told(self, batch, logs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Watcher, "on_train_batch_end", interrupt)
        train(make_model(), images, settings=settings(folder=tmp_path), phases=PHASE)
    again = train(resumed, images, settings=settings(folder=tmp_path, resume=True), phases=PHASE)
    for a, b in zip(weights, weights_of(resumed), strict=True):
        assert np.array_equal(a, b)
    assert np.allclose(curve, [record.metrics["loss"] for record in again.history], rtol=1e-5)


def test_a_finished_training_is_not_run_again(images, tmp_path, make_model, settings):
    train(make_model(), images, settings=settings(folder=tmp_path), phases=PHASE)
    steps = []
    once_more = settings(folder=tmp_path, resume=True, watch=steps.append)
    assert len(train(make_model(), images, settings=once_more, phases=PHASE).history) == 3
    assert steps == []


@pytest.mark.parametrize(
    ("change", "seed"),
    [({"learning_rate": 0.01}, 1), ({"epochs": 4}, 1), ({}, 2)],
    ids=["rate", "epochs", "weights"],
)
def test_a_checkpoint_of_something_else_is_refused(images, tmp_path, change, seed, make_model, settings):
    def interrupt(moment):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_model(), images, settings=settings(folder=tmp_path, watch=interrupt), phases=PHASE)
    other = settings(folder=tmp_path, resume=True, **change)
    with pytest.raises(CompressError, match="belongs to another model, other images or other settings"):
        train(make_model(seed=seed), images, settings=other, phases=PHASE)


@pytest.mark.parametrize("what", ["labels", "one pixel", "options"])
def test_a_checkpoint_of_other_images_or_losses_is_refused(images, tmp_path, what, make_model, settings):
    train(make_model(), images, settings=settings(epochs=1, folder=tmp_path), phases=PHASE)
    model, pixels, labels = make_model(), images.pixels.copy(), images.labels.copy()
    if what == "labels":
        labels[3] = 0
    elif what == "one pixel":
        pixels[3, 1, 1, 1] ^= 1
    else:
        model._options = ElasticOptions(temperature=2.0)
    resumed = settings(epochs=1, folder=tmp_path, resume=True)
    with pytest.raises(CompressError, match="belongs to another model, other images or other settings"):
        train(model, ImageSet(pixels=pixels, labels=labels), settings=resumed, phases=PHASE)


def test_a_damaged_checkpoint_is_refused(images, tmp_path, make_model, settings):
    train(make_model(), images, settings=settings(epochs=1, folder=tmp_path), phases=PHASE)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CompressError, match=r"cannot be read .*: delete it to start anew"):
        train(make_model(), images, settings=settings(folder=tmp_path, resume=True), phases=PHASE)


def test_a_full_disk_stops_and_keeps_the_checkpoint_before(
    images, tmp_path, monkeypatch, make_model, settings
):
    folder = tmp_path / "run"
    train(make_model(), images, settings=settings(epochs=1, folder=folder), phases=PHASE)
    before = (folder / "checkpoint.npz").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CompressError, match=r"No space left on device.*The one before is whole"):
        train(make_model(), images, settings=settings(epochs=1, folder=folder), phases=PHASE)
    assert (folder / "checkpoint.npz").read_bytes() == before
    assert not list(folder.glob("*.part"))


def test_a_loss_that_is_not_finite_stops_and_names_the_step(images, tmp_path, make_model, settings):
    wild = settings(learning_rate=1e20, warm_up=0.0, folder=tmp_path)
    with pytest.raises(
        CompressError, match=r"not finite at step \d+ of epoch \d+: .*lower the learning rate"
    ):
        train(make_model(norm=False), images, settings=wild, phases=PHASE)


def test_a_log_that_cannot_be_written_stops_and_says_so(images, tmp_path, make_model, settings):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(
        CompressError, match=r"log\.csv cannot be written .*The checkpoint beside it is whole"
    ):
        train(make_model(), images, settings=settings(folder=tmp_path), phases=PHASE)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("kept", [True, False], ids=["folder", "no folder"])
def test_weights_that_overflow_in_the_last_step_are_not_kept(images, tmp_path, kept, make_model, settings):
    """The loss of a step is that before its update: none sees what the last one did."""
    model = make_model()

    def ruin(moment):
        if moment.step == moment.steps:
            model.trainable_variables[0].assign(model.trainable_variables[0] + np.inf)

    given = settings(epochs=1, folder=tmp_path if kept else None, watch=ruin)
    with pytest.raises(CompressError, match=r"weights are not finite in epoch 1: .*lower the learning rate"):
        train(model, images, settings=given, phases=PHASE)
    assert not list(tmp_path.glob("checkpoint*"))


def test_fewer_images_than_a_batch_are_refused(images, make_model, settings):
    with pytest.raises(CompressError, match="96 images are fewer than a batch of 200"):
        train(make_model(), images, settings=settings(batch=200), phases=PHASE)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch": 0}, {"optimizer": "magic"}, {"learning_rate": 0.0}, {"warm_up": 1.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_check_themselves(wrong, settings):
    with pytest.raises(CompressError):
        settings(**wrong)


def test_time_left_falls_to_nothing(images, make_model, settings, make_images):
    left = []
    train(make_model(), images, settings=settings(watch=lambda m: left.append(m.left_s)), phases=PHASE)
    assert left[-1] == 0.0 and len(left) == 18 and all(seconds >= 0.0 for seconds in left)


def short_training(folder: str, *, tell: bool = False) -> list[str]:
    """Train on the Keras backend of this process, keep the weights, and return the losses and the backend."""
    small = runpy.run_path(str(HERE / "conftest.py"))

    def watch(moment):
        if tell:
            print("step", moment.epoch, moment.step, flush=True)

    run = small["build_settings"](folder=Path(folder), resume=True, save_every_s=0.0, watch=watch)
    model = small["build_model"]()
    report = train(model, small["build_images"](), settings=run, phases=PHASE)
    np.savez(Path(folder) / "weights.npz", *(np.asarray(variable) for variable in model.variables))
    return [*(f"{record.metrics['loss']:.6f}" for record in report.history), keras.backend.backend()]


def in_a_child(folder: Path) -> subprocess.Popen:
    call = f"runpy.run_path({__file__!r})['short_training']({str(folder)!r}, tell=True)"
    return subprocess.Popen(
        [sys.executable, "-c", f"import runpy; print(*{call})"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )


def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    victim = in_a_child(killed)
    for line in victim.stdout:
        if line.split() == ["step", "2", "4"]:
            victim.send_signal(signal.SIGKILL)
            break
    victim.wait(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    heir = in_a_child(killed)
    expected = short_training(str(whole))
    lines = heir.communicate(timeout=300)[0].splitlines()
    assert lines[-1].split() == expected
    assert lines[0] == "step 2 4" or lines[0] == "step 2 5"
    with np.load(whole / "weights.npz") as a, np.load(killed / "weights.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a.files)


def test_it_trains_on_jax_as_on_tensorflow(on_jax, tmp_path):
    on_jax.begin(__file__, "short_training", folder=str(tmp_path / "jax"))
    *ours, backend = short_training(str(tmp_path / "tensorflow"))
    *theirs, other = on_jax.end()
    assert (backend, other) == ("tensorflow", "jax")
    ours, theirs = ([float(loss) for loss in losses] for losses in (ours, theirs))
    assert theirs[-1] < theirs[0]
    assert ours == pytest.approx(theirs, rel=0.02)


def test_replacing_the_seed_changes_the_curve(images, make_model, settings):
    curves = [
        train(make_model(), images, settings=replace(settings(), seed=seed), phases=PHASE).history[0].metrics
        for seed in (1, 2)
    ]
    assert curves[0] != curves[1]


def test_tensorboard_reads_the_log(images, tmp_path, make_model, settings):
    tf = pytest.importorskip("tensorflow")
    report = train(make_model(), images, settings=settings(folder=tmp_path), phases=PHASE)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    events = list(tf.compat.v1.train.summary_iterator(str(path)))
    assert events[0].file_version == "brain.Event:2"
    assert [event.step for event in events[1:]] == [1, 2, 3]
    assert all(a.wall_time <= b.wall_time for a, b in itertools.pairwise(events))
    for event, record in zip(events[1:], report.history, strict=True):
        found = {value.tag: value.simple_value for value in event.summary.value}
        expected = {**record.metrics, "images_per_s": record.images_per_s}
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("damage", ["ahead", "torn"])
def test_a_resumed_log_shows_each_epoch_once(images, tmp_path, damage, make_model, settings):
    tf = pytest.importorskip("tensorflow")
    stop = settings(epochs=3, folder=tmp_path, watch=interrupt_at(3, 2))
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), images, settings=stop, phases=PHASE)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    whole, inode = path.read_bytes(), path.stat().st_ino
    path.write_bytes(whole + b"\x07" * 40 if damage == "ahead" else whole[:-5])
    resumed = settings(epochs=3, folder=tmp_path, resume=True)
    train(make_model(), images, settings=resumed, phases=PHASE)
    assert list(tmp_path.glob("events.out.tfevents.*")) == [path] and path.stat().st_ino == inode
    assert [e.step for e in tf.compat.v1.train.summary_iterator(str(path))][1:] == [1, 2, 3]


def test_several_devices_are_refused_where_keras_cannot_use_them():
    with pytest.raises(CompressError, match="on JAX, not on"), data_parallel(2, batch=16):
        pass


def distilled(**options) -> list[float]:
    """Return the losses of distilling with everything, step by step."""
    small = runpy.run_path(str(HERE / "conftest.py"))
    curve: list[float] = []
    training = small["build_settings"](epochs=1, watch=lambda moment: curve.append(moment.loss), **options)
    losses = DistillOptions(hint=1.0, contrast=0.5, decouple=0.5)
    images, teacher = small["build_images"](64), small["build_source"](seed=4)
    stage = Distill(16, lambda _: images, True, training, losses, teacher)
    run_stage(stage, small["build_source"](widths=(8, 24)))
    return curve


def on_one_and_two_devices() -> tuple[list[float], list[float], list[str]]:
    """Return the losses on one device and on two, and what is said of batches that cannot be shared."""
    refused = []
    for count, batch in ((3, 12), (2, 15)):
        with pytest.raises(CompressError) as caught, data_parallel(count, batch=batch):
            pass
        refused.append(str(caught.value))
    return distilled(devices=1), distilled(devices=2), refused


def test_two_devices_give_the_losses_of_one_and_jax_those_of_tensorflow(on_jax):
    on_jax.begin(__file__, "on_one_and_two_devices")
    tensorflow = distilled()
    one, two, refused = on_jax.end()
    assert len(one) == 4 and len(set(one)) == 4
    assert two == pytest.approx(one, rel=1e-5)
    assert tensorflow == pytest.approx(one, rel=1e-4)
    assert refused[0] == (
        "a batch of 12 cannot be shared equally by 3 devices of 2: expected as many devices, and a batch "
        "that they divide"
    )
    assert refused[1].startswith("a batch of 15 cannot be shared equally by 2 devices of 2")
