#!/usr/bin/env python3
"""How long a run takes to end after Ctrl-C while its weights stream from disk, in decoding and in prefill.

Usage: interrupt_streaming.py MODEL.sluice BUDGET [SLUICE]    BUDGET: less than the model, for example 1400M
Exit code 1 if an interrupt took a second or more, or the program did not end with 130.
"""
import signal
import subprocess
import sys
import time

model, budget = sys.argv[1:3]
sluice = sys.argv[3] if len(sys.argv) > 3 else "build/release/tools/sluice"
bad = False
for what, prompt, tokens in (("decoding", "a " * 3, "200"), ("prefill", "a " * 400, "1")):
    for delay_s in (4.0, 4.7, 5.3, 6.1):
        process = subprocess.Popen(
            [sluice, "run", model, "--raw", "-p", prompt, "-n", tokens, "--ctx", "1024", "--ignore-eos", "--ram", budget, "--quiet"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_s)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        code = process.wait()
        seconds = time.monotonic() - start
        print(f"{what}, interrupted after {delay_s} s: ended {seconds:.3f} s later with {code}")
        bad = bad or seconds >= 1 or code != 130
sys.exit(bad)
