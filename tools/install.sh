#!/usr/bin/env bash
# install.sh PYTHON VENV TORCH REQUIREMENT: a virtual environment with FluxTUI in it, from constraints.txt.
# TORCH=system adds the site-packages where PYTHON finds torch to the environment, so that pip sees it as installed and
# fetches neither torch nor its CUDA libraries again. Does nothing where nothing has changed since the last time, goes on
# after an interruption, and makes an environment of its own anew for another Python or torch. What it refuses it refuses first.
set -euo pipefail
python=$1 venv=$2 torch=$3 requirement=$4

say() { echo "fluxtui: $*" >&2; }

case $torch in pinned | system) ;; *) say "TORCH is '$torch'; give system, or leave it out"; exit 2 ;; esac
command -v "$python" >/dev/null || { say "there is no $python; install Python 3.11 or newer, or name one: make PYTHON=..."; exit 2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "$("$python" -V) is too old; install Python 3.11 or newer and name it: make PYTHON=python3.11"; exit 2; }
"$python" -c 'import venv, ensurepip' 2>/dev/null || {
    say "$python cannot make virtual environments; install its venv package (Debian: apt-get install python3-venv)"; exit 2; }

made="$venv/.fluxtui-made"  # in an environment that was made here: for what, and by which Python
# With the environment active `python3` is its own: the Python that made it is meant.
if [ -f "$made" ] && "$python" -c 'import os, sys; sys.exit(not os.path.samefile(sys.prefix, sys.argv[1]))' "$venv"; then
    python=$(sed -n 2p "$made")
fi

if [ "$torch" = system ]; then
    found=$("$python" -c 'import importlib.metadata as m
d = m.distribution("torch")
print(d.locate_file(""), d.version)' 2>/dev/null) || {
        say "TORCH=system, but $python has no torch; leave TORCH out, or name the Python that has it: make PYTHON=..."; exit 2; }
    site=${found% *} version=${found##* }
fi

stamp="$venv/.fluxtui-$(printf %s "$requirement" | tr -dc 'a-z')"
wanted="$torch ${found:-} $("$python" -V) $(cat pyproject.toml constraints.txt tools/install.sh | sha256sum | cut -c1-64)"
for done in "$stamp" "$venv/.fluxtui-test"; do  # what the tests need holds all that running needs
    [ -x "$venv/bin/python" ] && [ -f "$done" ] && [ "$(cat "$done")" = "$wanted" ] && exit 0
done

say "setting up $venv (once; a few minutes, most of it torch)"
trap 'say "interrupted; the same command goes on with it"; exit 130' INT
# One that was made here is made anew where it is for another Python or torch, was left half made, or lost its Python with
# the pod that had it. One that somebody else made is never emptied.
purpose="$torch torch, Python $("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
if [ -f "$made" ] && { [ "$(head -1 "$made")" != "$purpose" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    rm -rf "$venv"
fi
if [ ! -e "$venv" ]; then
    mkdir -p "$venv"
    printf '%s\n%s\n' "$purpose" "$(command -v "$python")" > "$made"
fi
[ -x "$venv/bin/python" ] || told=$("$python" -m venv "$venv" 2>&1) || { say "$venv cannot be made: $told"; exit 1; }
constraints="$venv/constraints.txt"
cp constraints.txt "$constraints"

if [ "$torch" = system ]; then
    "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' | while read -r purelib; do
        echo "$site" > "$purelib/fluxtui-system-torch.pth"
    done
    # what torch brought stays as it is there: neither its own version nor its CUDA libraries are ours to pin
    grep -viE '^(torch|triton|nvidia[-_]|cuda[-_]|numpy==|sympy|networkx|jinja2|filelock|fsspec|mpmath|markupsafe|typing_extensions|pillow)' \
        constraints.txt > "$constraints"
    grep -E '^nvidia[-_]ml[-_]py' constraints.txt >> "$constraints" || true
    echo "torch==$version" >> "$constraints"
    say "using torch $version of $python"
fi

dry=()
[ -z "${FLUXTUI_INSTALL_REPORT:-}" ] || dry=(--dry-run --report "$FLUXTUI_INSTALL_REPORT")
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" "${dry[@]}" -e "$requirement"
[ ${#dry[@]} -gt 0 ] || printf %s "$wanted" > "$stamp"
say "installed; source $venv/bin/activate, and the command is fluxtui"
