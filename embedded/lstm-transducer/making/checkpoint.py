"""Write a model as icefall does for inference, `{"model": state_dict}`, with its configuration beside it."""

from __future__ import annotations

import io
from pathlib import Path

import torch
import yaml

from artifacts.icefall.lstm_transducer import LstmTransducer


def save(model: LstmTransducer, folder: Path) -> None:
    """Write `pretrained.pt` and `config.yaml`; the same bytes for the same weights, wherever the folder is."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().clone() for name, value in model.state_dict().items() if not name.startswith("head")
    }
    buffer = io.BytesIO()  # not a file: torch would write its name into the archive
    torch.save({"model": weights}, buffer)
    part = folder / "pretrained.pt.part"
    part.write_bytes(buffer.getvalue())
    part.replace(folder / "pretrained.pt")
    text = yaml.safe_dump(model.config.model_dump(), sort_keys=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
