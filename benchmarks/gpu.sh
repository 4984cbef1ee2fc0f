#!/usr/bin/env bash
# What is measured on a GPU, in one command of at most nine minutes; docs/benchmarks.md says what each part gives.
set -euo pipefail
usage="usage: benchmarks/gpu.sh [--rehearse] [--parts 'NAME ...'] [--seconds N] [--limits 'NAME=N ...'] [--jobs N] [--wheels FOLDER] [--mnist FOLDER] [--scratch FOLDER] RESULTS

Writes RESULTS/NAME.json for each part, and everything that was said to RESULTS/log.txt. A part whose file is there is
skipped, unless a rehearsal wrote it; one that failed, or ran out of its time, leaves what it found in NAME.partial.json.

  --rehearse  on the CPU, as little of everything as runs
  --parts     some of: tests signs ratios inception mnist
  --seconds   for all parts together (530)
  --limits    for single parts, so that none takes the others' (tests=100 signs=60 ratios=110 inception=80)
  --jobs      runs of a stage at once, in the part mnist (4; 1 in a rehearsal)
  --wheels    a folder of wheels of packages that are missing here, installed below the scratch folder
  --mnist     a folder with MNIST's four files; the part mnist needs it, but not in a rehearsal
  --scratch   where the part mnist's project stays, to go on from (\$TMPDIR/gradshard-gpu)"
fail() { echo "gpu.sh: $1" >&2; exit 2; }

device=cuda rehearsal=false small='' seconds=530 jobs=4 wheels='' mnist='' results=''
names='tests signs ratios inception mnist' limits='tests=100 signs=60 ratios=110 inception=80'
parts=$names
scratch=${TMPDIR:-/tmp}/gradshard-gpu
while [ $# -gt 0 ]; do
  case $1 in
    --rehearse) device=cpu rehearsal=true small=--small jobs=1 limits=''; shift ;;
    --parts | --limits | --seconds | --jobs | --wheels | --mnist | --scratch)
      [ $# -gt 1 ] || fail "$1 needs a value"
      printf -v "${1#--}" %s "$2"; shift 2 ;;
    -h | --help) echo "$usage"; exit ;;
    -*) fail "no option $1: see --help" ;;
    *) [ -z "$results" ] || fail "one folder of results, not $results and $1"; results=$1; shift ;;
  esac
done
[ -n "$results" ] || fail "name a folder for the results: see --help"
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "--seconds is $seconds: give a number of seconds"
[[ $limits =~ ^([a-z]+=[0-9]+[ ]*)*$ ]] || fail "--limits is $limits: give NAME=SECONDS, with spaces between"
for part in $parts; do [[ " $names " == *" $part "* ]] || fail "there is no part $part: see --help"; done
for folder in "$wheels" "$mnist"; do [ -z "$folder" ] || [ -d "$folder" ] || fail "there is no folder $folder"; done
mkdir -p "$results" "$scratch"
results=$(cd "$results" && pwd) scratch=$(cd "$scratch" && pwd)
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd)
[ -z "$mnist" ] || mnist=$(cd "$mnist" && pwd)
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
exec > >(tee -a "$results/log.txt") 2>&1
if [ -n "$wheels" ]; then
  export PYTHONPATH=$PYTHONPATH:$scratch/site
  [ -d "$scratch/site" ] || {
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$scratch/site.new" "$wheels"/*.whl
    mv "$scratch/site.new" "$scratch/site"
  } || fail "the wheels in $wheels cannot be installed"
fi

# Seconds that a part may take: its own, or what is left of all.
limit() {
  local left=$((seconds - SECONDS)) pair
  for pair in $limits; do
    if [ "${pair%=*}" = "$1" ] && [ "${pair#*=}" -lt "$left" ]; then left=${pair#*=}; fi
  done
  echo "$left"
}

# A part is a process group of its own, so that its time, or the end of this script, ends all of it.
child=''
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || true; exit 130' INT TERM

# Runs a part within its time; `outcome` is how it went.
run() {
  local name=$1 options=("$results/$1.json" --device "$device" ${small:+"$small"}) module=$1 most code=0
  case $name in
    tests) module=device_tests ;;
    mnist)
      module=profile
      options+=(--project "$scratch/mnist${small:+-rehearsed}" --jobs "$jobs" ${mnist:+--mnist "$mnist"}) ;;
  esac
  most=$(limit "$name")
  if [ "$most" -le 0 ]; then outcome="no time left"; return; fi
  echo "== $name, at most $most s"
  timeout --kill-after=5 "$most" "$python" -m "benchmarks.gpu.$module" "${options[@]}" &
  child=$!
  wait "$child" || code=$?
  child=''
  case $code in 0) outcome='done' ;; 124 | 137) outcome="out of time" ;; *) outcome=failed ;; esac
}

finished='' left=''
for part in $parts; do
  outcome="done before"
  grep -qs "\"rehearsal\": $rehearsal" "$results/$part.json" || run "$part"
  case $outcome in done*) finished+=" $part" ;; *) left+=" $part ($outcome)" ;; esac
done
echo "done:${finished:- nothing}; not done:${left:- nothing}"
[ -z "$left" ]
