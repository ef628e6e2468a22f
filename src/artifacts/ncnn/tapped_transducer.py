"""A FastConformer-TDT over ncnn whose encoder and joint measure what their quantisable layers read."""

from __future__ import annotations

from pathlib import Path

from artifacts.ncnn.runtime import find_net
from artifacts.ncnn.tapped_net import TappedNet
from artifacts.ncnn.transducer import Encoder, Transducer


class TappedEncoder(Encoder):
    """`Encoder` on a `TappedNet`, which is `tapped`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, threads=1)
        del self._net  # its weights' memory
        self.tapped = TappedNet(*find_net(folder))
        self._net = self.tapped


class TappedTransducer(Transducer):
    """`Transducer` whose joint is a `TappedNet`, which is `tapped`."""

    def __init__(self, predictor: Path, joint: Path, blank_id: int) -> None:
        super().__init__(predictor, joint, threads=1, blank_id=blank_id)
        self.tapped = TappedNet(*find_net(joint))
        self._joint = self.tapped
