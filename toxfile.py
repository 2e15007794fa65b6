"""tox looks in here before it starts: let it find the interpreters that pyenv keeps off the PATH.

None of them is required: an environment whose interpreter is missing is skipped, and named.
"""

from __future__ import annotations

import os
from pathlib import Path

_root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
_kept = sorted(str(folder) for folder in _root.glob("versions/*/bin"))
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *_kept])
