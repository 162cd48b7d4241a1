#!/bin/sh
# scripts/on_accelerator.sh [--smoke] [--again] [part N]...: all that is worth measuring on one GPU or TPU, in parts of
# at most eight minutes, the most telling first. Without parts, all four.
#
#   part 1  CartPole in 2^11 ... 2^17 environments; 2048 agents side by side
#   part 2  the humanoid's physics backends; DPO and sampling of a model of SmolLM2-135M's shape
#   part 3  the humanoid learns to walk: until the time is up, and on from there when called again
#   part 4  the invariants on the device; choices made by platform against their alternatives
#
# Writes results.json and results.md to $OUT, by default runs/accelerator. A row that is done is not measured again, one
# that fails is kept with its reason (--again tries those once more). --smoke: small sizes, to see that it works.
#
# PYTHON names the Python to use, with JAX for the device. On a machine without a package index the rest comes from the
# wheels in .whl (scripts/wheels.txt says how they get there). If $OUT does not outlast a call, KEEP names a folder that
# does: figures and the humanoid's run stay there, and what can be read is copied to $OUT.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}
out=${OUT:-$root/runs/accelerator}
state=${KEEP:-$out}
minutes=${MINUTES:-8}
cd "$root"

options= parts=
while [ $# -gt 0 ]; do
    case $1 in
        --smoke | --again) options="$options $1" ;;
        part) [ $# -gt 1 ] || { echo "error: part needs its number, 1 to 4" >&2; exit 2; }; shift; parts="$parts $1" ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "error: $1 is no option; usage: scripts/on_accelerator.sh [--smoke] [--again] [part N]..." >&2; exit 2 ;;
    esac
    shift
done

missing() {
    "$python" -c 'import importlib.util as u, sys
names = "brax gymnax six mujoco tyro jaxtyping matplotlib beartype pytest tensorboardX".split()
print(*[name for name in names if u.find_spec(name) is None])'
}
site=$root/.cache/accelerator/site
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$(missing)" ] && ls .whl/*.whl >/dev/null 2>&1; then
    wanted="$("$python" --version) $(ls .whl | cksum)"
    if [ "$(cat "$site/.installed" 2>/dev/null || true)" != "$wanted" ]; then
        rm -rf "$site"
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
            --target "$site" .whl/*.whl
        printf '%s' "$wanted" >"$site/.installed"
    fi
    export PYTHONPATH="$root:$site"
fi
lacks=$(missing)
[ -z "$lacks" ] || { echo "error: $python lacks $lacks; scripts/wheels.txt says how to bring them" >&2; exit 2; }

# Several processes share the device in turn: none may take all of its memory at once.
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false}
mkdir -p "$state" "$out"
if [ -f "$state/humanoid.tar.gz" ] && [ ! -d "$state/humanoid" ]; then
    tar -xzf "$state/humanoid.tar.gz" -C "$state"
fi

finish() {
    [ ! -d "$state/humanoid" ] || tar -czf "$out/humanoid.tar.gz" -C "$state" humanoid
    [ "$state" = "$out" ] || cp "$state"/results.* "$out/" 2>/dev/null || true
}
trap finish EXIT

for part in ${parts:-1 2 3 4}; do
    until timeout -k 10 $((minutes * 60)) "$python" scripts/accelerator.py $options --minutes "$minutes" \
        --state "$state" "$part"; do
        status=$?
        case $status in
            2) exit 2 ;;
            124 | 137) echo "part $part took longer than $minutes minutes: call it again for the rest" >&2; break ;;
        esac
        # Killed by a signal: the row that was running is recorded as failed, and the others go on.
        [ $status -gt 128 ] || exit $status
    done
done
