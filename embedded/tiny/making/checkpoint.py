"""Write a model as a .nemo file that names no folder, date or user, and is the same bytes for the same weights."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from nemo.collections.asr.models import EncDecRNNTBPEModel

CONFIG = "model_config.yaml"


def save(model: EncDecRNNTBPEModel, path: Path) -> None:
    """Save with NeMo, then pack again: NeMo writes a random id before each file's name, and paths into the yaml."""
    with tempfile.TemporaryDirectory() as folder:
        nemo_file = Path(folder) / "model.nemo"
        model.save_to(str(nemo_file))
        with tarfile.open(nemo_file) as archive:
            files = {
                _plain(member.name): archive.extractfile(member).read()  # type: ignore[union-attr]  # isfile() below
                for member in archive.getmembers()
                if member.isfile()
            }
    config = yaml.safe_load(files[CONFIG])
    config["tokenizer"] = {
        "dir": None,
        "type": "bpe",
        "model_path": "nemo:tokenizer.model",
        "vocab_path": "nemo:vocab.txt",
        "spe_tokenizer_vocab": "nemo:tokenizer.vocab",
    }
    files[CONFIG] = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()
    part = path.with_name(f"{path.name}.part")
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(files[name])
            archive.addfile(entry, io.BytesIO(files[name]))
    part.replace(path)


def _plain(member_name: str) -> str:
    """`./<id>_tokenizer.model` -> `tokenizer.model`; NeMo's own two names stay as they are."""
    name = member_name.removeprefix("./")
    return name if name.startswith("model_") else name.split("_", 1)[1]
