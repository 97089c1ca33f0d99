#!/bin/sh
# Runs a compiler; what it says goes into a file, and to the terminal if it fails or warns.
#
# Usage: nvcc.sh FILE COMPILER ARGUMENT...
file=$1
shift
"$@" 2>"$file"
status=$?
if [ $status -ne 0 ]; then
  cat "$file" >&2
  rm -f "$file"
else
  grep -v '^ptxas info\|^    [0-9]* bytes stack frame\|^$' "$file" >&2
fi
exit $status
