"""What the machine was doing: processor, memory, disk, network and GPU memory, sampled by a thread.

The names are those that MLflow groups on its "System metrics" page.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping

_MEGABYTE = 1e6

logger = logging.getLogger(__name__)


class SystemMetrics:
    """Samples until it is stopped, and once more then, so that a short run has a value too.

    Args:
        log: Called with the numbers and the number of the sample, ``Tracker.metrics``.
        every: Seconds between samples.
    """

    def __init__(self, log: Callable[[Mapping[str, float], int], None], every: float = 10.0) -> None:
        self._log = log
        self._every = every
        self._samples = 0
        self._sampler = Sampler()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nfbmr-system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            stopped = self._stopped.wait(self._every)
            try:
                self._log(self._sampler.sample(), self._samples)
            except Exception as error:
                # The training thread will report a full disk; these numbers are not worth a second report.
                logger.debug("no sample of the system metrics: %s", error)
            self._samples += 1
            if stopped:
                return


class Sampler:
    """Reads the machine's counters; rates and totals count from when it was made."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._disk = psutil.disk_io_counters()
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()
        self._process.cpu_percent()

    def sample(self) -> dict[str, float]:
        """One reading, sizes in megabytes, shares in percent."""
        psutil = self._psutil
        memory = psutil.virtual_memory()
        numbers = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "process_cpu_utilization_percentage": self._process.cpu_percent(),
            "process_memory_megabytes": self._process.memory_info().rss / _MEGABYTE,
        }
        disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
        if disk is not None and self._disk is not None:
            numbers["disk_read_megabytes"] = (disk.read_bytes - self._disk.read_bytes) / _MEGABYTE
            numbers["disk_write_megabytes"] = (disk.write_bytes - self._disk.write_bytes) / _MEGABYTE
        if network is not None and self._network is not None:
            received, sent = network.bytes_recv, network.bytes_sent
            numbers["network_receive_megabytes"] = (received - self._network.bytes_recv) / _MEGABYTE
            numbers["network_transmit_megabytes"] = (sent - self._network.bytes_sent) / _MEGABYTE
        return {f"system/{name}": value for name, value in (numbers | _gpu_memory()).items()}


def _gpu_memory() -> dict[str, float]:
    """Memory in use on each GPU that this process already uses; asking never starts a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    numbers = {}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        numbers[f"gpu_{index}_memory_usage_megabytes"] = (total - free) / _MEGABYTE
        numbers[f"gpu_{index}_memory_usage_percentage"] = 100 * (total - free) / total
    return numbers
