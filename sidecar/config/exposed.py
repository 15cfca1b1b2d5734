"""Files with secrets that others on this machine may read: said at the start and by ``validate``."""

import os
import stat
from collections.abc import Iterator

from sidecar.config.schema import BUILT_IN, Config, flat

SECRET_FILES = ("password_file", "token_file", "key_file")
"""How the names of the keys end that lead to one."""


def warnings(config: Config) -> Iterator[str]:
    """Yield a line for each file with a secret in use whose mode lets everybody read or change it."""
    for path, file in flat(config).items():
        unused = path.split(".")[0] in {*BUILT_IN} - {config.backend}
        if unused or not path.endswith(SECRET_FILES) or not isinstance(file, str):
            continue
        try:
            mode = stat.S_IMODE(os.stat(file).st_mode)  # noqa: PTH116 - not a `Path` here
        except OSError:
            continue  # said elsewhere
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            may = "change" if mode & stat.S_IWOTH else "read"
            yield f"{path}: {file}: every user of this machine may {may} it (mode {mode:04o}): chmod 0600"
