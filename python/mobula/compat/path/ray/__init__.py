"""The name ``ray`` for the package ``mobula``: see ``mobula.compat``."""

import sys

# The import that runs this file gives what stands under the name afterwards, which is `mobula`.
del sys.modules[__name__]

from mobula.compat.ray import install  # noqa: E402

install()
