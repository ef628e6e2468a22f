from __future__ import annotations

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.precision import hold_to_name
from lstm_networks import LstmNetworks


def test_int8_layers_are_where_the_name_says_so_and_nowhere_else(lstm: LstmNetworks) -> None:
    hold_to_name("joint", lstm.converted("joint"))
    hold_to_name("joint", lstm.converted("joint", fp16=True))
    hold_to_name("joint_int8", lstm.quantised("joint"))
    with pytest.raises(StepError, match=r"^joint_int8: 'joint\.ncnn\.param' has no int8 layers\n"):
        hold_to_name("joint_int8", lstm.converted("joint"))
    with pytest.raises(StepError, match=r"^encoder: 'encoder\.ncnn\.param' has 10 int8 layers\n"):
        hold_to_name("encoder", lstm.quantised("encoder"))
