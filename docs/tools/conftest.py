"""What pytest leaves out of this folder."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("griffe") else ["griffe_examples.py"]  # the extra [docs]
