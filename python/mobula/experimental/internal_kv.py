"""Keys and values that all processes of a session share. An actor has them, which starts with the first use."""

from __future__ import annotations

import mobula
from mobula.exceptions import RaySystemError

_ACTOR = ("mobula_keys_and_values", "mobula_internal")


class _Store:
    """The process that has the keys and values."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes, overwrite: bool) -> bool:
        """Set a value. Returns whether there was one."""
        exists = key in self._values
        if overwrite or not exists:
            self._values[key] = value
        return exists

    def get(self, key: bytes) -> bytes | None:
        """Return a value, or nothing."""
        return self._values.get(key)

    def delete(self, key: bytes, by_prefix: bool) -> int:
        """Remove a key, or all that begin with it. Returns how many there were."""
        keys = [found for found in self._values if found == key or (by_prefix and found.startswith(key))]
        for found in keys:
            del self._values[found]
        return len(keys)

    def list(self, prefix: bytes) -> list[bytes]:
        """Return the keys that begin so."""
        return [key for key in self._values if key.startswith(prefix)]


def _store() -> mobula.ActorHandle:
    name, namespace = _ACTOR
    options = {"name": name, "namespace": namespace, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
    return mobula.remote(_Store).options(**options).remote()


# The first part of the keys of a namespace.
_NAMESPACE = b"@namespace_"


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _in(namespace: str | bytes | None) -> bytes:
    """The beginning of the keys of a namespace."""
    return b"" if namespace is None else _NAMESPACE + _bytes(namespace) + b":"


def _key(key: str | bytes, namespace: str | bytes | None) -> bytes:
    """The whole key, in its namespace."""
    if _bytes(key).startswith(_NAMESPACE):
        raise RaySystemError(f"a key cannot begin with {_NAMESPACE.decode()}, as {key!r} does: name a namespace")
    return _in(namespace) + _bytes(key)


def _internal_kv_initialized() -> bool:
    """Whether there is a session."""
    return mobula.is_initialized()


def _internal_kv_put(
    key: str | bytes, value: str | bytes, overwrite: bool = True, *, namespace: str | bytes | None = None
) -> bool:
    """Set a value. Returns whether there was one already."""
    return bool(mobula.get(_store().put.remote(_key(key, namespace), _bytes(value), overwrite)))


def _internal_kv_get(key: str | bytes, *, namespace: str | bytes | None = None) -> bytes | None:
    """Return the value of a key, or nothing."""
    found: bytes | None = mobula.get(_store().get.remote(_key(key, namespace)))
    return found


def _internal_kv_exists(key: str | bytes, *, namespace: str | bytes | None = None) -> bool:
    """Whether a key has a value."""
    return _internal_kv_get(key, namespace=namespace) is not None


def _internal_kv_del(key: str | bytes, *, del_by_prefix: bool = False, namespace: str | bytes | None = None) -> int:
    """Remove a key, or all that begin with it. Returns how many there were."""
    return int(mobula.get(_store().delete.remote(_key(key, namespace), del_by_prefix)))


def _internal_kv_list(prefix: str | bytes, *, namespace: str | bytes | None = None) -> list[bytes]:
    """Return the keys that begin so."""
    begin = _in(namespace)
    found: list[bytes] = mobula.get(_store().list.remote(_key(prefix, namespace)))
    return [key.removeprefix(begin) for key in found]
