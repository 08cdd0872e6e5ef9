PYTHON ?= python3
PREFIX ?= /opt/docker-flannel
ROOTS ?= /var/tmp/docker-flannel-roots
BIN := .venv/bin
DOCKER_TESTS := life short_form short_restart short_ipam short_hosts short_crash setup bad_input isolation \
	ports port_list parallel restart repair crash managed managed_alone backends docker_cli \
	state_lost sticky unguarded drift
SCRIPTS := tools/picture tools/release tools/settings # Python by their first lines
# the managed plugin: amd64 or arm64, as this machine is
PLUGIN ?= flannel-driver
FOLDER ?= build/plugin
BASE ?=
PLUGIN_DEPS := debootstrap docker-registry ignition shellcheck # of its tests
VM_DEPS := mmdebstrap qemu-system-x86 qemu-utils apt-utils debian-archive-keyring

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: deps venv ## see it work on this machine: three hosts, one etcd, compose, a published port
	$(BIN)/python -m demo

test: deps check test-kernel test-e2e test-vm-short ## lint, types, unit, kernel and end-to-end tests, a real machine

check: lint type test-unit ## what needs no root

lint: venv ## ruff, that the code is formatted, who imports whom, and that docs/ knows it
	$(BIN)/ruff check . $(SCRIPTS)
	$(BIN)/ruff format --check . $(SCRIPTS)
	$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/python tools/picture --check
	@$(BIN)/python tools/settings --check

type: venv ## mypy, strict; of the kernel tests, which are not annotated, the bodies
	$(BIN)/mypy driver tests demo benchmarks tools/drawing.py $(SCRIPTS)

test-unit: venv ## unit tests
	$(BIN)/python -m pytest -q -n 2 tests/unit

test-kernel: deps venv ## adapters against the real kernel, each test in its own namespace (root)
	$(BIN)/python -m pytest -q tests/kernel

test-e2e: deps venv ## real dockerd, real compose, hosts made of namespaces (root)
	@tools/deps $(PLUGIN_DEPS)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/e2e

test-vm: vm ## the package on real machines: Debian 12 and 13 with their kernels, under QEMU (root)
	ROOTS=$(ROOTS) $(BIN)/python -m pytest -q tests/vm

test-vm-short: vm # on one machine: install, first container, reboot, uninstall
	ROOTS=$(ROOTS) $(BIN)/python -m pytest -q tests/vm/test_short.py

vm: deps venv
	@tools/deps $(VM_DEPS)

coverage: deps venv ## which lines of driver/ the unit and kernel tests leave out (root)
	$(BIN)/coverage run -m pytest -q tests/unit tests/kernel
	$(BIN)/coverage report

test-dockers: test-docker-trixie test-docker-sid ## what matters, with other Dockers (root)

test-docker-%: deps venv
	@tools/deps $(PLUGIN_DEPS)
	tools/docker-root $* $(ROOTS)
	DOCKER_ROOT=$(ROOTS)/$* $(BIN)/python -m pytest -q $(DOCKER_TESTS:%=tests/e2e/test_%.py)

test-dockers-quick: ## the least of that
	$(MAKE) test-docker-sid DOCKER_TESTS="short_form short_restart short_ipam setup"

bench: deps venv ## how long a container takes, beside Docker's bridge and none (root)
	$(BIN)/python -m benchmarks

fmt: venv ## format the code
	$(BIN)/ruff check --fix . $(SCRIPTS)
	$(BIN)/ruff format . $(SCRIPTS)

picture: ## draw docs/architecture.svg from the code
	@$(PYTHON) tools/picture

settings: venv ## write the table of docs/settings.md from the code
	@$(BIN)/python tools/settings

run: venv ## serve in the foreground, with debug log
	$(BIN)/docker-flannel serve --log-level debug

status: venv ## what the plugin on this machine does
	$(BIN)/docker-flannel status

rootfs: ## the managed plugin's files (BASE=Debian 13 as folder or tar: without an image registry)
	plugin/rootfs $(FOLDER) $(BASE)

create: # what `plugin` does with the files
	docker plugin create $(PLUGIN) $(FOLDER)

plugin: rootfs create ## a managed plugin of these files in this machine's Docker

enable: ## switch the managed plugin on
	docker plugin enable $(PLUGIN)

push: ## send it to a registry (PLUGIN=registry/name:tag, also when it is made)
	docker plugin push $(PLUGIN)

disable: ## switch the managed plugin off
	docker plugin disable --force $(PLUGIN)

deb: ## the Debian package for RELEASE=trixie, or for the one that this machine has (root)
	@ROOTS=$(ROOTS) tools/deb $(RELEASE)

lock: ## pin the dependencies anew (LOCK=--upgrade: their newest versions)
	PYTHON=$(PYTHON) tools/lock $(LOCK)

install: ## install the service on this machine (root)
	PYTHON=$(PYTHON) PREFIX=$(PREFIX) packaging/install

uninstall: ## remove the service again (root)
	PREFIX=$(PREFIX) packaging/uninstall

sbom: ## what it is made of: build/sbom.json, and build/packages.txt of the managed plugin
	PYTHON=$(PYTHON) tools/supply sbom $(FOLDER)

audit: ## ask whether a Python dependency is known to be vulnerable
	PYTHON=$(PYTHON) tools/supply audit

release: ## commit, tag and packages of VERSION=x.y.z; RELEASING.md tells the rest
	@$(PYTHON) tools/release "$$VERSION"

clean: ## remove what the other targets made in this folder
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage

deps: # Debian packages for tests and demo
	@tools/deps

venv: .venv/ready
.venv/ready: setup.cfg pyproject.toml
	@test -x $(BIN)/python || { tools/deps; $(PYTHON) -m venv .venv; }
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: help demo test check lint type test-unit test-kernel test-e2e test-vm test-vm-short vm coverage test-dockers \
	test-dockers-quick bench fmt picture settings run status rootfs create plugin enable push disable sbom audit release deb lock \
	install uninstall clean deps venv
