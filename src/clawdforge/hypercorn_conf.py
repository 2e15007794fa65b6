"""Settings for ``hypercorn -k trio -c python:clawdforge.hypercorn_conf clawdforge.asgi:app``.

Every public name in here becomes a setting of Hypercorn's. One worker: the actors live in it.
"""

import os as _os

from clawdforge import errors as _errors
from clawdforge import settings as _settings
from clawdforge import worker_exit as _worker_exit

try:
    _config = _settings.load_config(_os.environ)
except _errors.ClawdforgeError as _error:
    raise SystemExit(f"clawdforge: {_error}") from None

_worker_exit.keep_exit_code()

bind = [_config.bind]
worker_class = "trio"
workers = 1
graceful_timeout = _config.drain_secs
startup_timeout = 600
shutdown_timeout = _config.drain_secs + _config.cancel_grace_secs + 60
keep_alive_timeout = 75
h11_max_incomplete_size = 32 * 1024
include_server_header = False

del _config
