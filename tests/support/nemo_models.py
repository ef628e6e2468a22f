"""NeMo's own model of a checkpoint, for tests of what only that has: tokenizer, decoding, streaming, its own export."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def nemo_around_the_kits_modules(checkpoint: Path, folder: Path) -> Any:
    """NeMo's model, restored by NeMo, with the modules that the kit restores; `folder` is an empty one."""
    from artifacts.nemo.checkpoint import restore
    from artifacts.nemo.model_config import PART_NAMES
    from artifacts.nemo.quiet import quiet

    ours = restore(checkpoint, folder)
    with quiet():
        from nemo.collections.asr.models import EncDecRNNTBPEModel

        model = EncDecRNNTBPEModel.restore_from(str(checkpoint), map_location="cpu")
    model.freeze()
    theirs, own = model.state_dict(), ours.state_dict()
    assert theirs.keys() == own.keys()
    assert all(bool((theirs[key] == own[key]).all()) for key in theirs)
    ours.joint.vocabulary = model.joint.vocabulary
    for part in PART_NAMES:
        setattr(model, part, getattr(ours, part))
    return model
