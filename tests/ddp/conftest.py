import sys
from pathlib import Path

# `from tests.ddp.processes import …` must work under plain `pytest` as under `python -m pytest`.
ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
