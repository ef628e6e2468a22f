"""Copy a file inside the kernel: with shared blocks where the file system can, else a full copy, never a link."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

NOT_HERE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of `source` to the new file `target` and flush them to the disk. Raises OSError."""
    with source.open("rb") as reader, target.open("xb") as writer:
        left = os.fstat(reader.fileno()).st_size
        try:
            while left:
                copied = os.copy_file_range(reader.fileno(), writer.fileno(), left)
                if copied == 0:
                    raise OSError(errno.EIO, "the file became shorter while it was copied", str(source))
                left -= copied
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
