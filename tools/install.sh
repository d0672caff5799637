#!/usr/bin/env bash
# install.sh PYTHON VENV TORCH REQUIREMENT: a virtual environment with FluxTUI in it, from constraints.txt.
# TORCH=system adds the site-packages where PYTHON finds torch to the environment, so that pip sees it as installed and
# fetches neither torch nor its CUDA libraries again. Does nothing where nothing has changed since the last time.
set -euo pipefail
python=$1 venv=$2 torch=$3 requirement=$4

say() { echo "fluxtui: $*" >&2; }

command -v "$python" >/dev/null || { say "there is no $python; install Python 3.11 or newer, or name one: make PYTHON=..."; exit 2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "$("$python" -V) is too old; install Python 3.11 or newer and name it: make PYTHON=python3.11"; exit 2; }
"$python" -c 'import venv, ensurepip' 2>/dev/null || {
    say "$python cannot make virtual environments; install its venv package (Debian: apt-get install python3-venv)"; exit 2; }

stamp="$venv/.fluxtui-$(printf %s "$requirement" | tr -dc 'a-z')"
wanted="$torch $("$python" -V) $(cat pyproject.toml constraints.txt tools/install.sh | sha256sum | cut -c1-64)"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

say "setting up $venv (once; a few minutes, most of it torch)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
constraints="$venv/constraints.txt"
cp constraints.txt "$constraints"

case $torch in
    pinned) ;;
    system)
        found=$("$python" -c 'import importlib.metadata as m
d = m.distribution("torch")
print(d.locate_file(""), d.version)' 2>/dev/null) || {
            say "TORCH=system, but $python has no torch; leave TORCH out, or name the Python that has it: make PYTHON=..."; exit 2; }
        site=${found% *} version=${found##* }
        "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' | while read -r purelib; do
            echo "$site" > "$purelib/fluxtui-system-torch.pth"
        done
        # what torch brought stays as it is there: neither its own version nor its CUDA libraries are ours to pin
        grep -viE '^(torch|triton|nvidia[-_]|cuda[-_]|numpy==|sympy|networkx|jinja2|filelock|fsspec|mpmath|markupsafe|typing_extensions|pillow)' \
            constraints.txt > "$constraints"
        grep -E '^nvidia[-_]ml[-_]py' constraints.txt >> "$constraints" || true
        echo "torch==$version" >> "$constraints"
        say "using torch $version of $python" ;;
    *) say "TORCH is '$torch'; give pinned or system"; exit 2 ;;
esac

dry=()
[ -z "${FLUXTUI_INSTALL_REPORT:-}" ] || dry=(--dry-run --report "$FLUXTUI_INSTALL_REPORT")
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" "${dry[@]}" -e "$requirement"
[ ${#dry[@]} -gt 0 ] || printf %s "$wanted" > "$stamp"
