from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def nemo_model(tiny_checkpoint: Path) -> Any:
    """The embedded checkpoint, restored by NeMo itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NeMo's own imports
        import torch
        from nemo.collections.asr.models import EncDecRNNTBPEModel

        # Two threads are no faster for a model of this size, and on busy cores many times slower.
        torch.set_num_threads(1)
        logging.getLogger("nemo_logger").setLevel(logging.ERROR)
        return EncDecRNNTBPEModel.restore_from(str(tiny_checkpoint), map_location="cpu").eval()
