#!/usr/bin/env python3
"""Registers, spills, shared memory and occupancy of each CUDA kernel, from the compiled code.

Usage: cuda_resources_test.py LAUNCHES_DRIVER FILE.resources...

The driver (tests/support/cuda_launches_driver.cc) says with how many threads and how much shared memory
kernels are started, the files are what ptxas said of them. Prints a table; fails on a spill, on a kernel that
the driver does not start, and on one that the GPU could not start.
"""
import re
import subprocess
import sys

# Of a multiprocessor: registers, warps, blocks, KiB of shared memory (CUDA C++ Programming Guide, technical
# specifications per compute capability). A block's shared memory costs 1 KiB more than it asks for.
LIMITS = {"sm_80": (65536, 64, 32, 164), "sm_86": (65536, 48, 16, 100), "sm_89": (65536, 48, 24, 100),
          "sm_90": (65536, 64, 32, 228), "sm_120": (65536, 48, 24, 100)}
KERNEL = re.compile(r"(\w+Kernel(?:<[^>]*>)?)")


def canonical(name):
    """The kernel's name with its template arguments, however a compiler writes them."""
    for number, kind in enumerate(["kF32", "kF16", "kBF16"]):
        name = name.replace(f"sluice::WeightKind::{kind}", str(number))
    return KERNEL.search(name.replace("(sluice::WeightKind)", "")).group(1).replace(" ", "")


def launches(driver):
    """Kernel -> (threads, most shared memory)."""
    result = {}
    for line in subprocess.run([driver], check=True, capture_output=True, text=True).stdout.splitlines():
        threads, shared_bytes, name = line.split(" ", 2)
        kernel = canonical(re.search(r"kKernel = ([^;\]]*)", name).group(1))
        most = max(int(shared_bytes), result.get(kernel, (0, 0))[1])
        result[kernel] = (int(threads), most)
    return result


def compiled(paths):
    """(kernel, architecture, registers, bytes of stack frame, bytes of spills) of each."""
    text = "".join(open(path).read() for path in paths)
    text = subprocess.run(["c++filt"], input=text.replace("'", " "), check=True, capture_output=True, text=True).stdout
    pattern = (r"Compiling entry function\s+(.*?)\s+for\s+(sm_\d+).*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
               r"(\d+) bytes spill loads.*?Used (\d+) registers")
    for match in re.finditer(pattern, text, re.DOTALL):
        name, architecture, stack, stores, loads, registers = match.groups()
        yield canonical(name), architecture, int(registers), int(stack), int(stores) + int(loads)


def occupancy(architecture, registers, threads, shared_bytes):
    """Share of the warps that can be resident; 0: the kernel cannot start."""
    all_registers, all_warps, all_blocks, all_shared = LIMITS[architecture]
    warps = threads // 32
    registers_of_block = -(-registers * 32 // 256) * 256 * warps
    blocks = min(all_blocks, all_warps // warps, all_registers // registers_of_block,
                 all_shared * 1024 // (shared_bytes + 1024))
    return blocks * warps / all_warps


def main():
    started = launches(sys.argv[1])
    rows = sorted(set(compiled(sys.argv[2:])))
    problems = [] if rows else ["no kernel is found in the files"]
    print("kernel | GPU | threads | registers | stack bytes | spill bytes | shared bytes | occupancy")
    for kernel, architecture, registers, stack, spills in rows:
        if kernel not in started:
            problems.append(f"{kernel}: {sys.argv[1]} does not start it")
            continue
        threads, shared_bytes = started[kernel]
        share = occupancy(architecture, registers, threads, shared_bytes)
        print(f"{kernel} | {architecture} | {threads} | {registers} | {stack} | {spills} | {shared_bytes} | {share:.2f}")
        if spills:
            problems.append(f"{kernel} on {architecture}: {spills} bytes of spills")
        if share == 0:
            problems.append(f"{kernel} on {architecture}: no block fits a multiprocessor")
    missing = set(started) - {row[0] for row in rows}
    problems += [f"{kernel}: the files do not have it" for kernel in sorted(missing)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
