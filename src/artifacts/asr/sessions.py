"""ONNX Runtime sessions for measurements: the same file on the same machine gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from artifacts.errors import StepError

MAX_REASON_CHARACTERS = 300


def open_session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model on the CPU with `threads` threads within an operator and one operator at a time.

    What else is fixed: all graph optimisations (what consumers run by default), deterministic kernels, no spinning
    (idle threads would take the cores of the targets that are built at the same time). The number of threads is part
    of a measurement: it may decide how a sum is split, and so the last bits of it.

    Raises StepError, quoting ONNX Runtime shortly, if the model does not load.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with runtime_errors(f"{model.name}: ONNX Runtime does not load it", "build the model again, or mend its types"):
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@contextmanager
def runtime_errors(fact: str, fix: str) -> Iterator[None]:
    """Turn ONNX Runtime's errors into a StepError that quotes them shortly, in one line: they may hold a graph."""
    try:
        yield
    except Exception as error:
        # Its classes share no base and are not exported: the module that they come from tells them.
        if not type(error).__module__.startswith("onnxruntime."):
            raise
        reason = " ".join(str(error).split())
        if len(reason) > MAX_REASON_CHARACTERS:
            reason = reason[:MAX_REASON_CHARACTERS] + "…"
        raise StepError(f"{fact}: {reason}", fix) from error


def require_values(
    session: onnxruntime.InferenceSession, model: Path, inputs: Iterable[str], outputs: Iterable[str]
) -> None:
    """Raise StepError unless the model has exactly these inputs, and these outputs among its own."""
    for kind, wanted, found in (
        ("inputs", set(inputs), {value.name for value in session.get_inputs()}),
        ("outputs", set(outputs), {value.name for value in session.get_outputs()}),
    ):
        if not wanted <= found or (kind == "inputs" and wanted != found):
            raise StepError(
                f"{model.name}: has the {kind} {', '.join(sorted(found))}; needs {', '.join(sorted(wanted))}",
                "give the artifact that the step's input is named for",
            )
