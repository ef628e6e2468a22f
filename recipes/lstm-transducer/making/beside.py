"""Makes the modules of `recipes/tiny/making` importable: sentences, speech, noise and loss are the same."""

from __future__ import annotations

import sys
from pathlib import Path

TINY = Path(__file__).resolve().parents[2] / "tiny"
sys.path.append(str(TINY / "making"))  # behind our own modules
