"""What compiling costs, and how to pay for it once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import monitoring

from rvis import files, gate


class Compiled(NamedTuple):
    """Programs that XLA made for this process, or read from the cache, and the seconds it took."""

    programs: int = 0
    seconds: float = 0.0


_lock = threading.Lock()
_total = _NONE = Compiled()
# JAX tells of programs to those who listen in its process, so that there is one count of them.


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    global _total
    if event == "/jax/core/compile/backend_compile_duration":
        with _lock:
            _total = Compiled(_total.programs + 1, _total.seconds + duration_secs)


monitoring.register_event_duration_secs_listener(_listen)


def compiled(since: Compiled = _NONE) -> Compiled:
    """What was compiled in this process since an earlier call told how much it was.

    Example:
      >>> import jax
      >>> from rvis import engine
      >>> before = engine.compiled()
      >>> three = jax.jit(lambda x: 3 * x)(1.0)
      >>> engine.compiled(before).programs >= 1
      True
    """
    return Compiled(_total.programs - since.programs, _total.seconds - since.seconds)


@gate.public
def keep_programs(folder: files.PathLike | None = None) -> Path:
    """Keeps compiled programs in a folder, from which later processes read them.

    Where `JAX_COMPILATION_CACHE_DIR` or `jax.config` names a folder already, that one stays.

    Args:
      folder: by default `programs` in rvis's folder of the user's cache.

    Returns:
      The folder.

    Example:
      >>> import rvis
      >>> rvis.keep_programs().is_absolute()
      True
    """
    named = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if named is None:
        default = files.cache() / "programs"
        named = str(default if folder is None else files.as_path("folder", folder))
        jax.config.update("jax_compilation_cache_dir", named)
        # Many small programs make up the start.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return Path(named).absolute()
