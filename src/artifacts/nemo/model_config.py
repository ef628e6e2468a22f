"""What a checkpoint's configuration says about the model, held to what the exports can do.

Supported is what Parakeet-TDT is: an EncDecRNNTBPEModel whose joint predicts token and duration (TDT, Xu et al. 2023,
arXiv 2304.06795) with a SentencePiece BPE tokenizer; and the same without durations (RNN-T, Graves 2012, arXiv
1211.3711), as streaming checkpoints mostly are.
"""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.errors import StepError
from artifacts.nemo.archive import CONFIG, Archive

SUPPORTED = "EncDecRNNTBPEModel"

_NOT_THIS_MODEL = f"give a checkpoint of an {SUPPORTED} with TDT durations, such as Parakeet-TDT"


class _Section(BaseModel):
    """A part of the file. It may say more than is read here; a default is NeMo's own."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Tokenizer(_Section):
    """The SentencePiece model, one of the archive's members."""

    type: Literal["bpe"]
    model_path: str = Field(pattern=r"^nemo:.")

    @property
    def member(self) -> str:
        """The archive member that holds the SentencePiece model."""
        return self.model_path.removeprefix("nemo:")


class Preprocessor(_Section):
    """How features are made. Window and hop are given in seconds, or else in samples."""

    target: str = Field(alias="_target_", pattern=r"\.AudioToMelSpectrogramPreprocessor$")
    sample_rate: int = 16_000
    window_size: float | None = 0.02
    window_stride: float | None = 0.01
    n_window_size: int | None = None
    n_window_stride: int | None = None
    n_fft: int | None = None
    features: int = 64
    normalize: str | dict[str, Any] | None = "per_feature"

    @property
    def window_samples(self) -> int:
        return int(self.window_size * self.sample_rate) if self.window_size else self.n_window_size or 0

    @property
    def hop_samples(self) -> int:
        return int(self.window_stride * self.sample_rate) if self.window_stride else self.n_window_stride or 0

    @property
    def fft_samples(self) -> int:
        """Length of the Fourier transform: as given, else the window rounded up to a power of two."""
        return self.n_fft or 1 << (self.window_samples - 1).bit_length()


class Encoder(_Section):
    """Sizes of the FastConformer."""

    target: str = Field(alias="_target_", pattern=r"\.ConformerEncoder$")
    d_model: int
    subsampling_factor: int = 4
    pos_emb_max_len: int = 5000


class Prednet(_Section):
    """Sizes of the LSTM: its states are [pred_rnn_layers, B, pred_hidden]."""

    pred_hidden: int
    pred_rnn_layers: int


class Decoder(_Section):
    """The predictor. `vocab_size` leaves blank out; with `blank_as_pad` false blank has no embedding to start from."""

    target: str = Field(alias="_target_", pattern=r"\.RNNTDecoder$")
    blank_as_pad: Literal[True] = True
    vocab_size: int
    prednet: Prednet


class Joint(_Section):
    """`num_extra_outputs`: one for each duration."""

    target: str = Field(alias="_target_", pattern=r"\.RNNTJoint$")
    num_extra_outputs: int = 0


class Greedy(_Section):
    """`max_symbols`: the most tokens on one frame."""

    max_symbols: int | None = None


class Decoding(_Section):
    """`durations`: the encoder frames that each duration class stands for; none for a plain RNN-T."""

    durations: tuple[int, ...] = ()
    greedy: Greedy = Greedy()


class ModelConfig(_Section):
    """The parts of `model_config.yaml` that are read without restoring the model."""

    tokenizer: Tokenizer
    preprocessor: Preprocessor
    encoder: Encoder
    decoder: Decoder
    joint: Joint
    decoding: Decoding

    @property
    def blank_id(self) -> int:
        """Blank comes after the V tokens, so its id is V."""
        return self.decoder.vocab_size

    @property
    def joint_width(self) -> int:
        """Logits of the joint: V tokens, blank, then one for each duration."""
        return self.decoder.vocab_size + 1 + self.joint.num_extra_outputs


def read_config(archive: Archive) -> ModelConfig:
    """Read and check the configuration. Raises StepError for another kind of model, or naming a key that is wrong."""
    try:
        raw: Any = yaml.safe_load(archive.read(CONFIG))
    except yaml.YAMLError as error:
        raise StepError(f"{archive.name}: {CONFIG} is not YAML: {error}", _NOT_THIS_MODEL) from None
    found = str(raw.get("target", "no class")) if isinstance(raw, dict) else "no class"
    if found.rpartition(".")[2] != SUPPORTED:
        raise StepError(f"{archive.name}: holds '{found}', and only {SUPPORTED} is supported", _NOT_THIS_MODEL)
    try:
        config = ModelConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StepError(
            f"{archive.name}: {CONFIG}: {key}: {first['msg'].lower()}, got {first['input']!r}", _NOT_THIS_MODEL
        ) from None
    durations, outputs = len(config.decoding.durations), config.joint.num_extra_outputs
    if durations != outputs:
        raise StepError(
            f"{archive.name}: {CONFIG}: decoding.durations: {durations} values, joint.num_extra_outputs: {outputs},"
            " so this is neither a TDT model nor a plain RNN-T",
            _NOT_THIS_MODEL,
        )
    return config
