"""The child's side of a small worker, which loads nothing heavy."""

from __future__ import annotations

import json
import os
import time

from artifacts.errors import StepError
from artifacts.runtime.child_process import Answer


def serve(*words: str) -> Answer:
    """Answer with the words and the request; "print", "fail", "hang" and "die" are orders."""
    if words[0] == "no model":
        raise StepError("no model: is damaged", "copy it again")

    def answer(request: bytes) -> bytes:
        if request == b"print":
            print("a library's output", flush=True)
            os.write(1, b"and more of it\n")
        if request == b"fail":
            raise StepError("no blob 'x'", "its inputs are in0")
        if request == b"hang":
            time.sleep(60)
        if request == b"die":
            os.write(2, b"segmentation fault in layer conv_1\n")
            os.abort()
        return json.dumps([*words, request.decode()]).encode()

    return answer
