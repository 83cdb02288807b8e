"""Builds what is written in C where there is a C compiler; without one the package is whole, and slower.

`block/fastpath.c` needs nothing else.  `client/exchange.c` needs Python's headers, and keeps to the stable ABI:
so one build serves every Python."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

EXCHANGE = "src/ringfence/client/exchange.c"
FLAGS = ["-O2", "-Wall", "-shared", "-fPIC", "-pthread"]
SOURCES = {
    "src/ringfence/block/fastpath.c": ("libfastpath.so", "NBD is slower"),
    EXCHANGE: ("_exchange.abi3.so", "a lock takes a client longer"),
}
"""Each with what is built of it, and what is so without it."""


class InC(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        headers = Path(sysconfig.get_path("include"))
        for source, (name, otherwise) in SOURCES.items():
            path = Path(self.root) / source
            built = path.with_name(name)
            if compiler is None:
                self.app.display_warning(f"no C compiler: {source} is not built, and {otherwise}")
                continue
            if source == EXCHANGE and not (headers / "Python.h").exists():
                self.app.display_warning(f"no {headers}/Python.h: {source} is not built, and {otherwise}")
                built.unlink(missing_ok=True)
                continue
            command = [*compiler.split(), *FLAGS, f"-I{headers}", "-o", f"{built}.new", str(path)]
            if subprocess.run(command, check=False).returncode:
                self.app.display_warning(f"{compiler} fails: {source} is not built, and {otherwise}")
                built.unlink(missing_ok=True)  # what an older build left fits nothing
                continue
            os.replace(f"{built}.new", built)  # who runs may have the old one mapped
            build_data["artifacts"].append(str(built.relative_to(self.root)))
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
