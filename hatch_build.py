"""Builds `block/fastpath.c` where there is a C compiler; without one the package is whole, and its NBD
path slower.  Python's headers are not needed, so one build serves every Python."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/ringfence/block/fastpath.c"


class FastPath(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            self.app.display_warning(f"no C compiler: {SOURCE} is not built, and NBD is slower")
            return
        source = Path(self.root) / SOURCE
        built = source.with_name("libfastpath.so")
        flags = ["-O2", "-Wall", "-shared", "-fPIC", "-pthread"]
        made = subprocess.run([*compiler.split(), *flags, "-o", f"{built}.new", str(source)], check=False)
        if made.returncode:
            self.app.display_warning(f"{compiler} fails: {SOURCE} is not built, and NBD is slower")
            built.unlink(missing_ok=True)  # what an older build left fits nothing
            return
        os.replace(f"{built}.new", built)  # a worker may have the old one mapped
        build_data["artifacts"].append(str(built.relative_to(self.root)))
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
