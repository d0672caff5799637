# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
#
#   PYTHON=python3.12    the interpreter to build with (3.11 or newer, with venv)
#   TORCH=system         on a pod that already has torch: use it, fetch nothing heavy again
#   FAULTS=root          make test: install strace, tmux and the like, mount what the fault suite needs (as root)

PYTHON ?= python3
VENV ?= .venv
TORCH ?= pinned
FAULTS ?=
JOBS ?= 2
BIN = $(VENV)/bin
INSTALL = bash tools/install.sh "$(PYTHON)" "$(VENV)" "$(TORCH)"

# Refused before anything is installed.
ifneq ($(filter-out root,$(FAULTS)),)
$(error FAULTS is '$(FAULTS)'; give root, or leave it out)
endif

.PHONY: help install demo test lint soak bench pictures clean

help:
	@sed -n '1,6p' Makefile | cut -c3-
	@echo "targets: demo test soak bench pictures lint install clean"

install:
	@$(INSTALL) .

install-test:
	@$(INSTALL) '.[test]'

demo: install
	@$(BIN)/fluxtui demo

test: install-test
	@bash tools/test.sh "$(BIN)" "$(FAULTS)" "$(JOBS)"

lint: install-test
	@bash tools/lint.sh "$(BIN)"

soak: install-test
	@FLUXTUI_SOAK=1 bash tools/test.sh "$(BIN)" "$(FAULTS)" "$(JOBS)"

bench: install-test
	@for script in bench/*.py; do case $$script in bench/_*) ;; *) echo "== $$script"; $(BIN)/python $$script || exit 1 ;; esac; done

pictures: install-test
	@$(BIN)/python docs/pictures/make.py

clean:
	rm -rf $(VENV) build *.egg-info
