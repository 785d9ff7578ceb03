"""Numbers of Ray that tests import."""

ID_SIZE = 28
DEFAULT_RETRY_DELAY_MS = 0
DEBUG_AUTOSCALING_ERROR = "__autoscaling_error"
ERROR_INTERVAL_S = 1
FUNCTION_SIZE_ERROR_THRESHOLD = 95 * 1024 * 1024
FUNCTION_SIZE_WARN_THRESHOLD = 1024 * 1024
KV_NAMESPACE_FUNCTION_TABLE = b"fun"
OBJECT_STORE_MINIMUM_MEMORY_BYTES = 75 * 1024 * 1024
DEFAULT_MAX_CONCURRENCY_ASYNC = 1000


def gcs_actor_scheduling_enabled():
    return False


def env_integer(key, default):
    import os

    return int(os.environ.get(key, default))
