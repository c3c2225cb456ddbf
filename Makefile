# The few commands of this project. Building and installing take the host as it is, and say what is missing;
# the others, which run guests, do all the set-up they need. The cache of the lab (QEMU root trees, the guest)
# lies outside the repository, in $MOULT_LAB or ~/.cache/moult-lab.

SWIFT ?= swift
SCRATCH ?= .build
PREFIX ?= /usr/local
# For `make fuzz`: seconds for each parser.
FUZZ_SECONDS ?= 60
# For `make test`: what `swift test` takes, such as FILTER='--filter LabTests'.
FILTER ?=
BENCH ?=
# For `make matrix`: machine types, those of the document if empty.
MACHINES ?=
# For `make crash-test`: names of cases or their beginnings, such as CASES=upgrade/shared/; `--list` lists them.
CASES ?=
# For `make soak`: such as SOAK='--runs 100 --vms 5'.
SOAK ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build demo test fuzz bench matrix crash-test soak install clean clean-lab tools packages guest trees
# What a target names first has to be there before what it names next.
.NOTPARALLEL:

swift-build = $(SWIFT) build --scratch-path $(SCRATCH)
release = $(swift-build) -c release --static-swift-stdlib

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

build: tools ## the release program, in $(SCRATCH)/release
	$(release) --product moult

demo: packages build guest ## upgrade a live guest from QEMU 7.2 to 10.0, roll back, upgrade again, commit (root)
	@MOULT_BINARY="$$($(release) --show-bin-path)/moult" scripts/demo

# One test at a time: guests beside each other would make each other slow, and what one test leaves
# behind could not be told from what another still has.
test: packages tools guest trees ## every test, on real QEMUs (root)
	$(swift-build) --build-tests
	@MOULT_BINARY="$$($(swift-build) --show-bin-path)/moult" scripts/run-tests \
	  $(SWIFT) test --scratch-path $(SCRATCH) --skip-build --no-parallel $(FILTER)

fuzz: tools ## search for inputs that break the parsers (FUZZ_SECONDS=60)
	@SWIFT=$(SWIFT) SCRATCH=$(SCRATCH) scripts/fuzz $(FUZZ_SECONDS)

bench: packages build guest trees ## the table of pauses, times and memory (root)
	$(release) --product moult-bench
	@bin="$$($(release) --show-bin-path)"; MOULT_BINARY="$$bin/moult" "$$bin/moult-bench" $(BENCH)

matrix: packages build guest trees ## the tables of docs/support-matrix.md: every pair of versions, by machine type (root)
	@MOULT_BINARY="$$($(release) --show-bin-path)/moult" scripts/measure-matrix $(MACHINES)

crash-test: packages build guest trees ## every step × every victim: who dies when, on real VMs (root)
	$(release) --product moult-crash
	@bin="$$($(release) --show-bin-path)"; MOULT_BINARY="$$bin/moult" "$$bin/moult-crash" matrix $(CASES)

soak: packages build guest trees ## a thousand upgrades and rollbacks of one VM, twenty VMs at once (root)
	$(release) --product moult-crash
	@bin="$$($(release) --show-bin-path)"; MOULT_BINARY="$$bin/moult" "$$bin/moult-crash" soak $(SOAK)

install: build ## the program, its profiles and systemd units, under PREFIX (/usr/local)
	install -D -m 755 "$$($(release) --show-bin-path)/moult" "$(DESTDIR)$(PREFIX)/bin/moult"
	install -d "$(DESTDIR)$(PREFIX)/share/moult/profiles"
	find profiles -name '*.toml' -exec install -m 644 -t "$(DESTDIR)$(PREFIX)/share/moult/profiles" {} +
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system"
	for unit in systemd/*; do sed 's|@PREFIX@|$(PREFIX)|' "$$unit" >"$(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}"; done

tools: # what building needs; nothing is installed
	@SWIFT=$(SWIFT) scripts/check-tools

packages: # the Debian packages that are missing
	@scripts/install-packages

guest: packages
	@scripts/make-guest >/dev/null

trees: packages
	@scripts/make-root-tree 5.2 10.0 11.1 >/dev/null
	@scripts/make-switch >/dev/null
	@scripts/make-virtiofsd >/dev/null

clean: ## what was built; the lab's cache stays
	rm -rf $(SCRATCH)

clean-lab: ## the lab's cache
	rm -rf --one-file-system "$${MOULT_LAB:-$${XDG_CACHE_HOME:-$$HOME/.cache}/moult-lab}"
