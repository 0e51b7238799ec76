"""SIGHUP: what `bursar reload` does, by the same command. A process beside the officer reads and checks the file, and asks as anybody would."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime

RELOAD_S = 30.0
"""A file that cannot be read in this time (on a dead disk, say) is given up; the policy before it stays."""

log = logging.getLogger("bursar.officer")


class Reloading:
    """One reload at a time; a signal that comes meanwhile is followed by one more, for the file may have changed since."""

    def __init__(self, config: str | None, failed: Callable[[str], None]) -> None:
        """*config*: the file that the officer was started with, None for the usual places; *failed* is told why nothing was changed."""
        self._command = [sys.executable, "-m", "bursar.cli.entry", "reload", *(("--config", config) if config else ())]
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def ask(self) -> None:
        """Reload soon. For a signal handler of the loop."""
        if self._task is not None and not self._task.done():
            self._again = True
        else:
            self._task = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            said = await asyncio.to_thread(self._run)
            if said is None:
                log.info("reloaded because of SIGHUP")
            else:
                log.error("not reloaded, the policy before stays in force reason=%s", said)
                self._failed(f"not reloaded at {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}, the policy before stays in force: {said}")

    def _run(self) -> str | None:
        """Why nothing was changed; None when the officer took the policy."""
        try:
            done = subprocess.run(self._command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=RELOAD_S, cwd="/", start_new_session=True)
        except (OSError, subprocess.TimeoutExpired) as problem:
            return str(problem)
        if done.returncode == 0:
            return None
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return lines[-1].removeprefix("bursar: error: ").removeprefix("bursar: refused: ")
