from __future__ import annotations

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.precision import require_form
from lstm_networks import LstmNetworks


def test_int8_layers_are_where_the_name_says_so_and_nowhere_else(lstm: LstmNetworks) -> None:
    require_form(lstm.converted("joint"), int8=False)
    require_form(lstm.converted("joint", fp16=True), int8=False)
    require_form(lstm.quantised("joint"), int8=True)
    with pytest.raises(StepError, match=r"^joint\.ncnn\.param: has no int8 layers, where an int8 network belongs\n"):
        require_form(lstm.converted("joint"), int8=True)
    with pytest.raises(StepError, match=r"^encoder\.ncnn\.param: has 10 int8 layers, where a float network belongs\n"):
        require_form(lstm.quantised("encoder"), int8=False)
