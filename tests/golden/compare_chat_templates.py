#!/usr/bin/env python3
"""Compares our chat templates with jinja2, for every *.jinja file of a folder. Development only.

Usage: compare_chat_templates.py FOLDER DRIVER [--verbose]
DRIVER is the program chat_template_driver (tests/support). Exit 0: all renderings agree.

A rendering agrees when both give the same bytes, or both refuse.
"""
import json
import pathlib
import subprocess
import sys

import chat_cases
import jinja_reference


def first_difference(ours, reference):
    at = next((i for i, (a, b) in enumerate(zip(ours, reference)) if a != b),
              min(len(ours), len(reference)))
    return f"at {at}: ours {ours[max(0, at - 30):at + 40]!r}, jinja2 {reference[max(0, at - 30):at + 40]!r}"


def verdict(answer, reference, error):
    """Returns None when they agree, else what differs."""
    if error is None and "text" in answer:
        return None if answer["text"] == reference else first_difference(answer["text"], reference)
    if error is not None and "error" in answer:
        return None
    if error is not None:
        return f"only jinja2 refuses: {error}"
    return f"only ours refuses: {answer['error']}: {answer['message']}"


def main():
    folder, driver = pathlib.Path(sys.argv[1]), sys.argv[2]
    verbose = "--verbose" in sys.argv
    jobs = [(path.name, name, path.read_text(), case)
            for path in sorted(folder.glob("*.jinja")) for name, case in chat_cases.CASES.items()]
    lines = "".join(json.dumps({"template": source, **case}) + "\n" for _, _, source, case in jobs)
    answers = subprocess.run([driver], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout
    equal_text = both_refuse = 0
    files = {}
    slowest = 0.0
    for (file, name, source, case), line in zip(jobs, answers.decode().splitlines(), strict=True):
        answer = json.loads(line)
        slowest = max(slowest, answer["ms"])
        reference, error = jinja_reference.render(source, case)
        difference = verdict(answer, reference, error)
        files.setdefault(file, []).append(difference is None)
        if difference is None and error is None:
            equal_text += 1
        elif difference is None:
            both_refuse += 1
            if verbose:
                print(f"{file} [{name}]: both refuse: {error[:90]} | {answer['message'][:90]}")
        else:
            print(f"{file} [{name}]: {difference}")
    whole = sum(all(results) for results in files.values())
    print(f"{len(jobs)} renderings: {equal_text} equal, {both_refuse} refused by both, "
          f"{len(jobs) - equal_text - both_refuse} differ; {whole} of {len(files)} templates agree in all; "
          f"slowest {slowest:.1f} ms")
    return 0 if equal_text + both_refuse == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
