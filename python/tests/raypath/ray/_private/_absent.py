"""What stands for the parts of Ray that mobula does not have: tests can import it, and fail where they use it."""


def absent(module):
    """Return a ``__getattr__`` for a module of which every name may be imported."""

    def get(name):
        if name.startswith(("__", "pytest", "setUp", "tearDown", "setup_", "teardown_")):
            raise AttributeError(name)

        def use(*_, **__):
            raise NotImplementedError(f"mobula has no {module}.{name}")

        use.__name__ = use.__qualname__ = name
        return use

    return get
