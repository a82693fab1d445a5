"""Sessions whose engine runs in a process of its own: the same answers, and they outlive their engines."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from boardfit.bundle import open_bundle
from boardfit.errors import EngineError, EngineLost, RecipeError
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, fake_files, write_fake_bundle
from boardfit.runtime.isolate.host import EngineHost
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.session import load
from boardfit.specs import PolicySpec

SIZES = (32, 48, 64)
SOON = Isolation(deadline_s=0.3, first_deadline_s=0.3)
LITTLE = Isolation(deadline_s=20.0, memory_bytes=128 << 20)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "fake.boardfit"
    write_fake_bundle(out, sizes=SIZES)
    return out


@pytest.fixture
def model(path):
    with load(path, isolate=True) as session:
        yield session


def frames_of(count: int) -> list[np.ndarray]:
    """Frames that the entropy policy sends to different sizes."""
    random = np.random.RandomState(5)
    return [
        np.repeat(random.randint(0, 2**bits, (60 + i, 80, 1)) * (256 >> bits), 3, axis=2).astype(np.uint8)
        for i, bits in zip(range(count), (2, 6, 8) * count, strict=False)
    ]


FRAMES = frames_of(6)


def same(one, other) -> bool:
    facts = [(result.size, result.looks, result.entropy_bits, result.placement) for result in (one, other)]
    return facts[0] == facts[1] and np.array_equal(one.outputs[0], other.outputs[0])


@pytest.mark.parametrize(
    "policy",
    ["fixed", "entropy", PolicySpec("two-look", SIZES, (4.0, 7.0), second_look_bits=0.3)],
    ids=["fixed", "entropy", "two-look"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["photos", "stream"])
def test_answers_are_those_of_the_same_process_to_the_last_bit(path, policy, stream, nothing_left):
    options = {"policy": policy, "stream": stream}
    with load(path, **options) as here, load(path, isolate=True, **options) as there:
        assert all(same(here(frame), there(frame)) for frame in FRAMES)
        assert all(same(*pair) for pair in zip(here(FRAMES), there(FRAMES), strict=True))
        assert same(here.look(FRAMES[0], 48), there.look(FRAMES[0], 48))
        for fact in ("engine", "precision", "threads", "sizes", "policy", "labels", "manifest"):
            assert getattr(here, fact) == getattr(there, fact)
        assert here.isolation is None
        assert there.isolation.pid != os.getpid()
        assert there.isolation.replaced == 0


@pytest.mark.parametrize(
    ("fault", "reason", "limits"),
    [("crash", "crashed", True), ("hang", "hung", SOON), ("stop", "hung", SOON), ("eat", "memory", LITTLE)],
    ids=["crash", "hang", "stop", "eat"],
)
def test_a_lost_engine_costs_one_frame(tmp_path, fault, reason, limits, nothing_left, caplog, watch):
    write_fake_bundle(tmp_path / "b", sizes=SIZES, fault=fault, after=2)
    write_fake_bundle(tmp_path / "good", sizes=SIZES)
    with load(tmp_path / "b", isolate=limits) as model, load(tmp_path / "good") as good:
        for _ in range(2):
            pid = model.isolation.pid
            assert all(same(model(frame), good(frame)) for frame in FRAMES[:2])
            with pytest.raises(
                EngineLost, match="is being replaced, the next frame will be answered"
            ) as lost:
                model(FRAMES[2])
            assert lost.value.reason == reason
            assert not watch.is_alive(pid)
        assert same(model(FRAMES[2]), good(FRAMES[2]))
        assert getattr(model.isolation, reason) == model.isolation.replaced == 2
    assert sum("the isolated engine" in record.message for record in caplog.records) == 2


def test_an_error_of_the_engine_costs_no_process(tmp_path):
    write_fake_bundle(tmp_path / "b", fault="error", after=1)
    with load(tmp_path / "b", isolate=True) as model:
        pid = model.isolation.pid
        model(FRAMES[0])
        with pytest.raises(EngineError, match="fails, as it was told to") as error:
            model(FRAMES[0])
        assert not isinstance(error.value, EngineLost)
        assert (model.isolation.pid, model.isolation.replaced) == (pid, 0)


def test_a_death_between_two_frames_costs_none(model, watch, caplog):
    expected = model(FRAMES[0])
    pid = model.isolation.pid
    os.kill(pid, signal.SIGKILL)
    assert watch.wait_until(lambda: not watch.is_alive(pid))
    assert same(model(FRAMES[0]), expected)
    assert model.isolation.crashed == 1
    assert "between two frames" in caplog.text


def test_a_spare_takes_over_and_gets_a_successor(path, watch, nothing_left):
    with load(path, isolate=Isolation(spare=True)) as model:
        expected = model(FRAMES[0])
        first = model.isolation
        assert watch.is_alive(first.spare_pid)
        os.kill(first.pid, signal.SIGKILL)
        watch.wait_until(lambda: not watch.is_alive(first.pid))
        assert same(model(FRAMES[0]), expected)
        second = model.isolation
        assert second.pid == first.spare_pid
        assert second.spare_pid not in (None, first.spare_pid)
        # A spare that dies on its own is no loss, and no zombie.
        os.kill(second.spare_pid, signal.SIGKILL)
        watch.wait_until(lambda: not watch.is_alive(second.spare_pid))
        assert same(model(FRAMES[0]), expected)
        assert str(second.spare_pid) not in watch.children()
        assert model.isolation.replaced == 1


def test_a_spare_that_cannot_be_started_costs_no_answer(path, monkeypatch, caplog):
    start = EngineHost._started

    def without_spare(host, *, spare=False):
        if spare:
            raise EngineError("no more processes may be started")
        return start(host)

    with load(path, isolate=Isolation(spare=True)) as model:
        monkeypatch.setattr(EngineHost, "_started", without_spare)
        assert model(FRAMES[0]).scores.size and model.isolation.spare_pid is None
        assert "no spare yet: no more processes" in caplog.text
        monkeypatch.undo()
        model(FRAMES[0])
        assert model.isolation.spare_pid is not None


def test_what_is_loaded_again_and_again_leaves_nothing_behind(tmp_path):
    write_fake_bundle(tmp_path / "b", sizes=SIZES[:1])
    with load(tmp_path / "b", isolate=True) as model:
        engine = model._engines.open(SIZES[0])
        for _ in range(5):
            model._engines.close()
            model(FRAMES[0])
        assert model._engines.open(SIZES[0]) is not engine
        assert len(model._host._deadlines._runs) == 1
        assert len(model._host._models) == 1


def test_a_spare_knows_what_was_loaded_after_it_started(path, watch):
    with load(path, policy="entropy", max_resident_sizes=2, isolate=Isolation(spare=True)) as model:
        expected = [model(frame) for frame in FRAMES[:3]]
        pid = model.isolation.pid
        os.kill(pid, signal.SIGKILL)
        watch.wait_until(lambda: not watch.is_alive(pid))
        assert all(same(model(frame), known) for frame, known in zip(FRAMES, expected, strict=False))


def test_thirty_losses_leave_nothing(tmp_path, nothing_left):
    write_fake_bundle(tmp_path / "b", fault="crash", after=1)
    with load(tmp_path / "b", isolate=True) as model:
        for _ in range(15):
            model(FRAMES[0])
            with pytest.raises(EngineLost, match="SIGSEGV"):
                model(FRAMES[0])
        assert model.isolation.crashed == 15


def test_a_dropped_session_ends_its_process(path, watch, nothing_left):
    with open_bundle(path) as bundle:
        model = load(bundle, isolate=True)
        model(FRAMES[0])
        pid = model.isolation.pid
        del model
        gc.collect()
        assert not watch.is_alive(pid)


def test_a_closed_session_has_ended_its_process_and_refuses_frames(path, watch, nothing_left):
    model = load(path, isolate=Isolation(spare=True))
    model(FRAMES[0])
    report = model.isolation
    model.close()
    model.close()
    assert not watch.is_alive(report.pid)
    assert not watch.is_alive(report.spare_pid)
    with pytest.raises(EngineError, match="closed"):
        model(FRAMES[0])


def test_time_without_a_processor_is_not_the_engines(tmp_path, monkeypatch):
    write_fake_bundle(tmp_path / "b", delay_s=0.6)
    with load(tmp_path / "b", isolate=Isolation(deadline_s=0.2, first_deadline_s=0.2)) as model:
        process = model._host._process
        with monkeypatch.context() as starved:
            starved.setattr(process, "_starved_since", lambda *before, elapsed_s: elapsed_s)
            assert model(FRAMES[0]).size == 32
        with pytest.raises(EngineLost, match=r"within 0\.2 s"):
            model(FRAMES[0])


def test_an_endless_engine_that_shares_its_processor_has_its_time_and_no_more(tmp_path):
    write_fake_bundle(tmp_path / "b", fault="hang")
    limits = Isolation(deadline_s=0.2, first_deadline_s=0.2)
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); os.write(1, b'x')\nwhile True: pass"
    spin = [sys.executable, "-c", code]
    with (
        load(tmp_path / "b", isolate=limits) as model,
        subprocess.Popen(spin, stdout=subprocess.PIPE) as rival,
    ):
        assert rival.stdout.read(1) == b"x"  # it spins from here on
        process = model._host._process
        os.sched_setaffinity(process.pid, {core})
        granted = []
        starved = process._starved_since

        def noted(*before, elapsed_s):
            granted.append(starved(*before, elapsed_s=elapsed_s))
            return granted[-1]

        process._starved_since = noted
        with pytest.raises(EngineLost, match=r"within 0\.2 s"):
            model(FRAMES[0])
        rival.kill()
    assert max(granted) > 0.005  # how the kernel deals a core between two differs from machine to machine


def test_an_interrupted_call_spoils_no_other(tmp_path, nothing_left):
    write_fake_bundle(tmp_path / "b", delay_s=0.3)
    with load(tmp_path / "b", isolate=True) as model:
        expected = model(FRAMES[0])

        def interrupt(number, stack):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                model([FRAMES[2]] * 4)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        assert same(model(FRAMES[0]), expected)
        assert model.isolation.replaced == 0


def test_an_interrupt_over_the_sending_spoils_no_other_call(model):
    answers = [model(frame) for frame in FRAMES]  # there is shared memory for all
    channel = model._host._process._socket

    class Interrupted:
        """Sends, and is interrupted before it returns."""

        def send(self, *what) -> int:
            model._host._process._socket = channel
            channel.send(*what)
            raise KeyboardInterrupt

    model._host._process._socket = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        model(FRAMES[2])
    assert same(model(FRAMES[0]), answers[0])
    assert model.isolation.replaced == 0


def test_it_outlives_the_thread_that_started_it(path):
    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(load, path, isolate=True).result()
        expected = pool.submit(model, FRAMES[0]).result()
    pid = model.isolation.pid
    with model:
        assert same(model(FRAMES[0]), expected)
        assert (model.isolation.pid, model.isolation.replaced) == (pid, 0)


def test_several_threads_may_call(model):
    expected = [model(frame) for frame in FRAMES]

    def work(index: int) -> bool:
        return all(same(model(FRAMES[index]), expected[index]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_an_event_loop_goes_on_while_it_works(tmp_path):
    write_fake_bundle(tmp_path / "b", delay_s=0.2)

    async def main() -> tuple[int, int]:
        ticks = 0
        loop = asyncio.get_running_loop()
        with await loop.run_in_executor(None, lambda: load(tmp_path / "b", isolate=True)) as model:
            answer = loop.run_in_executor(None, model, FRAMES[0])
            while not answer.done():
                ticks += 1
                await asyncio.sleep(0.01)
            return ticks, (await answer).size

    ticks, size = asyncio.run(main())
    assert size == 32
    assert ticks > 5


def test_a_fork_of_the_owner_is_refused_and_harms_nothing(model):
    expected = model(FRAMES[0])
    child = os.fork()
    if child == 0:
        try:
            model(FRAMES[0])
        except EngineError as error:
            model.close()
            os._exit(7 if "this is a fork of that" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert same(model(FRAMES[0]), expected)
    assert model.isolation.replaced == 0


def test_a_class_of_the_main_module_is_refused():
    class Local(FakeEngine):
        pass

    with pytest.raises(RecipeError, match="cannot be imported by another process: move it into a module"):
        EngineHost(Local, Isolation())


def test_without_a_process_there_is_an_error_and_later_frames_are_answered(path, monkeypatch, caplog):
    with load(path, isolate=True) as model:
        expected = model(FRAMES[0])
        monkeypatch.setattr("sys.executable", "/nonexistent/python")
        os.kill(model.isolation.pid, signal.SIGSTOP)
        with pytest.raises(EngineLost, match="no answer within"):
            monkeypatch.setattr(model._host._deadlines, "allowed_s", lambda shape: 0.2)
            model(FRAMES[0])
        assert "no replacement yet" in caplog.text
        assert model.isolation.pid is None
        with pytest.raises(EngineError, match="could not be started"):
            model(FRAMES[0])
        monkeypatch.undo()
        assert same(model(FRAMES[0]), expected)


def test_sessions_in_many_threads_leave_nothing(path, nothing_left):
    def once(index: int) -> int:
        with load(path, isolate=True, threads=1) as model:
            return model(FRAMES[index % 3]).size

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(once, range(12))) == [32, 48, 64] * 4


@pytest.mark.parametrize("free", range(7))
def test_without_descriptors_there_is_an_error_and_nothing_left(free, nothing_left):
    artifact, files = fake_artifact((32,)), fake_files()
    host = EngineHost(FakeEngine, Isolation())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())
        with pytest.raises(EngineError, match="Too many open files"):
            host.open(artifact, files, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)
    key = host.open(artifact, files, 1)
    assert host.run(key, {"image": np.zeros((1, 32, 32, 3), np.float32)})[0].shape == (1, 10)
    host.close()
