"""Statistics of models on half a minute of real speech, and models that were smoothed with them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from artifacts.steps import calibrate_activations, smooth_activations

RECORDINGS = 10


class Speech:
    """Calibrate on the first recordings of a corpus; a model is measured once."""

    def __init__(self, preprocessor: Path, corpus: Path, folder: Path) -> None:
        self._inputs = {"preprocessor": preprocessor, "corpus": folder / "corpus"}
        self._folder = folder
        (folder / "corpus" / "clips").mkdir(parents=True)
        lines = (corpus / "utterances.jsonl").read_text().splitlines()[:RECORDINGS]
        (folder / "corpus" / "utterances.jsonl").write_text("\n".join(lines) + "\n")
        for line in lines:
            clip = json.loads(line)["audio_filepath"]
            shutil.copyfile(corpus / clip, folder / "corpus" / clip)

    def statistics(self, model: Path) -> Path:
        """The folder of the model's statistics."""
        out = self._folder / hashlib.sha256(str(model).encode()).hexdigest()
        if not out.exists():
            out.mkdir()
            params = calibrate_activations.Params(min_seconds=20, long_seconds=None)
            calibrate_activations.run(out, params, model=model, **self._inputs)
        return out

    def smoothed(self, model: Path, out: Path) -> tuple[Path, Path]:
        """The smoothed model, written to `out`, and its statistics."""
        out.mkdir(exist_ok=True)
        smooth_activations.run(out, smooth_activations.Params(), model=model, statistics=self.statistics(model))
        return out, self.statistics(out)
