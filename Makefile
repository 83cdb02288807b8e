# Everything below works from a clean clone with Python >= 3.11 and its venv module; nothing but
# `make test` as root installs anything outside .venv.

# The distribution's own Python first: it is what hosts run ringfence with, and compiled with a profile, which
# one built by hand seldom is: the simulator takes a seventh less CPU time, a daemon's start a sixth.
PYTHON ?= $(firstword $(call pythons,import ensurepip$(comma) venv) $(call pythons,pass))
pythons = $(foreach v,/usr/bin/python3 python3 python3.13 python3.12 python3.11,$(shell \
	$(v) -c '$(1); import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $(v)))
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Tests start Python thousands of times: what is imported is compiled once, whatever the caller's habits are.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check lint types unit unit-hosts unit-faults unit-parts unit-rooms unit-sim unit-seeds packages lock man clean mutants bench sim sim-soak fuzz install-files rig service-test faults-long volumes-long fence-long handover-long lvm2-versions

help:  ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

RING ?= hub
DEVICES ?=
DEMO_DEVICES = $(subst real,ipmi$(comma)apc-snmp,$(DEVICES))
comma := ,
demo: $(VENV)/.runtime  ## The story on a lab of real processes, in a minute; RING=corosync (root); DEVICES=real: stock agents
	$(BIN)/ringfence demo --ring $(RING) $(if $(DEVICES),--devices $(DEMO_DEVICES))

test: packages $(VENV)/.dev lint  ## Everything that CI checks; as root it installs packages.txt first
	@$(BESIDE) types $(UNITS)

SEEDS ?= 500
sim: $(VENV)/.dev  ## The simulator on SEEDS=500 seeds, each with 10 faults (part of `make test`)
	$(BIN)/ringfence sim 1 --seeds $(SEEDS) --strikes 10

MINUTES ?= 10
sim-soak: $(VENV)/.dev  ## The simulator for MINUTES=10, on seeds that nobody has tried
	$(BIN)/ringfence sim $$(date +%s) --minutes $(MINUTES)

fuzz: $(VENV)/.dev  ## The fuzzer over all readers of LVM2's bytes, for MINUTES=10, on cases that nobody has seen
	nice $(BIN)/python tests/commands/fuzz.py --minutes $(MINUTES)

mutants: $(VENV)/.dev  ## Take one safety rule after the other out, and see the simulator find it
	$(BIN)/python -m ringfence.sim.hunt

check: $(VENV)/.dev lint types  ## Style, types, layers: the quick part of `make test`
	$(BIN)/python -m pytest tests/test_layers.py

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests bench

types: $(VENV)/.dev
	nice $(BIN)/mypy

# Side by side: labs of real processes mostly wait, as do single services and tools; rooms that only compute,
# the simulator and mypy give way to them, and mind the time least.
HOSTS := $(addprefix tests/,cluster lab lvmlockd)
FAULTS := $(addprefix tests/,bench demo faults lies pacemaker torture lab/test_lab_torture.py)
PARTS := $(addprefix tests/,agents block client daemon doctor host package ring servers service)
ELSEWHERE := $(HOSTS) $(FAULTS) $(PARTS) tests/sim
UNITS := unit-hosts unit-faults unit-parts unit-rooms unit-sim unit-seeds
BESIDE = $(MAKE) --no-print-directory -j -k
unit: $(VENV)/.dev
	@$(BESIDE) $(UNITS)

unit-hosts:
	$(BIN)/python -m pytest $(FAULTS:%=--ignore=%) $(HOSTS)

unit-faults:
	$(BIN)/python -m pytest $(FAULTS)

unit-parts:
	$(BIN)/python -m pytest $(PARTS)

unit-rooms:
	nice $(BIN)/python -m pytest $(ELSEWHERE:%=--ignore=%) tests

SEEDS_TEST := tests/sim/test_sim_budget.py
unit-sim:
	nice $(BIN)/python -m pytest --ignore=$(SEEDS_TEST) tests/sim

# A process for each core, which take what the others leave: so no core is idle from the first minute to the last.
unit-seeds:
	nice -n 15 $(BIN)/python -m pytest $(SEEDS_TEST)

faults-long: $(VENV)/.dev packages  ## Faults beside very many locks; minutes; needs root
	$(BIN)/python -m pytest -m long --timeout 900 tests/faults

volumes-long: $(VENV)/.dev packages  ## Allocation beside stock LVM2 over many random sequences; minutes; needs root
	$(BIN)/python -m pytest -m long --timeout 300 tests/commands

fence-long: $(VENV)/.dev packages  ## Fencing with a real Pacemaker, whole labs on real agents; minutes; needs root
	$(BIN)/python -m pytest -m long --timeout 300 tests/pacemaker tests/lies tests/lab tests/cluster tests/demo tests/bench \
		--ignore=tests/cluster/test_cluster_migration.py

handover-long: PACKAGES = packages-rig.txt
handover-long: $(VENV)/.dev packages  ## Hand-overs struck at every order, and a real qemu that migrates; five minutes; as root it installs packages-rig.txt
	$(BIN)/python -m pytest -m long --timeout 300 tests/engine/test_engine_handovers.py tests/cluster/test_cluster_migration.py

LVM2_BUILT ?= build/lvm2
LVM2_VERSIONS ?= 2.03.11 2.03.16 2.03.31 2.03.39 git
lvm2-versions: $(VENV)/.dev packages  ## LVM2 of other versions, built from its source (network), against our lvmlockd; half an hour, needs root
	tests/lvmlockd/build_lvm2.sh $(LVM2_BUILT) $(LVM2_VERSIONS)
	LVM2_BUILT=$(LVM2_BUILT) $(BIN)/python -m pytest -m long --timeout 300 tests/lvmlockd

rig: PACKAGES = packages-rig.txt
rig: $(VENV)/.dev packages  ## Real kernels in QEMU, with a real device-mapper; some minutes; as root it installs packages-rig.txt
	$(BIN)/python tests/rig $(SCENARIOS)

service-test: $(VENV)/.dev  ## The units under a real systemd, in namespaces of its own; needs root (part of `make test`)
	$(BIN)/python -m pytest tests/service

bench: PACKAGES = packages-bench.txt
bench: $(VENV)/.bench packages  ## Locks beside Redis, etcd, ZooKeeper, PostgreSQL; as root it installs packages-bench.txt
	$(BIN)/python bench/locks.py --plot docs/locks.svg

# Debian packages whose tools the tests use.  One that is missing fails its tests; none is skipped.
PACKAGES = packages.txt
packages:
	@wanted=$$(sed -e 's/#.*//' -e '/^ *$$/d' $(PACKAGES)); missing=; \
	for one in $$wanted; do \
		dpkg-query -W -f '$${Status}' $$one 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$one"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing:$$missing"; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	else \
		echo "what needs these packages will fail; install them as root:$$missing" >&2; \
	fi

$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed; none was found (set PYTHON=...)" >&2; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

BUILT = hatch_build.py src/ringfence/block/fastpath.c src/ringfence/client/exchange.c packaging/bin/ringfence
$(VENV)/.runtime: requirements.lock pyproject.toml $(BUILT) | $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml $(BUILT) | $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements-dev.lock
	$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@ $(VENV)/.runtime

$(VENV)/.bench: requirements-bench.lock $(VENV)/.runtime
	$(PIP) install --require-hashes -r requirements-bench.lock
	@touch $@

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' pyproject.toml --group build

lock:  ## Pin the dependencies anew (needs uv)
	$(LOCK) -o requirements.lock
	$(LOCK) --group dev -o requirements-dev.lock
	$(LOCK) --group bench -o requirements-bench.lock

man: $(VENV)/.runtime  ## The man pages, into build/man
	@mkdir -p build/man
	$(BIN)/python packaging/man/page.py > build/man/ringfence.1
	cp packaging/man/ringfence.toml.5 build/man/

DESTDIR ?=
PREFIX ?= /usr
INSTALL = install -D -m 644
install-files: man  ## What a package has beside the Python package, below DESTDIR (docs/PACKAGING.md)
	for unit in packaging/systemd/*.service; do \
		$(INSTALL) $$unit $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/} || exit; \
	done
	$(INSTALL) packaging/lvm2/lvmlockd.service.conf $(DESTDIR)$(PREFIX)/lib/systemd/system/lvmlockd.service.d/ringfence.conf
	$(INSTALL) -m 755 packaging/lvm2/lvmlockd $(DESTDIR)$(PREFIX)/lib/ringfence/lvmlockd
	$(INSTALL) packaging/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/ringfence.conf
	$(INSTALL) packaging/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/ringfence.conf
	$(INSTALL) packaging/90-ringfence.preset $(DESTDIR)$(PREFIX)/lib/systemd/system-preset/90-ringfence.preset
	$(INSTALL) packaging/needrestart.conf $(DESTDIR)/etc/needrestart/conf.d/ringfence.conf
	$(INSTALL) packaging/ringfence.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/ringfence
	$(INSTALL) packaging/ringfence.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_ringfence
	$(INSTALL) packaging/ringfence.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/ringfence.fish
	mkdir -p $(DESTDIR)$(PREFIX)/sbin
	ln -sf ../bin/fence_ringfence $(DESTDIR)$(PREFIX)/sbin/fence_ringfence
	$(INSTALL) build/man/ringfence.1 $(DESTDIR)$(PREFIX)/share/man/man1/ringfence.1
	$(INSTALL) build/man/ringfence.toml.5 $(DESTDIR)$(PREFIX)/share/man/man5/ringfence.toml.5

clean:  ## Remove what was made here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
