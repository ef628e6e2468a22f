from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.nemo.quiet import quiet


@pytest.fixture(scope="session")
def nemo_model(tiny_checkpoint: Path) -> Any:
    """The embedded checkpoint, restored by NeMo itself."""
    with quiet():
        import torch
        from nemo.collections.asr.models import EncDecRNNTBPEModel

        # Two threads are no faster for a model of this size, and on busy cores many times slower.
        torch.set_num_threads(1)
        return EncDecRNNTBPEModel.restore_from(str(tiny_checkpoint), map_location="cpu").eval()
