"""The template is tested here without being installed."""

import sys
from pathlib import Path

# Last, so that a copy with a seeded bug comes first.
sys.path.append(str(Path(__file__).parent / "src"))
