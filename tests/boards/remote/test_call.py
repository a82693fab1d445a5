from __future__ import annotations

import sys
import time

import pytest

from boardfit.boards.remote.call import Lines, Overdue, call


def run(code: str, **options) -> tuple[int, str, str]:
    out, err = Lines(), Lines()
    status = call([sys.executable, "-c", code], on_out=out, on_err=err, **options)
    return status, out.text, err.text


def test_both_streams_are_read_while_it_is_fed():
    code = (
        "import sys; data = sys.stdin.buffer.read(); print(len(data)); print('x' * 200_000, file=sys.stderr)"
    )
    status, out, err = run(code, feed=[b"a" * 100_000, b"b" * 100_000])
    assert (status, out, len(err)) == (0, "200000\n", 200_001)


def test_a_program_that_stops_reading_is_no_error():
    assert run("import sys; sys.stdin.close()", feed=[b"a" * 1_000_000] * 3)[0] == 0


def test_a_source_that_cannot_be_read_ends_its_input():
    def broken():
        yield b"beginning"
        raise OSError("the disk went away")

    assert run("import sys; print(sys.stdin.read())", feed=broken())[1] == "beginning\n"


def test_at_the_deadline_it_is_given_up_and_killed():
    told = []
    start = time.monotonic()
    with pytest.raises(Overdue):
        run("import time; time.sleep(60)", timeout_s=0.5, abandon=lambda: told.append(True))
    assert told == [True]
    assert time.monotonic() - start < 30


def test_once_it_is_given_up_it_is_killed():
    assert run("import time; time.sleep(60)", given_up=lambda: True)[0] == -9


def test_lines_are_told_when_they_are_whole():
    told = []
    lines = Lines(told.append)
    for piece in (b"on", b"e\ntw", "ö\n".encode()[:2], "ö\n".encode()[2:], b"rest"):
        lines(piece)
    assert told == ["one", "twö"]
    assert lines.text == "one\ntwö\nrest"
