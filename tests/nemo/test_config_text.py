from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from artifacts.errors import StepError
from artifacts.nemo.archive import open_archive
from artifacts.nemo.config_text import parse
from artifacts.nemo.model_config import read_config
from faults.hostile_archives import config_texts
from faults.hostile_checkpoints import CONFIG, Case, unpack

SCALARS = """
a: [1e-5, 1.0e-05, 1e5, 1.5e3, 1.5e+3, .5, -.5, .5e3, 12., +1e5, .inf, -.inf, 1_000, 0x1f, 010, 0b11, 0o7, 1:30]
b: [2020-01-01, yes, no, on, off, true, ~, null, '', '1', 'on', "\\u2581the", ▁, '=', '<<', -, a b]
c: {d: {}, e: [], f: text, 1: 2}
"""


def test_values_are_those_that_omegaconf_reads(tiny_checkpoint: Path) -> None:
    from omegaconf import OmegaConf

    texts = [unpack(path)[CONFIG].decode() for path in tiny_checkpoint.parents[1].glob("*/*.nemo")]
    assert len(texts) == 2
    for text in (SCALARS, *texts):
        assert parse(text) == OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize("case", list(config_texts()), ids=lambda case: case.name)
def test_a_text_that_is_not_plain_values_is_refused(case: Case, tmp_path: Path, tiny_checkpoint: Path) -> None:
    case.build(tiny_checkpoint, tmp_path / "h.nemo", tmp_path)
    with open_archive(tmp_path / "h.nemo") as archive, pytest.raises(StepError) as raised:
        read_config(archive)
    assert case.told in raised.value.fact
    assert raised.value.fact.isprintable()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "text",
    ["a: !!int x", "a: !!float [1]", "a: !!bool x", "a: !!int ''", "a: 0x_", "!!set {a}", "!!omap [a: 1]", "a: ="],
)
def test_a_tag_that_does_not_fit_is_an_error_of_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse(text)
