"""Every setting of Ray that this project relies on: what its processes have in their environment."""

from __future__ import annotations

import os
from types import MappingProxyType

ENVIRONMENT = MappingProxyType(
    {
        # Nothing is sent to anybody.
        "RAY_USAGE_STATS_ENABLED": "0",
        # A killed node is found dead after 5 s, not 14; one that is merely slow still has 10 s an answer.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_initial_delay_ms": "1000",
        # Workers are started when there is work: those of a trial have an environment of their own anyway.
        "RAY_prestart_worker_first_driver": "0",
        # A task without a GPU keeps CUDA_VISIBLE_DEVICES as it is: Ray's coming default, without its warning.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Ray Train asks its workers for news this often; at its own 2 s every short epoch costs 2 s.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        # Workers that import torch on a busy machine, or wait for a node, need more than Ray Train's 60 s.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
        # Relative paths mean in a trial what they mean to whoever typed them.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # Nothing that Tune writes is read again: no tables, no TensorBoard, no state of the experiment.
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        # Ctrl-C is ours (StopRequest), and so is what people are told.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
)
"""What every process of ours that uses Ray, and every ``ray start``, has in its environment.

A value that is there already stays. The memory monitor keeps Ray's own settings: a worker is killed when 95 %
of the node's memory is in use.
"""

PASSED_ON = ("MLFLOW_", "AWS_", "HF_HUB_OFFLINE")
"""Environment variables, by their beginnings, that trials and workers take from the driver: a cluster that is
joined has an environment of its own. They travel inside Ray's messages and are listed nowhere. What differs
from machine to machine, such as ``NFBMR_CACHE``, stays a node's own."""

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With "0" Ray binds every port to 127.0.0.1 and keeps that address; its name tells why it was made.

Without it Ray takes 127.0.0.1 for the machine's own address and listens there. With it no second node starts.
"""

LOOPBACK_NAME = "LOCALHOST"
"""A loopback address that Ray leaves as it is, whatever :data:`LOOPBACK_ONLY` says: it knows 127.0.0.1 and
localhost in small letters alone, and names mean the same in capitals. A node that joins a head there is bound
to 127.0.0.1 in all its parts (https://github.com/ray-project/ray/issues/26293)."""


def environment() -> dict[str, str]:
    """:data:`ENVIRONMENT` with the values that this process's own environment has."""
    return {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}


def passed_on() -> dict[str, str]:
    """What :data:`PASSED_ON` names, as this process has it."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def as_driver_says(address: str) -> str:
    """The address of a cluster's head as it is to be said to Ray.

    Example:
        >>> as_driver_says("127.0.0.1:6379"), as_driver_says("192.0.2.1:6379")
        ('LOCALHOST:6379', '192.0.2.1:6379')
    """
    host, colon, port = address.rpartition(":")
    return f"{LOOPBACK_NAME}{colon}{port}" if host in ("127.0.0.1", "localhost") else address
