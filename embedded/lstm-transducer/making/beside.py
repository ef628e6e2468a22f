"""Make importable what these programs share with `embedded/tiny/making` (sentences, speech, noise, loss) and the tests.

Of the tests, `evaluate.py` uses the networks run by torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[2]
TINY = RECIPES / "tiny"
# Behind our own modules.
sys.path += [str(TINY / "making"), str(RECIPES.parent / "tests" / "support")]
