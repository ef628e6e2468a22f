from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.layout import copy_net, require_precision
from lstm_networks import LstmNetworks


def test_int8_layers_are_where_the_name_says_so_and_nowhere_else(lstm: LstmNetworks) -> None:
    require_precision(lstm.converted("joint"), int8=False)
    require_precision(lstm.converted("joint", fp16=True), int8=False)
    require_precision(lstm.quantised("joint"), int8=True)
    with pytest.raises(StepError, match=r"^joint\.ncnn\.param: has no int8 layers, where an int8 network belongs\n"):
        require_precision(lstm.converted("joint"), int8=True)
    with pytest.raises(StepError, match=r"^encoder\.ncnn\.param: has 10 int8 layers, where a float network belongs\n"):
        require_precision(lstm.quantised("encoder"), int8=False)


def test_a_network_is_copied_under_the_name_of_the_layout(lstm: LstmNetworks, tmp_path: Path) -> None:
    copy_net(lstm.converted("joint"), tmp_path, "joiner.ncnn", int8=False)
    copy_net(lstm.quantised("joint"), tmp_path, "joiner.ncnn", int8=True)
    for source, name in ((lstm.converted("joint"), "joiner.ncnn"), (lstm.quantised("joint"), "joiner.ncnn.int8")):
        for end in ("param", "bin"):
            assert (tmp_path / f"{name}.{end}").read_bytes() == (source / f"joint.ncnn.{end}").read_bytes()
    with pytest.raises(StepError, match="where an int8 network belongs"):
        copy_net(lstm.converted("joint"), tmp_path, "other", int8=True)
    assert len(list(tmp_path.iterdir())) == 4
