#!/usr/bin/env python3
"""Fails on an include that the architecture forbids.

Usage: check_includes.py [SOURCE_DIR]    exit 0: all allowed, 1: the offending lines are printed
"""
import pathlib
import re
import sys

ALLOWED = {
    "formats": {"formats"},
    "kernels": {"kernels", "formats"},
    "offload": {"offload", "formats"},
    "loaders": {"loaders", "formats"},
    "runtime": {"runtime", "kernels", "offload", "loaders", "formats", "sluice"},
    "tools": {"tools", "runtime", "loaders", "formats", "sluice"},
    "tools/bench": {"tools", "runtime", "kernels", "offload", "loaders", "formats", "sluice"},
}
FOLDERS = {"formats", "kernels", "offload", "loaders", "runtime", "tools", "tests", "sluice"}
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^">]+)[">]')


def violations(source_dir):
    found = []
    for folder in sorted({name.split("/")[0] for name in ALLOWED}):
        for path in sorted((source_dir / folder).rglob("*")):
            if path.suffix not in (".cc", ".h", ".cu", ".cuh"):
                continue
            relative = path.relative_to(source_dir)
            owner = "tools/bench" if relative.parts[:2] == ("tools", "bench") else folder
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                first = target.split("/")[0]
                if ".." in target or (first in FOLDERS and "/" in target and first not in ALLOWED[owner]):
                    found.append(f"{relative}:{number}: {owner} must not include {target}")
    return found


def main():
    source_dir = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    found = violations(source_dir)
    print("\n".join(found) if found else "all includes follow the arrows")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
