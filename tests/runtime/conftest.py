from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of photographs and videos beside the checkout; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("BOARDFIT_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no test data: set BOARDFIT_DATA to the folder that holds photos_score and video")
    return folder


@pytest.fixture
def random_frame() -> np.ndarray:
    return np.random.RandomState(7).randint(0, 256, (48, 64, 3)).astype(np.uint8)
