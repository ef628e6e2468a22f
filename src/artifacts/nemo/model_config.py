"""Read and check the configuration of a checkpoint: models that the exports support, of sizes within bounds.

Supported are models like Parakeet-TDT: an EncDecRNNTBPEModel whose joint predicts token and duration (TDT, Xu et al.
2023, arXiv 2304.06795), with a SentencePiece BPE tokenizer; and the same without durations (RNN-T, Graves 2012, arXiv
1211.3711), as most streaming checkpoints are.

The bounds are several times the sizes of any published checkpoint. They keep a small file from describing a large
network.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from artifacts.errors import StepError
from artifacts.nemo.archive import CONFIG, Archive
from artifacts.nemo.classes import unknown_class
from artifacts.untrusted.bounded_yaml import YamlBoundError, load_plain
from artifacts.validation_errors import first_mistake

SUPPORTED = "EncDecRNNTBPEModel"
PART_NAMES = ("preprocessor", "encoder", "decoder", "joint")
MAX_FFT_SAMPLES = 4096
# Elements of the table of positions. Parakeet has 5000 * 1024.
MAX_POSITION_VALUES = 20_480_000
MAX_NUMBER = 1_000_000
# Parakeet's 8192 tokens take 200 KB, and nothing is deeper than 4.
MAX_BYTES = 1_000_000
MAX_DEPTH = 20

_NOT_THIS_MODEL = f"give a checkpoint of an {SUPPORTED} with TDT durations, such as Parakeet-TDT"
_TRUST = "give a checkpoint of a sender you trust, or write trust: true beside its source if you trust this one"

Width = Annotated[int, Field(ge=1, le=8192)]
Context = Annotated[int, Field(ge=-1, le=10_000)]
Past = Annotated[int, Field(ge=0, le=1022)]


class _Section(BaseModel):
    """A section of the file. Keys that are not read here are ignored; a default is NeMo's own."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Part(_Section):
    """A section whose values are the arguments of a class of NeMo's, which makes a module of the model."""

    model_config = ConfigDict(extra="allow")

    @property
    def arguments(self) -> dict[str, Any]:
        """The section's values as the file has them, `_target_` included."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class TokenizerConfig(_Section):
    """The SentencePiece model, one of the archive's members."""

    type: Literal["bpe"]
    model_path: str = Field(pattern=r"^nemo:.")

    @property
    def member(self) -> str:
        """Name of the archive member with the SentencePiece model."""
        return self.model_path.removeprefix("nemo:")


class PreprocessorConfig(_Part):
    """Settings of the features. Window and hop are given in seconds, or else in samples."""

    target: str = Field(alias="_target_", pattern=r"\.AudioToMelSpectrogramPreprocessor$")
    sample_rate: int = Field(16_000, ge=1000, le=192_000)
    window_size: float | None = Field(0.02, ge=0, le=1)
    window_stride: float | None = Field(0.01, ge=0, le=1)
    n_window_size: int | None = Field(None, ge=0, le=MAX_FFT_SAMPLES)
    n_window_stride: int | None = Field(None, ge=0, le=MAX_FFT_SAMPLES)
    n_fft: int | None = Field(None, ge=0, le=MAX_FFT_SAMPLES)
    features: int = Field(64, ge=1, le=1024)
    pad_to: int = Field(16, ge=0, le=MAX_FFT_SAMPLES)
    window: Literal["hann", "hamming", "blackman", "bartlett"] = "hann"
    normalize: str | dict[str, Any] | None = "per_feature"
    preemph: float | None = Field(0.97, ge=-1, le=1)
    lowfreq: float = Field(0, ge=0, le=96_000)
    highfreq: float | None = Field(None, ge=0, le=96_000)
    log: bool = True
    log_zero_guard_value: float | Literal["tiny", "eps"] = 2**-24
    dither: float = Field(1e-5, ge=0, le=1)
    frame_splicing: int = Field(1, ge=1, le=100)
    exact_pad: bool = False
    pad_value: float = 0
    mag_power: float = Field(2.0, gt=0, le=10)

    @property
    def window_samples(self) -> int:
        """Length of the window."""
        return int(self.window_size * self.sample_rate) if self.window_size else self.n_window_size or 0

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return int(self.window_stride * self.sample_rate) if self.window_stride else self.n_window_stride or 0

    @property
    def fft_samples(self) -> int:
        """Length of the Fourier transform: `n_fft`, else the window rounded up to a power of two."""
        return self.n_fft or 1 << (self.window_samples - 1).bit_length()

    @model_validator(mode="after")
    def _window_and_hop_have_samples(self) -> PreprocessorConfig:
        for name, samples in (("window", self.window_samples), ("hop", self.hop_samples)):
            if not 1 <= samples <= MAX_FFT_SAMPLES:
                raise ValueError(f"the {name} must have 1 to {MAX_FFT_SAMPLES} samples, got {samples}")
        return self


class EncoderConfig(_Part):
    """Sizes of the FastConformer."""

    target: str = Field(alias="_target_", pattern=r"\.ConformerEncoder$")
    feat_in: int = Field(ge=1, le=1024)
    feat_out: int = Field(-1, ge=-1, le=8192)
    n_layers: int = Field(ge=1, le=200)
    d_model: Width
    n_heads: int = Field(4, ge=1, le=256)
    ff_expansion_factor: int = Field(4, ge=1, le=32)
    conv_kernel_size: int = Field(31, ge=1, le=1023)
    subsampling_factor: int = Field(4, ge=1, le=32)
    subsampling_conv_channels: int = Field(-1, ge=-1, le=4096)
    reduction_factor: int = Field(1, ge=1, le=32)
    causal_downsampling: bool = False
    att_context_size: list[Context] | list[list[Context]] | None = Field(None, max_length=64)
    conv_context_size: list[Past] | str | None = None
    pos_emb_max_len: int = Field(5000, ge=1, le=100_000)

    @property
    def width(self) -> int:
        """Size of an encoder frame."""
        return self.feat_out if self.feat_out > 0 else self.d_model

    @model_validator(mode="after")
    def _sizes_agree(self) -> EncoderConfig:
        if self.d_model % self.n_heads or self.d_model % 2:
            raise ValueError(f"d_model must be even and a multiple of n_heads, got {self.d_model} and {self.n_heads}")
        if self.subsampling_factor.bit_count() != 1:
            raise ValueError(f"subsampling_factor must be a power of two, got {self.subsampling_factor}")
        if self.d_model * self.pos_emb_max_len > MAX_POSITION_VALUES:
            raise ValueError(f"d_model * pos_emb_max_len must be at most {MAX_POSITION_VALUES}")
        return self


class PrednetConfig(_Part):
    """Sizes of the LSTM: its states are [pred_rnn_layers, B, pred_hidden]."""

    pred_hidden: Width
    pred_rnn_layers: int = Field(ge=1, le=16)


class DecoderConfig(_Part):
    """The predictor. `vocab_size` leaves blank out; with `blank_as_pad` false blank has no embedding to start from."""

    target: str = Field(alias="_target_", pattern=r"\.RNNTDecoder$")
    blank_as_pad: Literal[True] = True
    vocab_size: int = Field(ge=1, le=200_000)
    prednet: PrednetConfig


class JointnetConfig(_Part):
    """Sizes of the joint's two inputs and of its hidden layer."""

    encoder_hidden: Width
    pred_hidden: Width
    joint_hidden: Width


class JointConfig(_Part):
    """`num_extra_outputs`: one for each duration."""

    target: str = Field(alias="_target_", pattern=r"\.RNNTJoint$")
    num_extra_outputs: int = Field(0, ge=0, le=64)
    jointnet: JointnetConfig


class GreedyConfig(_Section):
    """`max_symbols`: the most tokens on one frame."""

    max_symbols: int | None = Field(None, ge=1, le=10_000)


class DecodingConfig(_Section):
    """`durations`: the encoder frames that each duration class stands for; none for a plain RNN-T."""

    durations: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = Field((), strict=False)
    greedy: GreedyConfig = GreedyConfig(max_symbols=None)


class ModelConfig(_Section):
    """The sections of `model_config.yaml` that are read."""

    tokenizer: TokenizerConfig
    preprocessor: PreprocessorConfig
    encoder: EncoderConfig
    decoder: DecoderConfig
    joint: JointConfig
    decoding: DecodingConfig

    @property
    def blank_id(self) -> int:
        """Blank comes after the V tokens, so its id is V."""
        return self.decoder.vocab_size

    @property
    def joint_width(self) -> int:
        """Logits of the joint: V tokens, blank, then one for each duration."""
        return self.decoder.vocab_size + 1 + self.joint.num_extra_outputs

    def arguments(self, part: str) -> dict[str, Any]:
        """Return the arguments of the class of one of PART_NAMES, `_target_` included, without those of training."""
        arguments: dict[str, Any] = getattr(self, part).arguments
        if part == "joint":
            arguments.pop("vocabulary", None)
            arguments.pop("experimental_fuse_loss_wer", None)
            arguments |= {"num_classes": self.decoder.vocab_size, "fuse_loss_wer": False}
        return arguments


def read_config(archive: Archive) -> ModelConfig:
    """Read and check the configuration. Raises StepError for another kind of model, or with a key that is wrong.

    A class that is not on the list is refused anywhere in the file, unless the recipe trusts the checkpoint.
    """
    location = f"{archive.name}: {CONFIG}"
    raw = _parsed(archive.read(CONFIG, MAX_BYTES), location)
    model = str(raw.get("target", "no class")) if isinstance(raw, dict) else "no class"
    if model.rpartition(".")[2] != SUPPORTED:
        raise StepError(f"{archive.name}: contains {model!r:.80}, only {SUPPORTED} is supported", _NOT_THIS_MODEL)
    try:
        config = ModelConfig.model_validate(raw)
    except ValidationError as error:
        raise StepError(f"{location}: {first_mistake(error)}", _NOT_THIS_MODEL) from None
    if not archive.trusted and (unknown := unknown_class(raw)) is not None:
        path, name = unknown
        raise StepError(f"{location}: {path[:200]}: {name!r:.80} is not a class that such a checkpoint needs", _TRUST)
    _check_sizes(config, location)
    for part in PART_NAMES:
        _check_plain(config.arguments(part), f"{location}: {part}")
    return config


def _parsed(content: bytes, location: str) -> Any:
    try:
        return load_plain(content.decode(), max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StepError(f"{location} is not YAML: {reason:.200}", _NOT_THIS_MODEL) from None
    except YamlBoundError as error:
        raise StepError(f"{location}: {error}", _NOT_THIS_MODEL) from None


def _check_sizes(config: ModelConfig, location: str) -> None:
    durations, outputs = len(config.decoding.durations), config.joint.num_extra_outputs
    if durations != outputs:
        raise StepError(
            f"{location}: decoding.durations: must have as many values as joint.num_extra_outputs says, {outputs},"
            f" got {durations}",
            _NOT_THIS_MODEL,
        )
    jointnet = config.joint.jointnet
    for key, size, other, wanted in (
        ("encoder.feat_in", config.encoder.feat_in, "preprocessor.features", config.preprocessor.features),
        ("joint.jointnet.encoder_hidden", jointnet.encoder_hidden, "the encoder's width", config.encoder.width),
        ("joint.jointnet.pred_hidden", jointnet.pred_hidden, "pred_hidden", config.decoder.prednet.pred_hidden),
    ):
        if size != wanted:
            raise StepError(f"{location}: {key}: must be {other}, {wanted}, got {size}", _NOT_THIS_MODEL)


def _check_plain(value: Any, location: str) -> None:
    """Refuse a value that is not a plain setting: OmegaConf resolves `${…}`, and no setting of these is large."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_plain(inner, f"{location}.{key!s:.80}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{location}.{index}")
    elif isinstance(value, str) and "${" in value:
        raise StepError(f"{location}: {value!r:.80} is an interpolation, and NeMo writes none", _NOT_THIS_MODEL)
    elif isinstance(value, (int, float)) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise StepError(f"{location}: must be a number within {MAX_NUMBER}, got {value!r:.80}", _NOT_THIS_MODEL)
