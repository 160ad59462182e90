"""How a run is asked to stop: by a signal, which is answered at once even while TensorFlow computes."""

import os
import signal
import sys
import threading
import time
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
ANSWER = "stops and saves when this step is done; again to stop without saving"
GRACE = 0.7  # s after the first signal; others until then count as the same, which a terminal and a parent process both send


class StopSignals:
    """Within this context, SIGINT, SIGTERM and SIGHUP only append themselves to `received`. A second one ends the process.

    Python calls its handlers between two of its own instructions, and a training step is a single one. So a thread answers,
    which gets the signals by a pipe. A signal that is ignored, as nohup does with SIGHUP, stays ignored.
    """

    def __init__(self) -> None:
        self.received: list[int] = []

    def __enter__(self) -> "StopSignals":
        known = [signum for name in NAMES if (signum := getattr(signal, name, None)) is not None]
        self._old = {s: handler for s in known if (handler := signal.getsignal(s)) is not signal.SIG_IGN}
        for signum in self._old:
            signal.signal(signum, lambda signum, frame: self.received.append(signum))
        self._read, self._write = os.pipe()
        if os.name != "nt":
            os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._write)  # which ends the thread
        self._thread.join()
        os.close(self._read)
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _listen(self) -> None:
        first = None
        while byte := os.read(self._read, 1):
            signum = byte[0]
            if signum not in self._old:
                continue
            if first is None:
                first = time.monotonic()
                print(f"\n{ANSWER}", file=sys.stderr, flush=True)
            elif time.monotonic() - first > GRACE:
                print("stopped without saving", file=sys.stderr, flush=True)
                os._exit(128 + signum)
