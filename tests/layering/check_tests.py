#!/usr/bin/env python3
"""Fails when a file of tests is run by nothing, or a fuzz target has no seeds.

Usage: check_tests.py REPOSITORY
"""
import pathlib
import re
import sys


def problems(tests):
    build = (tests / "CMakeLists.txt").read_text()
    folders = re.search(r"foreach\(folder ([^)]*)\)", build).group(1).split()
    for path in sorted(tests.rglob("*_test.*")):
        name = path.relative_to(tests)
        if path.suffix == ".cc":
            # The build takes them by pattern, from these folders alone.
            if len(name.parts) != 2 or name.parts[0] not in folders:
                yield f"tests/{name}: no test program takes files of this folder"
            elif not re.search(r"^(TEST|TEST_F|TEST_P|TYPED_TEST)\(", path.read_text(), re.MULTILINE):
                yield f"tests/{name}: has no test"
        elif str(name) not in build:
            yield f"tests/{name}: tests/CMakeLists.txt does not run it"
    for path in sorted((tests / "fuzz").glob("*_fuzz.cc")):
        seeds = tests / "fuzz" / "corpus" / path.name.removesuffix("_fuzz.cc")
        if not seeds.is_dir() or not any(seeds.iterdir()):
            yield f"tests/fuzz/{path.name}: no seeds in {seeds.relative_to(tests.parent)}"


def main():
    found = list(problems(pathlib.Path(sys.argv[1]) / "tests"))
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
