"""Params of the steps that export a network as ONNX: the opset, and axes that vary or are fixed."""

from __future__ import annotations

from pydantic import Field, model_validator

from artifacts.params import StepParams


class ExportParams(StepParams):
    """The opset, and axes that vary or are fixed."""

    opset: int = Field(17, ge=17, le=20)
    """Version of ONNX's operators: 17 is the first with LayerNormalization, 20 the last that the exporter knows."""
    dynamic_axes: bool = True
    """Whether sizes vary. If not, the graph is for inputs of one size: give `batch_size` and the sizes below it."""
    batch_size: int | None = Field(None, ge=1)
    """Inputs of a batch, if the axes are fixed."""

    @model_validator(mode="after")
    def _sizes_go_with_fixed_axes(self) -> ExportParams:
        names = ["batch_size", *self._added()]
        if any(self.dynamic_axes != (getattr(self, name) is None) for name in names):
            raise ValueError(f"dynamic_axes: false needs {' and '.join(names)}, and nothing else does")
        return self

    @property
    def fixed_sizes(self) -> dict[str, int] | None:
        """The size of each axis, by the network's name for it; None if axes vary."""
        if self.batch_size is None:
            return None
        return {"batch": self.batch_size, **{name: getattr(self, name) for name in self._added()}}

    @classmethod
    def _added(cls) -> list[str]:
        """Return the names of the sizes that a step adds."""
        return [name for name in cls.model_fields if name not in ExportParams.model_fields]
