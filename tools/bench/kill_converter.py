#!/usr/bin/env python3
"""Kills conversions at random moments and resumes them.

    kill_converter.py SLUICE SOURCE FOLDER [--kills 50] [--seed 1] [--window SECONDS] [-- MORE OPTIONS OF CONVERT]

Converts SOURCE once undisturbed. Then again and again with --resume, each time killed (SIGKILL) at a random
moment (of the time that an undisturbed one takes, or of --window seconds, so that a conversion is killed many
times on its way), until a run ends by itself before its kill; that file is compared, removed, and all begins anew. After
each kill nothing may stand under the final name, or a whole file. Prints a count; exits with 1 at the first
thing that is wrong. FOLDER needs twice the size of the result.
"""
import argparse
import hashlib
import pathlib
import random
import subprocess
import sys
import time


def digest(path):
    hash_ = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            hash_.update(block)
    return hash_.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sluice")
    parser.add_argument("source")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--window", type=float)
    parser.add_argument("more", nargs="*")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    whole, output = options.folder / "whole.sluice", options.folder / "killed.sluice"
    words = [options.sluice, "convert", options.source, "--quiet", *options.more]
    begin = time.monotonic()
    subprocess.run([*words, "-o", whole, "--force"], check=True)
    span = time.monotonic() - begin
    expected = digest(whole)
    window = options.window or span
    kills = ends = renamed = chain = longest = 0
    while kills < options.kills:
        process = subprocess.Popen([*words, "-o", output, "--resume"], stderr=subprocess.PIPE, text=True)
        try:
            process.wait(chance.uniform(0, window))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
            chain += 1
        message = process.communicate()[1]
        if process.returncode not in (0, -9):
            sys.exit(f"after {kills} kills: exit status {process.returncode}: {message.strip()}")
        if process.returncode == 0 or output.exists():
            renamed += process.returncode != 0
            if digest(output) != expected:
                sys.exit(f"after {kills} kills: {output} is not the undisturbed file")
            output.unlink()
            ends += 1
            longest, chain = max(longest, chain), 0
    subprocess.run([*words, "-o", output, "--resume"], check=True)
    if digest(output) != expected:
        sys.exit(f"after {kills} kills: {output} is not the undisturbed file")
    left = [path.name for path in options.folder.iterdir() if ".partial" in path.name]
    print(f"{kills} kills after {window:.1f} s at most, undisturbed {span:.1f} s; {ends + 1} conversions ended, the most "
          f"disturbed after {max(longest, chain)} kills, {renamed} of them killed after "
          f"the rename; every one the undisturbed bytes ({expected[:16]}); left over: {left or 'nothing'}")


if __name__ == "__main__":
    main()
