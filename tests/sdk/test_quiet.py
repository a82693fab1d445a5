import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from boardfit.cli.quiet import quiet_engines
os.write(2, b"before\\n")
try:
    with quiet_engines():
        os.write(2, b"chatter\\n")
        print("of Python", file=sys.stderr)
        {inside}
except ValueError:
    os.write(2, b"caught\\n")
os.write(2, b"after\\n")
print("and Python", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("inside", "debug", "lines"),
    [
        ("pass", "", ["before", "of Python", "after", "and Python"]),
        ("raise ValueError", "", ["before", "of Python", "chatter", "caught", "after", "and Python"]),
        ("pass", "1", ["before", "chatter", "of Python", "after", "and Python"]),
    ],
    ids=["well", "an error", "debugging"],
)
def test_what_is_not_pythons_is_kept_back(inside, debug, lines):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(inside=inside)],
        env={**os.environ, "BOARDFIT_DEBUG": debug},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines() == lines


NO_STDERR = """
import os
os.close(2)
from boardfit.cli.quiet import quiet_engines
with quiet_engines():
    print("here")
"""


def test_a_process_without_stderr_goes_on():
    done = subprocess.run([sys.executable, "-c", NO_STDERR], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "here\n"
