#!/usr/bin/env python3
"""Finds instructions beyond those of every x86-64 processor where an older one would meet them.

Usage: instruction_sets_test.py PROGRAM ARCHIVE    ARCHIVE: the library with the kernels

Sources named *_avx2.cc, *_avx512.cc and *_amx.cc are compiled with the flags of their instruction set, and select.cc
decides at run time who calls them. Two things would run unasked: code of other files, and what the compiler makes of
the headers that these sources include. An inline function or a template of std:: that is not inlined is a weak symbol
of every object that uses it, and the linker takes any one of them, so that a processor without AVX may meet the copy of
an AVX file; and initialisers of static objects run in every process. Functions of an instruction set must be of one of
these sources or named after it, strong or local, and no initialisers. Prints those that are not, with an instruction of
each; exit code 1 if there are any.
"""
import re
import subprocess
import sys

OWN_FLAGS = re.compile(r"_(avx2|avx512|amx)\.cc\.o$")
# Of other sources, by the attribute `target`: the compiler inlines what they call or leaves it without the flags.
OWN_NAME = re.compile(r"(Avx2|Avx512)E")
PREFIXES = {"rep", "repz", "repnz", "lock", "bnd", "notrack", "data16", "addr32", "cs", "ds", "es", "fs", "gs", "ss",
            "xacquire", "xrelease", "{evex}", "{vex}", "{vex3}"}
# All but SSE2. `tzcnt` is not among them: compilers write it for bsf, which older processors take it for.
BEYOND = re.compile(
    r"v(?!er[rw]$|m(call|launch|resume|xo|clear|ptr|read|write|func|run|load|save))"
    r"|k(mov|and|or|xnor|xor|not|shift|test|unpck|add)|tdp|tile|ldtilecfg|sttilecfg"
    r"|popcnt|lzcnt|crc32|movbe|prefetchw|andn$|bextr|bls(r|i|msk)$|bzhi|mulx|pdep|pext$|rorx|sarx|shlx|shrx"
    r"|pclmul|aes|sha(1|256)|gf2p8"
    r"|addsub|hadd|hsub|movddup|movs[hl]dup|lddqu"  # SSE3
    r"|pshufb|palignr|pmaddubsw|pmulhrsw|pabs[bdw]|phadd|phsub|psign"  # SSSE3
    r"|p?blend|dpp[ds]|insertps|extractps|pinsr[bdq]|pextr[bdq]|packusdw|pcmp(eq|gt)q|pcmp[ei]str|mpsadbw|phminpos"
    r"|pm(in|ax)(sb|sd|uw|ud)|pmov[sz]x|pmul(ld|dq)|ptest|round[ps][ds]|movntdqa")


def symbol_types(path):
    """(member or "", symbol) -> nm's letter."""
    types, member = {}, ""
    for line in subprocess.run(["nm", "--format=posix", path], check=True, capture_output=True,
                               text=True).stdout.splitlines():
        header = re.fullmatch(r".*\[(.*)\]:", line)
        if header:
            member = header.group(1)
        elif line:
            name, letter = line.split()[:2]
            types[member, name] = letter
    return types


def functions_beyond(path):
    """(member or "", symbol, an instruction) of each function with such an instruction."""
    disassembly = subprocess.Popen(["objdump", "-d", "-w", "--no-show-raw-insn", path], stdout=subprocess.PIPE, text=True)
    member, symbol, found = "", "", {}
    for line in disassembly.stdout:
        if line.startswith(" "):
            words = [word for word in line.split("\t", 1)[-1].split() if word not in PREFIXES]
            if words and (member, symbol) not in found and BEYOND.match(words[0]):
                found[member, symbol] = " ".join(words[:2])
        elif line.rstrip().endswith(">:"):
            symbol = line[line.index("<") + 1:line.rindex(">")]
        elif ":     file format" in line:
            name = line.split(":", 1)[0]
            member = name if name.endswith(".o") else ""
    if disassembly.wait() != 0:
        raise RuntimeError(f"objdump {path} failed")
    return found


def is_shared(types, member, symbol):
    """Whether the linker may take another object's function of that name, or of the one that this is a part of."""
    whole = re.sub(r"(\.(cold|part|isra|constprop|lto_priv)(\.\d+)*)+$", "", symbol)
    return any(types.get((member, name)) in {"V", "W", "u"} for name in (symbol, whole))


def problems(program, archive):
    """(where, function, instruction) of what an older processor could meet."""
    types = symbol_types(archive)
    own = set()
    for (member, symbol), instruction in functions_beyond(archive).items():
        initialises = symbol.startswith("_GLOBAL__")
        if not OWN_FLAGS.search(member) or is_shared(types, member, symbol) or initialises:
            yield member, symbol, instruction
        else:
            own.add(symbol)
    if not own:
        raise RuntimeError(f"{archive}: no functions of an instruction set were found")
    types = symbol_types(program)
    for (member, symbol), instruction in functions_beyond(program).items():
        if (symbol not in own and not OWN_NAME.search(symbol)) or is_shared(types, member, symbol):
            yield program, symbol, instruction
    print(f"{len(own)} functions of the sources of an instruction set use it")


def main():
    program, archive = sys.argv[1:]
    found = list(problems(program, archive))
    for where, symbol, instruction in found:
        name = subprocess.run(["c++filt", symbol], check=True, capture_output=True, text=True).stdout.strip()
        print(f"{where}: {name}: {instruction}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
